/** `qpq-server federation …`: other servers, and what waits for them. */
import type { Command } from "commander";
import type { JsonObject } from "../admin/control.ts";
import {
  federationBlock,
  federationPeers,
  federationRetry,
  federationStatus,
  federationUnblock,
} from "../admin/federation.ts";
import { adminCommand } from "./admin_command.ts";
import { countOf, describeRows, showSize, showTable, showTime } from "./admin_output.ts";
import { confirmed, destructive } from "./confirm.ts";
import type { Terminal } from "./terminal.ts";

const OFF = "This server does not federate (federation.domain is not set).\n";

/** Adds the commands to `program`. */
export function addFederation(program: Command, terminal: Terminal): void {
  const federation = program.command("federation").description("other servers, and what waits for them");
  adminCommand(federation, {
    words: "status",
    description: "what waits for each other server, and what is done about it",
    operation: federationStatus,
    show: showStatus,
    help: "Example: qpq-server federation status --json | jq '.outboxes[] | select(.depth > 1000)'",
  }, terminal);
  adminCommand(federation, {
    words: "peers",
    description: "the servers that messages are exchanged with, and the blocked ones",
    operation: federationPeers,
    show: ({ peers }) => showPeers(peers as JsonObject[]),
  }, terminal);
  adminCommand(federation, {
    words: "retry [domain]",
    description: "try at once what waits for its next attempt: for a server, or for all",
    operation: federationRetry,
    declare: dryRun,
    input: (flags, [domain]) => ({
      ...(domain === undefined ? {} : { domain }),
      dryRun: flags["dryRun"] === true,
    }),
    show: ({ retried, dryRun }) => {
      const domains = retried as string[];
      if (domains.length === 0) return "Nothing waits.\n";
      return `${dryRun ? "To be tried" : "Trying"} at once: ${domains.join(", ")}.\n`;
    },
    help: "Example: qpq-server federation retry example.org",
  }, terminal);
  adminCommand(federation, {
    words: "block <domain>",
    description: "exchange nothing more with a server; what waits for it stays until it expires",
    operation: federationBlock,
    declare: (command) =>
      destructive(command.option("--drop", "give up what waits for it, and tell its senders")),
    input: (flags, [domain]) => ({
      domain: domain!,
      drop: flags["drop"] === true,
      dryRun: flags["dryRun"] === true,
    }),
    reach: confirmed(
      federationBlock,
      ({ domain, dropped }) =>
        Number(dropped) === 0 ? null : `${countOf(dropped, "message")} for ${domain} will be given up.`,
    ),
    show: ({ domain, waiting, dropped, dryRun }) => {
      const rest = Number(waiting) - Number(dropped);
      const parts = [
        `${domain} ${dryRun ? "would be" : "is"} blocked`,
        ...(Number(dropped) > 0
          ? [`${countOf(dropped, "message")} ${dryRun ? "to be given up" : "given up"}`]
          : []),
        ...(rest > 0 ? [`${countOf(rest, "message")} kept until they expire`] : []),
      ];
      return `${parts.join("; ")}.\n`;
    },
    help: "Example: qpq-server federation block example.org --drop --dry-run",
  }, terminal);
  adminCommand(federation, {
    words: "unblock <domain>",
    description: "undo a block: what still waits is sent",
    operation: federationUnblock,
    declare: dryRun,
    input: (flags, [domain]) => ({ domain: domain!, dryRun: flags["dryRun"] === true }),
    show: ({ domain, waiting, dryRun }) =>
      `${domain} ${dryRun ? "would no longer be" : "is no longer"} blocked; ${
        countOf(waiting, "message")
      } for it waiting.\n`,
  }, terminal);
}

function dryRun(command: Command): Command {
  return command.option("--dry-run", "say what would happen, and change nothing");
}

function showStatus({ outboxes, enabled, ...totals }: JsonObject): string {
  if (enabled !== true) return OFF;
  const rows = (outboxes as readonly JsonObject[]).map((outbox) => [
    String(outbox["domain"]),
    String(outbox["depth"]),
    showSize(Number(outbox["bytes"])),
    showTime(outbox["oldestAcceptedAt"]),
    showTime(outbox["nextAttemptAt"]),
    String(outbox["lastProblem"] ?? ""),
  ]);
  if (rows.length === 0) return `${describeRows(totals)}\nNothing waits.\n`;
  const heading = ["domain", "waiting", "size", "oldest", "next attempt", "problem"];
  return `${describeRows(totals)}\n${showTable([heading, ...rows])}`;
}

function showPeers(peers: readonly JsonObject[]): string {
  if (peers.length === 0) return "No peers: set federation.peers.\n";
  const rows = peers.map((peer) => [
    String(peer["domain"]),
    String(peer["address"] ?? "by DNS"),
    peer["blocked"] ? "blocked" : peer["listed"] ? "" : "not listed",
    peer["link"] === undefined ? "" : peer["link"] ? "up" : "-",
    showTime(peer["certificateExpiresAt"]),
  ]);
  return showTable([["domain", "address", "", "link", "certificate expires"], ...rows]);
}

/** `qpq-server queue …`: the delivery queues. */
import type { Command } from "commander";
import type { JsonObject } from "../admin/control.ts";
import { queuePurge, queueStats } from "../admin/queues.ts";
import { adminCommand } from "./admin_command.ts";
import { countOf, describeRows, showSize, showTable, showTime } from "./admin_output.ts";
import { confirmed, destructive } from "./confirm.ts";
import type { Terminal } from "./terminal.ts";
import { wholeNumber } from "./whole_number.ts";

/** Adds the commands to `program`. */
export function addQueue(program: Command, terminal: Terminal): void {
  const queue = program.command("queue").description("delivery queues, one a device");
  adminCommand(queue, {
    words: "stats [device]",
    description: "how much waits, and in which queues most; or the queue of one device",
    operation: queueStats,
    declare: (command) => command.option("--count <number>", "so many of the fullest queues", "10"),
    input: (flags, [device]) => ({
      ...(device === undefined ? {} : { device }),
      count: wholeNumber(flags, "count"),
    }),
    show: showStats,
    help: "Example: qpq-server queue stats --json | jq '.queues[0]'",
  }, terminal);
  adminCommand(queue, {
    words: "purge <device>",
    description:
      "delete what waits for a device (its id, or the beginning of it); its owner sees that it was lost",
    operation: queuePurge,
    declare: destructive,
    input: (flags, [device]) => ({ device: device!, dryRun: flags["dryRun"] === true }),
    reach: confirmed(
      queuePurge,
      ({ deviceId, userName, entries }) =>
        Number(entries) === 0
          ? null
          : `${
            countOf(entries, "message")
          } for ${deviceId} of ${userName} will be deleted, and cannot be had again.`,
    ),
    show: ({ deviceId, userName, entries, dryRun }) =>
      `${countOf(entries, "message")} for ${deviceId} of ${userName} ${
        dryRun ? "to be deleted" : "deleted"
      }.\n`,
  }, terminal);
}

function showStats({ queues, ...totals }: JsonObject): string {
  if (queues === undefined) return describeRows(totals);
  const rows = (queues as readonly JsonObject[]).map((queue) => [
    String(queue["deviceId"]),
    String(queue["userName"]),
    String(queue["entries"]),
    showSize(Number(queue["bytes"])),
    showTime(queue["oldestAcceptedAt"]),
  ]);
  if (rows.length === 0) return `${describeRows(totals)}\nNothing waits.\n`;
  return `${describeRows(totals)}\n${showTable([["device", "user", "waiting", "size", "oldest"], ...rows])}`;
}

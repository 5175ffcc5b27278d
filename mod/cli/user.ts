/** `qpq-server user …`: accounts. */
import type { Command } from "commander";
import type { JsonObject } from "../admin/control.ts";
import {
  userDelete,
  userDisable,
  userEnable,
  userInvite,
  userList,
  userReset,
  userShow,
} from "../admin/users.ts";
import { readDuration, Refusal } from "../config/values.ts";
import { adminCommand, type Flags } from "./admin_command.ts";
import { countOf, describeRows, showTable, showTime } from "./admin_output.ts";
import { confirmed, destructive } from "./confirm.ts";
import { showDevices } from "./device.ts";
import { dryRun } from "./rotate.ts";
import { type Terminal, UsageError } from "./terminal.ts";
import { wholeNumber } from "./whole_number.ts";

const YEAR_MS = 365 * 86_400_000;

/** Adds the commands to `program`. */
export function addUser(program: Command, terminal: Terminal): void {
  const user = program.command("user").description("accounts: list, disable, delete, invite, reset");
  addLooking(user, terminal);
  addSwitching(user, terminal);
  addDelete(user, terminal);
  addInvitations(user, terminal);
}

function addLooking(user: Command, terminal: Terminal): void {
  adminCommand(user, {
    words: "list [beginning]",
    description: "show all users, or those whose name begins so",
    operation: userList,
    declare: (command) => command.option("--limit <number>", "at most so many", "1000"),
    input: (flags, [beginning]) => ({
      ...(beginning === undefined ? {} : { beginning }),
      limit: wholeNumber(flags, "limit"),
    }),
    show: showUsers,
    help: "Example: qpq-server user list --json | jq -r '.users[] | select(.enabled | not) | .userName'",
  }, terminal);
  adminCommand(user, {
    words: "show <name>",
    description: "show a user (name or account id) with the devices",
    operation: userShow,
    input: (_, [name]) => ({ user: name! }),
    show: ({ devices, ...account }) => `${describeRows(account)}\n${showDevices(devices as JsonObject[])}`,
  }, terminal);
}

function addSwitching(user: Command, terminal: Terminal): void {
  for (const [word, operation] of [["disable", userDisable], ["enable", userEnable]] as const) {
    adminCommand(user, {
      words: `${word} <name>`,
      description: word === "disable"
        ? "end a user's sessions and connections, and refuse new ones; everything else stays"
        : "let a disabled user log in again",
      operation,
      declare: dryRun,
      input: (flags, [name]) => ({ user: name!, dryRun: flags["dryRun"] === true }),
      show: ({ userName, changes, dryRun }) => {
        if (!changes) return `${userName} is ${word}d already.\n`;
        return dryRun ? `${userName} would be ${word}d.\n` : `${userName} is ${word}d.\n`;
      },
    }, terminal);
  }
}

function addDelete(user: Command, terminal: Terminal): void {
  adminCommand(user, {
    words: "delete <name>",
    description: "delete a user with devices, waiting messages and files; the name stays reserved",
    operation: userDelete,
    declare: destructive,
    input: (flags, [name]) => ({ user: name!, dryRun: flags["dryRun"] === true }),
    reach: confirmed(
      userDelete,
      ({ userName, devices }) =>
        `${userName} with ${
          countOf(devices, "device")
        } and everything that waits for them will be deleted for good.`,
    ),
    show: ({ userName, accountId, devices, dryRun }) =>
      `${userName} (${accountId}, ${countOf(devices, "device")}) ${dryRun ? "would be" : "was"} deleted.\n`,
    help: "Example: qpq-server user delete mallory --yes",
  }, terminal);
}

function addInvitations(user: Command, terminal: Terminal): void {
  const ttl = (command: Command) =>
    command.option("--ttl <duration>", "how long it can be used (default and most: limits.invitation_ttl)");
  adminCommand(user, {
    words: "invite",
    description: "make an invitation: somebody may register with it, once",
    operation: userInvite,
    declare: ttl,
    input: ttlInput,
    show: ({ invitation, expiresAt }) =>
      `${invitation}\nIt can be used once, until ${showTime(expiresAt)}:\n` +
      `  qpq-client register NAME --invitation ${invitation} …\n`,
    help: "Example: qpq-server user invite --ttl 1d",
  }, terminal);
  adminCommand(user, {
    words: "reset <name>",
    description: "make an invitation to register the same account again, for a forgotten password",
    operation: userReset,
    declare: (command) => dryRun(ttl(command)),
    input: (flags, [name]) => ({ user: name!, dryRun: flags["dryRun"] === true, ...ttlInput(flags) }),
    show: showReset,
    help: "Example: qpq-server user reset alice",
  }, terminal);
}

function showReset({ userName, enabled, invitation, expiresAt }: JsonObject): string {
  const effect =
    "When it is used the account's devices, what waits for them and its key go; contacts are told that " +
    "the key has changed.\n";
  const disabled = enabled
    ? ""
    : `${userName} is disabled: \`qpq-server user enable ${userName}\` as well.\n`;
  if (invitation === null) {
    return `${userName} would get an invitation until ${showTime(expiresAt)}. ${effect}${disabled}`;
  }
  return `${invitation}\n${userName} can use it once, until ${showTime(expiresAt)}, to register again:\n` +
    `  qpq-client register ${userName} --invitation ${invitation} …\n${effect}${disabled}`;
}

function showUsers({ users, more }: JsonObject): string {
  const rows = (users as readonly JsonObject[]).map((user) => [
    String(user["userName"]),
    user["enabled"] ? "" : "disabled",
    String(user["devices"]),
    String(user["queueEntries"]),
    showTime(user["lastSeenAt"]),
    String(user["setupId"]),
  ]);
  if (rows.length === 0) return "There is no such user.\n";
  const table = showTable([["name", "", "devices", "waiting", "last seen", "setup"], ...rows]);
  return more ? `${table}… and more: --limit shows them\n` : table;
}

function ttlInput(flags: Flags): JsonObject {
  if (flags["ttl"] === undefined) return {};
  const value = readDuration(0, YEAR_MS)(flags["ttl"]);
  if (value instanceof Refusal) throw new UsageError(`--ttl ${value.text}`);
  return { ttlMs: value };
}

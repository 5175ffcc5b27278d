/** `qpq-server backup create | list | verify | restore | prune` and `qpq-server restored`. */
import { resolve } from "node:path";
import type { Command } from "commander";
import { newIdentity, recipientsOf } from "../admin/backup_age.ts";
import { backupCreate, backupList, backupPrune, backupVerify, restored } from "../admin/backup_operations.ts";
import type { Json, JsonObject } from "../admin/control.ts";
import { runStopped } from "../admin/operations_stopped.ts";
import { backupRestore } from "../admin/restore_operation.ts";
import { systemClock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { exists, readTextIfThere, writeFileAtomic } from "../base/files.ts";
import { diskFile } from "../config/disk_file.ts";
import { load } from "../config/load.ts";
import { readDuration, Refusal } from "../config/values.ts";
import { deviceRevokedNotice } from "../server/notices.ts";
import { type AdminCall, adminCommand, type Flags, ProgressBar } from "./admin_command.ts";
import { describeRows, showSize } from "./admin_output.ts";
import { optionFlags } from "./option_flags.ts";
import { type Terminal, UsageError } from "./terminal.ts";

const YEARS_MS = 3650 * 86_400_000;

/** Adds `backup` to `program`. */
export function addBackup(program: Command, terminal: Terminal): void {
  const backup = program.command("backup").description("make, check, restore and remove backups");
  addCreate(backup, terminal);
  addList(backup, terminal);
  addVerify(backup, terminal);
  addRestore(backup, terminal);
  addPrune(backup, terminal);
  addIdentity(backup, terminal);
}

function addCreate(parent: Command, terminal: Terminal): void {
  adminCommand(parent, {
    words: "create",
    description: "copy the store and its blobs while the server runs on",
    operation: backupCreate,
    declare: (command) =>
      command.option("--to <folder>", "put it there (default: backup.dir)")
        .option("--encrypt-to <recipient...>", "encrypt to these age recipients (default: backup.encrypt_to)")
        .option("--plain", "do not encrypt, whatever backup.encrypt_to says")
        .option("--dry-run", "only say what would be copied"),
    input: (flags) => ({
      ...pathInput(flags, "to"),
      ...(flags["encryptTo"] === undefined ? {} : { encryptTo: flags["encryptTo"] as unknown as string[] }),
      plain: flags["plain"] === true,
      dryRun: flags["dryRun"] === true,
    }),
    show: (result) => describeRows(result),
    help: "Example: qpq-server backup create --to /mnt/backups",
  }, terminal);
}

function addList(parent: Command, terminal: Terminal): void {
  adminCommand(parent, {
    words: "list",
    description: "show the backups, oldest first",
    operation: backupList,
    declare: (command) => command.option("--in <folder>", "of this folder (default: backup.dir)"),
    input: (flags) => pathInput(flags, "in"),
    show: showList,
    help: "Example: qpq-server backup list --json | jq -r '.backups[-1].path'",
  }, terminal);
}

function showList({ folder, backups }: JsonObject): string {
  const found = backups as readonly JsonObject[];
  if (found.length === 0) return `There is no backup in ${folder}.\n`;
  return found.map((backup) => {
    if (backup["problem"] !== undefined) return `${backup["id"]}  DAMAGED: ${backup["problem"]}\n`;
    const encrypted = (backup["encryptedTo"] as readonly string[]).length > 0 ? ", encrypted" : "";
    const size = showSize(backup["bytes"] as number).padStart(10);
    return `${backup["id"]}  ${size}  ${backup["accounts"]} accounts, ${backup["queueEntries"]} messages, ` +
      `${backup["blobs"]} blobs${encrypted}\n`;
  }).join("");
}

function addVerify(parent: Command, terminal: Terminal): void {
  adminCommand(parent, {
    words: "verify [path]",
    description: "open a backup in a temporary place and check everything in it (default: the newest)",
    operation: backupVerify,
    declare: (command) =>
      command.option("--identity <file>", "age identity file that opens an encrypted backup")
        .option("--temporary <folder>", "where to open it (default: backups in the data folder)"),
    input: async (flags, [path]) => ({
      ...await namedBackup(path),
      ...await identityInput(flags),
      ...pathInput(flags, "temporary"),
    }),
    show: showVerified,
    exitCode: (result) => result["ok"] === true ? 0 : 1,
    help: "Example: qpq-server backup verify /mnt/backups/20260131T033000Z-1a2b3c --identity ~/age.key",
  }, terminal);
}

function showVerified(result: JsonObject): string {
  const { ok, path, opened, problems, blobsMissing } = result;
  if (!ok) {
    return [`${path} is DAMAGED:`, ...(problems as readonly string[]).map((line) => `  ${line}`), ""].join(
      "\n",
    );
  }
  const missing = blobsMissing
    ? `${blobsMissing} blobs are not in it: the server itself had lost them when it was made.\n`
    : "";
  if (!opened) {
    return `${path}: every file is as it was written. It is encrypted: give --identity FILE to open it too.\n` +
      missing;
  }
  return `${path} is good: it was opened, and everything in it is there and sound.\n${missing}`;
}

function addRestore(parent: Command, terminal: Terminal): void {
  adminCommand(parent, {
    words: "restore <path>",
    description: "make a data folder from a backup; no server may run on that folder",
    operation: backupRestore,
    declare: (command) =>
      command.requiredOption("--to <folder>", "the data folder to make: empty, or not there yet")
        .option("--force", "the folder need not be empty: the store and blobs in it are moved aside")
        .option("--identity <file>", "age identity file that opens an encrypted backup")
        .option("--revocations <file>", "a revocations.log of the time after the backup")
        .option("--without-damaged-blobs", "restore the rest when blobs of the backup are damaged")
        .option("--dry-run", "only say what would be done"),
    input: async (flags, [path]) => ({
      ...await namedBackup(path),
      ...await identityInput(flags),
      ...pathInput(flags, "to"),
      ...pathInput(flags, "revocations"),
      force: flags["force"] === true,
      withoutDamagedBlobs: flags["withoutDamagedBlobs"] === true,
      dryRun: flags["dryRun"] === true,
    }),
    reach: restoreHere,
    show: showRestored,
    help: "Example: qpq-server backup restore /mnt/backups/20260131T033000Z-1a2b3c --to /var/lib/qpq",
  }, terminal);
}

/** In this process, whether a server runs or not: what is restored is the folder of none that runs. */
async function restoreHere({ input, flags, terminal }: AdminCall): Promise<JsonObject> {
  const { settings } = load({
    env: terminal.env,
    flags: optionFlags(flags),
    readFile: diskFile,
    purpose: "tool",
  });
  using bar = new ProgressBar(terminal, backupRestore.name);
  const result = await runStopped(backupRestore, {
    settings,
    input,
    progress: (share) => bar.show(share),
    deviceRevokedNotice: (deviceId) => deviceRevokedNotice({ clock: systemClock, settings }, deviceId),
  });
  return { via: "stopped", ...result };
}

function showRestored({ notes, ...result }: JsonObject): string {
  const lines = ((notes ?? []) as readonly Json[]).map((note) => `* ${note}.\n`);
  return describeRows(result) + (lines.length > 0 ? `\nTo know and to do:\n${lines.join("")}` : "");
}

function addPrune(parent: Command, terminal: Terminal): void {
  adminCommand(parent, {
    words: "prune",
    description: "remove backups that no rule keeps; the newest always stays",
    operation: backupPrune,
    declare: (command) =>
      command.option("--in <folder>", "of this folder (default: backup.dir)")
        .option("--keep <count>", "keep the newest so many")
        .option("--keep-daily <count>", "and the newest of each of so many days")
        .option("--keep-weekly <count>", "of each of so many weeks")
        .option("--keep-monthly <count>", "of each of so many months")
        .option("--keep-within <duration>", "and all that are younger, as in 14d")
        .option("--dry-run", "only say which"),
    input: (flags) => ({
      ...pathInput(flags, "in"),
      ...countInput(flags, "keep", "keepLast"),
      ...countInput(flags, "keepDaily"),
      ...countInput(flags, "keepWeekly"),
      ...countInput(flags, "keepMonthly"),
      ...durationInput(flags),
      dryRun: flags["dryRun"] === true,
    }),
    show: showPruned,
    help: "Without --keep…: the rules of the configuration (backup.keep_last and others).\n" +
      "Example: qpq-server backup prune --keep 3 --keep-daily 14 --dry-run",
  }, terminal);
}

function showPruned({ dryRun, kept, removed, unreadable }: JsonObject): string {
  const lines = (kept as readonly JsonObject[]).map(({ id, because }) => `keep    ${id}  (${because})\n`);
  const verb = dryRun ? "would remove" : "removed";
  for (const id of removed as readonly string[]) lines.push(`${verb} ${id}\n`);
  for (const id of unreadable as readonly string[]) {
    lines.push(`not touched, its manifest cannot be read: ${id}\n`);
  }
  return lines.length === 0 ? "There are no backups.\n" : lines.join("");
}

function addIdentity(parent: Command, terminal: Terminal): void {
  parent.command("identity <file>")
    .description("print the age recipients of an identity file, which is made if it is not there")
    .addHelpText(
      "after",
      "\nKeep the file away from the backups: it is what opens them. age-keygen makes the same.",
    )
    .action(async (path: string) => {
      const there = await readTextIfThere(path);
      const text = there ?? await newIdentity(systemClock.now());
      if (there === null) await writeFileAtomic(path, text, { mode: 0o600 });
      terminal.out((await recipientsOf(text)).map((recipient) => `${recipient}\n`).join(""));
    });
}

/** Adds `restored` to `program`. */
export function addRestored(program: Command, terminal: Terminal): void {
  adminCommand(program, {
    words: "restored",
    description: "after a file copy or a VM snapshot was put back: see to it that nothing used comes back",
    operation: restored,
    declare: (command) => command.option("--dry-run", "only look"),
    input: (flags) => ({ dryRun: flags["dryRun"] === true }),
    show: (result) => describeRows(result),
    help: "Run it before the first start. Example: qpq-server restored --data-dir /var/lib/qpq",
  }, terminal);
}

/** The running server has another working folder. */
function pathInput(flags: Flags, name: string): JsonObject {
  const value = flags[name];
  return typeof value === "string" ? { [name]: resolve(value) } : {};
}

/** What is no path from here may be the id of a backup. */
async function namedBackup(name: string | undefined): Promise<JsonObject> {
  if (name === undefined) return {};
  return { path: await exists(name) ? resolve(name) : name };
}

async function identityInput(flags: Flags): Promise<JsonObject> {
  const path = flags["identity"];
  if (typeof path !== "string") return {};
  try {
    return { identity: await Deno.readTextFile(path) };
  } catch (error) {
    throw new UsageError(`Cannot read the identity file ${path}: ${messageOf(error)}`);
  }
}

function countInput(flags: Flags, flag: string, name = flag): JsonObject {
  const value = flags[flag];
  if (typeof value !== "string") return {};
  if (!/^\d{1,6}$/.test(value)) throw new UsageError(`${value} is no number of backups`);
  return { [name]: Number(value) };
}

function durationInput(flags: Flags): JsonObject {
  const value = flags["keepWithin"];
  if (typeof value !== "string") return {};
  const ms = readDuration(0, YEARS_MS)(value);
  if (ms instanceof Refusal) throw new UsageError(`--keep-within ${ms.text}`);
  return { keepWithinMs: ms };
}

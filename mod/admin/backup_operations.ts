/** The operations of backups, as operations.ts wants them; restoring is in restore_operation.ts. */
import { join, resolve } from "node:path";
import { hex } from "../base/bytes.ts";
import { exists } from "../base/files.ts";
import type { Settings } from "../config/options.ts";
import { createBackup, type Created } from "./backup.ts";
import { dbKeysOf } from "./backup_keys.ts";
import { backupsDirOf, draftFolder, findBackups, type FoundBackup, resolveBackup } from "./backup_list.ts";
import type { Manifest } from "./backup_manifest.ts";
import { type KeepRules, pruneBackups } from "./backup_prune.ts";
import { verify } from "./backup_thread.ts";
import { encrypterFor } from "./backup_age.ts";
import type { JsonObject } from "./control.ts";
import { AdminError, type Operation } from "./operations.ts";
import { InputReader } from "./operations_input.ts";

/** One of them at a time: what one looks at another must not remove. */
const ALONE = "backup";

/** Makes a backup. */
export const backupCreate: Operation = {
  name: "backup create",
  whenStopped: "changes",
  audited: true,
  alone: ALONE,
  async run(context, input, progress) {
    const reader = new InputReader(input);
    const to = reader.text("to");
    const recipients = reader.texts("encryptTo") ?? context.settings.backup.encryptTo ?? [];
    const plain = reader.flag("plain");
    const dryRun = reader.flag("dryRun");
    reader.end();
    const backupsDir = to === null ? backupsDirOf(context.settings) : resolve(to);
    const encryptTo = plain ? [] : recipients;
    if (dryRun) return await planned(context.settings, { backupsDir, encryptTo });
    return createdJson(await createBackup(context, { backupsDir, recipients: encryptTo }, progress));
  },
};

/** What would be copied, without opening the store. */
async function planned(
  settings: Settings,
  { backupsDir, encryptTo }: { backupsDir: string; encryptTo: readonly string[] },
): Promise<JsonObject> {
  encrypterFor(encryptTo);
  const { dataDir, storeBackend } = settings;
  const store = await bytesOf(join(dataDir, storeBackend === "file" ? "journal" : "qpq.db"));
  const blobs = await bytesOf(join(dataDir, "blobs"));
  return { dryRun: true, into: backupsDir, encryptTo: [...encryptTo], storeBytes: store, blobBytes: blobs };
}

async function bytesOf(path: string): Promise<number> {
  const info = await Deno.lstat(path).catch(() => null);
  if (!info?.isDirectory) return info?.size ?? 0;
  let sum = 0;
  for await (const { name } of Deno.readDir(path)) sum += await bytesOf(join(path, name));
  return sum;
}

function createdJson({ folder, manifest, newBytes, sharedBytes }: Created): JsonObject {
  return { ...manifestJson(manifest), path: folder, newBytes, sharedBytes };
}

function manifestJson(manifest: Manifest): JsonObject {
  const { id, createdAt, backend, schemaVersion, programVersion, dbKeyId, counts, blobs } = manifest;
  const fileBytes = manifest.files.reduce((sum, { bytes }) => sum + bytes, 0);
  return {
    id,
    createdAt,
    bytes: fileBytes + blobs.bytes,
    backend,
    schemaVersion,
    programVersion,
    dbKeyId,
    encryptedTo: [...(manifest.encryption?.recipients ?? [])],
    accounts: counts.accounts,
    queueEntries: counts.queueEntries,
    blobs: blobs.count,
    blobsMissing: blobs.missing,
  };
}

/** Lists backups, oldest first. */
export const backupList: Operation = {
  name: "backup list",
  whenStopped: "reads",
  withoutFolder: true,
  audited: false,
  async run({ settings }, input) {
    const reader = new InputReader(input);
    const from = reader.text("in");
    reader.end();
    const folder = from === null ? backupsDirOf(settings) : resolve(from);
    return { folder, backups: (await findBackups(folder)).map(foundJson) };
  },
};

function foundJson({ id, folder, manifest, problem }: FoundBackup): JsonObject {
  return manifest ? { ...manifestJson(manifest), id, path: folder } : { id, path: folder, problem };
}

/** Opens a backup in a temporary place and checks everything. */
export const backupVerify: Operation = {
  name: "backup verify",
  whenStopped: "reads",
  withoutFolder: true,
  audited: false,
  secretInputs: ["identity"],
  alone: ALONE,
  async run({ settings, server }, input, progress) {
    const reader = new InputReader(input);
    const name = reader.text("path");
    const identity = reader.text("identity");
    const temporary = reader.text("temporary");
    reader.end();
    const backupsDir = backupsDirOf(settings);
    const folder = await resolveBackup(name, backupsDir);
    const found = await verify({
      folder,
      keys: await dbKeysOf(settings),
      identity,
      temporary: await temporaryFolder(settings, temporary),
    }, { signal: server?.stopping ?? null, progress });
    const { ok, problems, opened, manifest } = found;
    return { ok, path: folder, opened, problems: [...problems], ...(manifest ? manifestJson(manifest) : {}) };
  },
};

/** On the disk that has room for such things; where there is no data folder, the system's place for them. */
async function temporaryFolder(settings: Settings, wanted: string | null): Promise<string> {
  if (wanted !== null) return await draftFolder(resolve(wanted), "verifying", settings.dataDir);
  if (await exists(settings.dataDir)) {
    return await draftFolder(join(resolve(settings.dataDir), "backups"), "verifying", settings.dataDir);
  }
  return await Deno.makeTempDir({ prefix: "qpq-verify-" });
}

/** Removes backups that no rule keeps. */
export const backupPrune: Operation = {
  name: "backup prune",
  whenStopped: "changes",
  audited: true,
  alone: ALONE,
  async run({ settings, clock }, input) {
    const reader = new InputReader(input);
    const dryRun = reader.flag("dryRun");
    const from = reader.text("in");
    const count = (key: string) => reader.number(key, { min: -1, max: 1e15, otherwise: -1 });
    const given = {
      last: count("keepLast"),
      daily: count("keepDaily"),
      weekly: count("keepWeekly"),
      monthly: count("keepMonthly"),
      withinMs: count("keepWithinMs"),
    };
    reader.end();
    const backupsDir = from === null ? backupsDirOf(settings) : resolve(from);
    const rules = keepRules(settings, given);
    const now = clock.now();
    const pruned = await pruneBackups(backupsDir, { rules, now, dryRun, dataDir: settings.dataDir });
    return {
      dryRun,
      folder: backupsDir,
      kept: pruned.kept.map(({ id, because }) => ({ id, because: [...because] })),
      removed: [...pruned.removed],
      unreadable: [...pruned.unreadable],
    };
  },
};

/** The configuration's rules, unless any is given: then only those that are. */
function keepRules({ backup }: Settings, given: KeepRules): KeepRules {
  const numbers = Object.values(given);
  if (numbers.every((number) => number < 0)) {
    return {
      last: backup.keepLast,
      daily: backup.keepDaily,
      weekly: backup.keepWeekly,
      monthly: backup.keepMonthly,
      withinMs: backup.keepWithinMs,
    };
  }
  const named = Object.entries(given).map(([name, number]) => [name, Math.max(0, number)]);
  return Object.fromEntries(named) as unknown as KeepRules;
}

/** After a file copy or a VM snapshot was put back: what a restore does to the store. */
export const restored: Operation = {
  name: "restored",
  whenStopped: "changes",
  audited: true,
  async run(context, input) {
    const reader = new InputReader(input);
    const dryRun = reader.flag("dryRun");
    reader.end();
    if (context.via === "running") {
      throw new AdminError("Stop the server first: its clients still hold what must not come back");
    }
    const store = await context.store();
    const { keyPackages } = await store.counts();
    const incarnation = hex(dryRun ? store.incarnation : await store.markRestored());
    return { dryRun, keyPackagesDropped: keyPackages, incarnation };
  },
};

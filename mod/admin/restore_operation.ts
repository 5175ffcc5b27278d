/**
 * The operation `backup restore`. It never goes to a running server, whatever folder that has: it makes a data folder
 * for a server to be started, and holds it meanwhile. The audit log that it writes is that folder's.
 */
import { resolve } from "node:path";
import type { Settings } from "../config/options.ts";
import { dbKeysIn, dbKeysOf } from "./backup_keys.ts";
import { backupsDirOf, resolveBackup } from "./backup_list.ts";
import type { Manifest } from "./backup_manifest.ts";
import type { JsonObject } from "./control.ts";
import type { Operation } from "./operations.ts";
import { InputReader } from "./operations_input.ts";
import { planRestore, restoreBackup, type Restored, type RestoreOptions } from "./restore.ts";
import type { Replayed } from "./restore_revocations.ts";

/** Restores a backup into a folder. */
export const backupRestore: Operation = {
  name: "backup restore",
  whenStopped: "reads",
  withoutFolder: true,
  audited: false,
  secretInputs: ["identity"],
  async run(context, input, progress) {
    const { settings, clock, step } = context;
    const reader = new InputReader(input);
    const name = reader.requiredText("path");
    const into = resolve(reader.requiredText("to"));
    const revocations = reader.text("revocations");
    const flags = {
      identity: reader.text("identity"),
      force: reader.flag("force"),
      withoutDamagedBlobs: reader.flag("withoutDamagedBlobs"),
    };
    const dryRun = reader.flag("dryRun");
    reader.end();
    const options: RestoreOptions = {
      folder: await resolveBackup(name, backupsDirOf(settings)),
      into,
      keys: [...new Set([...await dbKeysOf(settings), ...await dbKeysIn(into)])],
      ...flags,
      revocations: revocations === null ? null : resolve(revocations),
      deviceRevokedNotice: (device) => context.deviceRevokedNotice(device),
      clock,
      step,
    };
    if (!dryRun) return restoredJson(await restoreBackup(options, progress), settings);
    const { manifest, replaces } = await planRestore(options);
    return { dryRun: true, ...about(manifest), into, movesAside: [...replaces] };
  },
};

function about({ id, createdAt, backend, schemaVersion, counts }: Manifest): JsonObject {
  const { accounts, devices, queueEntries } = counts;
  return { backup: id, createdAt, backend, schemaVersion, accounts, devices, queueEntries };
}

function restoredJson(restored: Restored, settings: Settings): JsonObject {
  const { manifest, into, incarnation, blobs, blobsLost, blobsMissing, replayed, before } = restored;
  const { sources, accountsReset, ...numbers } = replayed;
  return {
    dryRun: false,
    ...about(manifest),
    into,
    incarnation,
    blobs: blobs - blobsLost.length - blobsMissing,
    blobsLost: blobsLost.length + blobsMissing,
    revocations: { sources: [...sources], ...numbers, accountsReset: [...accountsReset] },
    before,
    notes: notesOf(replayed, manifest, settings),
  };
}

/** What an operator must know or do now, in sentences. */
function notesOf(replayed: Replayed, manifest: Manifest, settings: Settings): string[] {
  const since = new Date(manifest.createdAt).toISOString();
  const notes: string[] = [];
  if (replayed.sources.length === 0) {
    notes.push(
      `No revocations.log of the time since ${since} was found: devices revoked and accounts deleted or disabled since then may be back. Restore again with --revocations FILE if you have it`,
    );
  }
  if (replayed.damagedLines > 0) {
    notes.push(
      `${replayed.damagedLines} lines of revocations.log are damaged: what they took away may be back`,
    );
  }
  if (replayed.accountsReset.length > 0) {
    notes.push(
      `Accounts that were reset since have their former password again: run 'qpq-server user reset' for ${
        replayed.accountsReset.join(", ")
      }`,
    );
  }
  notes.push(`Passwords changed since ${since} are the former ones again; accounts made since then are gone`);
  notes.push(
    `The server needs its DB key (${manifest.dbKeyId}) for this folder: secrets/db-key in it, or db_key_file`,
  );
  if (manifest.backend !== settings.storeBackend) {
    notes.push(`The store is of the ${manifest.backend} backend: set store_backend to ${manifest.backend}`);
  }
  return notes;
}

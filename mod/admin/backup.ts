/**
 * `backup create`: a copy of the store and of every blob that it refers to, while the server goes on.
 *
 * Why the two fit together: a blob's file is on disk before a reference to it is, and is removed after its last
 * reference; it never changes. So at the moment that the copy of the store is of, each blob that it refers to has its
 * file. From before the copy is begun until the last blob is in the backup, files of deleted blobs are only moved
 * aside (BlobFiles.keepDeleted), so that each of them is still found. Blobs that are put later are in no reference of
 * the copy, and not in the backup.
 *
 * A backup is made under a hidden name, synced, and gets its own name last: what bears a name is whole. A failure or
 * the end of the process leaves nothing else behind, or what the next one removes.
 */
import { join } from "node:path";
import { messageOf } from "../base/errors.ts";
import { syncFolder } from "../base/files.ts";
import { logger } from "../base/log.ts";
import type { Settings } from "../config/options.ts";
import { isNoSpace } from "../store/folder_lock.ts";
import { encrypterFor } from "./backup_age.ts";
import { makeFolder, removeAll } from "./backup_files.ts";
import { dbKeysOf } from "./backup_keys.ts";
import { draftFolder, newBackupId, removeDrafts } from "./backup_list.ts";
import { STORE_FOLDER } from "./backup_manifest.ts";
import { Share } from "./backup_progress.ts";
import type { SealReport } from "./backup_seal.ts";
import { seal } from "./backup_thread.ts";
import { type AdminContext, AdminError, type Progress } from "./operations.ts";

const log = logger("backup");

/** What to make. */
export interface CreateOptions {
  /** The folder to put the backup into. */
  readonly backupsDir: string;
  /** age recipients; none: not encrypted. */
  readonly recipients: readonly string[];
}

/** What was made. */
export interface Created extends SealReport {
  readonly folder: string;
}

/** Makes a backup. Throws AdminError, and leaves nothing behind. */
export async function createBackup(
  context: AdminContext,
  options: CreateOptions,
  progress: Progress,
): Promise<Created> {
  const { settings, clock, server } = context;
  const { backupsDir } = options;
  encrypterFor(options.recipients); // refuses a bad one before anything is made
  const share = new Share(progress);
  const createdAt = clock.now();
  const id = newBackupId(createdAt);
  try {
    await makeFolder(backupsDir);
    await removeDrafts(backupsDir, { kinds: ["making", "removing"], dataDir: settings.dataDir });
  } catch (cause) {
    throw new AdminError(`Cannot use the folder of backups ${backupsDir}: ${messageOf(cause)}`, { cause });
  }
  const draft = await draftFolder(backupsDir, "making", settings.dataDir);
  const release = server?.keepDeletedBlobs() ?? (async () => {});
  try {
    const copy = join(draft, STORE_FOLDER);
    await makeFolder(copy);
    await context.step("folder made");
    const store = await context.store();
    const snapshot = await store.snapshotTo(copy, share.part(0, 0.4));
    await context.step("store copied");
    const report = await seal({
      folder: draft,
      dataDir: settings.dataDir,
      backupsDir,
      backend: settings.storeBackend,
      keys: [...new Set([await context.storeKey(), ...await dbKeysOf(settings)])],
      recipients: options.recipients,
      id,
      createdAt,
      counts: snapshot.counts,
    }, { signal: server?.stopping ?? null, progress: share.part(0.4, 1) });
    await context.step("sealed");
    const folder = join(backupsDir, id);
    await Deno.rename(draft, folder);
    await syncFolder(backupsDir);
    tellMade(report, settings);
    return { ...report, folder };
  } catch (cause) {
    await removeAll(draft).catch((error) => {
      log.error("{folder} is worth nothing and cannot be removed: {reason}", {
        folder: draft,
        reason: messageOf(error),
      });
    });
    throw cause instanceof AdminError ? cause : new AdminError(whyNot(cause, backupsDir), { cause });
  } finally {
    await release();
  }
}

function whyNot(cause: unknown, backupsDir: string): string {
  const full = isNoSpace(cause) || /disk is full|No space left/i.test(messageOf(cause));
  return full
    ? `No backup was made, as the disk of ${backupsDir} is full: free some space, or remove old backups with ` +
      "'qpq-server backup prune'"
    : `No backup was made: ${messageOf(cause)}`;
}

function tellMade({ manifest, newBytes }: SealReport, { dataDir }: Settings): void {
  const { id, blobs, encryption } = manifest;
  log.info("made backup {id}", { id, newBytes, blobs: blobs.count, encrypted: encryption !== null });
  if (blobs.missing === 0) return;
  log.error(
    "{missing} blobs that the store refers to are missing or damaged in {dataDir}: the backup lacks them",
    {
      missing: blobs.missing,
      dataDir,
    },
  );
}

/**
 * One server for each data folder: an operating-system lock on `lock` in it. The kernel drops the lock when the
 * process ends in whatever way, so nothing stale is ever left; the pid in the file is for the message only.
 */
import { join } from "node:path";
import { openPlainFile } from "../base/files.ts";
import { StoreOpenError } from "./store.ts";

/** A data folder held by this process. */
export interface FolderLock {
  /** Lets go of the folder. Idempotent. */
  release(): void;
}

/** Takes the folder; throws StoreOpenError `inUse` when another store, in whatever process, holds it. */
export async function lockFolder(dataDir: string): Promise<FolderLock> {
  const path = join(dataDir, "lock");
  const file = await openLockFile(dataDir, path);
  try {
    if (!await file.tryLock(true)) throw await inUse(dataDir, path);
    await writePid(file);
  } catch (error) {
    file.close();
    throw error;
  }
  let held = true;
  return {
    release() {
      if (!held) return;
      held = false;
      // Closing alone would leave the lock with a child that was forked in this moment and has not exec'd yet.
      file.unlockSync();
      file.close();
    },
  };
}

async function openLockFile(dataDir: string, path: string): Promise<Deno.FsFile> {
  try {
    return await openPlainFile(path, { read: true, write: true, create: true, mode: 0o600 });
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) {
      throw new StoreOpenError(
        "failed",
        dataDir,
        `Cannot open the store as the data folder ${dataDir} does not exist`,
        {
          cause,
        },
      );
    }
    if (isNoSpace(cause)) {
      throw new StoreOpenError(
        "diskFull",
        path,
        `Cannot write ${path} as the disk is full: free some space`,
        { cause },
      );
    }
    throw new StoreOpenError(
      "readOnly",
      path,
      `Cannot write ${path}: make the data folder writable for the user that runs the server, and its file system writable`,
      { cause },
    );
  }
}

/** Is it ENOSPC or EDQUOT? */
export function isNoSpace(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return code === "ENOSPC" || code === "EDQUOT";
}

/** The pid is a courtesy: a full disk must not keep a server from starting that could still be read from. */
async function writePid(file: Deno.FsFile): Promise<void> {
  try {
    await file.truncate(0);
    await file.write(new TextEncoder().encode(`${Deno.pid}\n`));
  } catch (error) {
    if (!isNoSpace(error)) throw error;
  }
}

async function inUse(dataDir: string, path: string): Promise<StoreOpenError> {
  // On Windows a locked file cannot be read by others: then the message goes without a pid.
  const text = await Deno.readTextFile(path).catch(() => "");
  const pid = /^\d+$/.test(text.trim()) ? `process ${text.trim()}` : "another process";
  return new StoreOpenError(
    "inUse",
    path,
    `The data folder ${dataDir} is in use by ${pid}: stop that server first, or give this one another folder`,
  );
}

/**
 * The mark of a restore that is putting a backup's files in the place of what a data folder held: while it is there
 * the folder may hold half of each, and nothing may open it. Only another restore removes it.
 */
import { join } from "node:path";
import { exists } from "../base/files.ts";
import { StoreOpenError } from "./store.ts";

/** Name of the mark in the data folder. */
export const RESTORE_MARK = "restore-unfinished";

/** Throws StoreOpenError when a restore into the folder was interrupted. */
export async function refuseHalfRestored(dataDir: string): Promise<void> {
  const path = join(dataDir, RESTORE_MARK);
  if (!await exists(path)) return;
  throw new StoreOpenError(
    "failed",
    path,
    `Cannot open the store in ${dataDir} as a restore into it was interrupted: run 'qpq-server backup restore … ` +
      `--to ${dataDir} --force' again`,
  );
}

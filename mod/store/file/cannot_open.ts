/** What the disk's refusal means to whoever starts the server: the folder and the remedy. */
import { messageOf } from "../../base/errors.ts";
import { StoreOpenError } from "../store.ts";
import { isDiskFull, isReadOnly } from "./disk.ts";

/** The error for an opening that the disk made fail. */
export function cannotOpen(folder: string, cause: unknown): StoreOpenError {
  if (isDiskFull(cause)) {
    const message = `Cannot open ${folder} as the disk is full: free some space`;
    return new StoreOpenError("diskFull", folder, message, { cause });
  }
  if (isReadOnly(cause)) {
    const message = `Cannot write in ${folder}: give it to the server's user and mount it writable ` +
      `(${messageOf(cause)})`;
    return new StoreOpenError("readOnly", folder, message, { cause });
  }
  return new StoreOpenError("failed", folder, `Cannot open ${folder}: ${messageOf(cause)}`, { cause });
}

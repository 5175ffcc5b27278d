/** What can be wrong with a client's state folder; each message names the file and the remedy. */

/** Why the state cannot be used. */
export type StateErrorReason =
  /** Another process has the folder open. */
  | "inUse"
  /** The state is locked with a passphrase and none was given. */
  | "passphraseNeeded"
  /** The passphrase does not open the key. */
  | "wrongPassphrase"
  /** A file was changed, cut in the middle, or belongs to another state. */
  | "damaged"
  /** A newer program wrote the state. */
  | "newerVersion"
  /** Others may read a file that holds secrets. */
  | "permissions"
  /** Nothing can be written there. */
  | "notWritable"
  /** The key is gone, and the rest is unreadable without it. */
  | "keyMissing"
  /** An earlier write failed half-way and could not be undone, or the state was closed. */
  | "closed";

/** The state folder cannot be used. Nothing was changed. */
export class StateError extends Error {
  override name = "StateError";
  readonly reason: StateErrorReason;

  constructor(reason: StateErrorReason, message: string, options: { cause?: unknown } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.reason = reason;
  }
}

/** Refuses a file with secrets that others may read; where the system has such permissions. */
export async function checkPermissions(path: string): Promise<void> {
  const { mode } = await Deno.stat(path);
  if (mode === null || Deno.build.os === "windows" || (mode & 0o077) === 0) return;
  const octal = (mode & 0o777).toString(8);
  throw new StateError(
    "permissions",
    `Cannot use ${path} as others may read it (mode ${octal}): run chmod 600 on it, and take its secrets for leaked`,
  );
}

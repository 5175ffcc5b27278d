/** What can go wrong with MLS messages and groups, in words that the layers above can act on. */

/** Why an MLS operation was refused. */
export type MlsErrorReason =
  /** The bytes are no MLS message, or not one that this client takes. */
  | "malformed"
  /** The message is for another group than the one it was given to. */
  | "wrongGroup"
  /** The message is of an epoch that this device has not reached: a commit was lost. */
  | "futureEpoch"
  /** The message is of an epoch whose keys are deleted. */
  | "epochTooOld"
  /** The message was sent by this device. */
  | "own"
  /** The keys of this message were used already, or are too far ahead. */
  | "replayed"
  /** Decryption, a signature or a check of RFC 9420 failed. */
  | "invalid"
  /** A device in the message is not signed by the account key that is pinned for its account. */
  | "untrusted"
  /** The KeyPackage has expired, is not valid yet, or is valid for longer than 90 days. */
  | "lifetime"
  /** No KeyPackage of this device fits the Welcome: it was used before, or it belongs to another device. */
  | "noKeyPackage"
  /** The message came from another server than its sender's. */
  | "wrongServer"
  /** This device was removed from the group. */
  | "removed"
  /** This device asked to leave the group, and waits for another member's commit. */
  | "leaving"
  /** A proposal waits: commit it before sending messages. */
  | "commitFirst"
  /** The device is in the group already. */
  | "alreadyMember"
  /** The device is not in the group. */
  | "notMember"
  /** A group that spans servers would have members of whom nobody can tell which server they are on. */
  | "domainMissing";

/** A refused MLS operation. The group it was tried on is unchanged. */
export class MlsError extends Error {
  override name = "MlsError";
  readonly reason: MlsErrorReason;

  constructor(reason: MlsErrorReason, message: string, options: { cause?: unknown } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.reason = reason;
  }
}

/** Carries what a callback threw through ts-mls, so that it is not taken for a fault of the message. */
export class CallbackError extends Error {
  override name = "CallbackError";
  readonly thrown: unknown;

  constructor(thrown: unknown) {
    super("A callback failed", { cause: thrown });
    this.thrown = thrown;
  }
}

/** Turns whatever ts-mls or WebCrypto throw into MlsError; what a callback threw passes as it is. */
export async function wrapErrors<T>(action: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof CallbackError) throw cause.thrown;
    if (cause instanceof MlsError) throw cause;
    const text = cause instanceof Error ? cause.message : String(cause);
    const replayed = text.includes("Desired gen");
    throw new MlsError(replayed ? "replayed" : "invalid", `${action}: ${text || "decryption failed"}`, {
      cause,
    });
  }
}

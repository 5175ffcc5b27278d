/** Identifiers: 16 random bytes (blob hashes 32), held as branded lower-case hex so that a raw string is never an id. */
import { hex, randomBytes } from "./bytes.ts";

type Branded<Name extends string> = string & { readonly __id: Name };

/** An account; never reused, even after deletion. */
export type AccountId = Branded<"account">;
/** A device of an account, and its delivery queue. */
export type DeviceId = Branded<"device">;
/** A login session. Not a secret: resuming needs a signature by the device's key. */
export type SessionId = Branded<"session">;
/** Chosen by the sender for one Enqueue; makes it idempotent. */
export type MessageId = Branded<"message">;
/** Given by the server to one accepted message; the same for all its recipients. */
export type EntryId = Branded<"entry">;
/** SHA-256 of a blob's ciphertext. */
export type BlobHash = Branded<"blob">;
/** An MLS group id (any length up to 255 bytes). */
export type GroupId = Branded<"group">;

/** Length in bytes of every id except {@link BlobHash} and {@link GroupId}. */
export const ID_BYTES = 16;

/** Random bytes for many ids: asking the system for each one costs more than all else about it. */
const POOL_BYTES = 256 * ID_BYTES;
let pool = randomBytes(0);
let poolUsed = 0;

/** A new random 128-bit id. Ids are no secrets; keys and tokens are asked for one by one. */
export function randomId<Id extends string>(): Id {
  if (poolUsed === pool.length) [pool, poolUsed] = [randomBytes(POOL_BYTES), 0];
  return hex(pool.subarray(poolUsed, poolUsed += ID_BYTES)) as Id;
}

/**
 * A new message id: Unix milliseconds (48 bits), then random. Stores keep an index by message id; ids in order of
 * time go to its end, where wholly random ones would have a page written for each message.
 */
export function newMessageId(now: number): MessageId {
  return now.toString(16).padStart(12, "0") + hex(randomBytes(ID_BYTES - 6)) as MessageId;
}

/** The id written as `bytes`. The caller has checked the length. */
export function idOf<Id extends string>(bytes: Uint8Array): Id {
  return hex(bytes) as Id;
}

/** First eight hex digits, for logs. */
export function shortId(id: string): string {
  return id.slice(0, 8);
}

/**
 * What the text of a database key means: 64 hex digits are the raw 256-bit key, nothing at all is no encryption,
 * and anything else is a passphrase. Both backends read keys with this, so that one key file fits either.
 */
import { type Bytes, fromHex } from "../base/bytes.ts";

/** A key of the store. Never printed: no message may hold it. */
export type StoreKey =
  | { readonly kind: "raw"; readonly key: Bytes }
  | { readonly kind: "passphrase"; readonly passphrase: string }
  | { readonly kind: "none" };

/** Reads the text of a key; surrounding white space is the caller's to trim. Throws RangeError if it holds NUL. */
export function parseStoreKey(text: string): StoreKey {
  if (text === "") return { kind: "none" };
  if (/^[0-9a-f]{64}$/i.test(text)) return { kind: "raw", key: fromHex(text) };
  // SQL ends at NUL, and an error would quote what was read of the key.
  if (text.includes("\0")) throw new RangeError("Cannot use a DB key that holds the character NUL");
  return { kind: "passphrase", passphrase: text };
}

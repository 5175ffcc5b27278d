/**
 * Records as bytes: JSON in which byte strings are {"$b": base64} and bigints {"$n": decimal}. Fields that this
 * version does not know are kept by whoever copies a record with spread, and ignored otherwise.
 */
import { type Bytes, utf8, utf8Text } from "../base/bytes.ts";

function toJson(_key: string, value: unknown): unknown {
  if (value instanceof Uint8Array) return { $b: value.toBase64() };
  if (typeof value === "bigint") return { $n: String(value) };
  return value;
}

function fromJson(_key: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if ("$b" in value && typeof value.$b === "string") return Uint8Array.fromBase64(value.$b);
  if ("$n" in value && typeof value.$n === "string") return BigInt(value.$n);
  return value;
}

/** Bytes of a record. Undefined fields are left out. */
export function encodeRecord(record: unknown): Bytes {
  return utf8(JSON.stringify(record, toJson));
}

/** The record in `bytes`; throws SyntaxError or TypeError when they are not one. */
export function decodeRecord(bytes: Uint8Array): unknown {
  return JSON.parse(utf8Text(bytes), fromJson);
}

/** Between wire messages and this program's terms: checked ids, numbers, byte strings. */
import { type Bytes, fromHex } from "../base/bytes.ts";
import { QpqError } from "../base/errors.ts";
import { ID_BYTES, idOf } from "../base/ids.ts";

/** The id in a field; `malformedRequest` unless it has 16 bytes. */
export function idField<Id extends string>(bytes: Uint8Array, field: string): Id {
  return idOf<Id>(bytesField(bytes, field, ID_BYTES));
}

/** The bytes in a field; `malformedRequest` unless there are exactly `length`. */
export function bytesField(bytes: Uint8Array, field: string, length: number): Uint8Array {
  if (bytes.length !== length) {
    throw new QpqError("malformedRequest", `${field} must have ${length} bytes: ${bytes.length}`);
  }
  return bytes;
}

/** The bytes in a field; `malformedRequest` when there are more than `max`. */
export function boundedBytes(bytes: Uint8Array, field: string, max: number): Uint8Array {
  if (bytes.length > max) {
    throw new QpqError("malformedRequest", `${field} must have at most ${max} bytes: ${bytes.length}`);
  }
  return bytes;
}

/** A list; `malformedRequest` when it has more than `max` items. */
export function boundedList<Item>(items: readonly Item[], field: string, max: number): readonly Item[] {
  if (items.length > max) {
    throw new QpqError("malformedRequest", `${field} must have at most ${max} items: ${items.length}`);
  }
  return items;
}

/** A uint64 as a number; `malformedRequest` beyond 2^53. */
export function numberField(value: bigint, field: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new QpqError("malformedRequest", `${field} must be <= 2^53 - 1: ${value}`);
  }
  return Number(value);
}

/** The bytes of an id, for a response. */
export function idBytes(id: string): Bytes {
  return fromHex(id);
}

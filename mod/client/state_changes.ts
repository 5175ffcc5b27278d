/**
 * Changes to tables as bytes, and the tables in memory that they are applied to.
 *
 *   change: table (1) ‖ 1 put, 0 delete ‖ key length (2) ‖ key ‖ value length (4) ‖ value
 *
 * A row is JSON (state_codec.ts), except a group's MLS base, which is raw and has a table of its own.
 */
import { type Bytes, concat, copy, utf8, utf8Text } from "../base/bytes.ts";
import type { GroupId } from "../base/ids.ts";
import { decodeRecord, encodeRecord } from "./state_codec.ts";
import { GROUP_BASE_TABLE, type GroupRecord, TABLE_NUMBERS, type TableName } from "./state_records.ts";

/** One row put or deleted. */
export interface Change {
  readonly table: TableName;
  readonly key: string;
  /** Undefined: deleted. */
  readonly row: unknown;
}

const nameByNumber = new Map<number, TableName>(
  Object.keys(TABLE_NUMBERS).map((name) => [TABLE_NUMBERS[name as TableName], name as TableName]),
);

interface RawChange {
  readonly table: number;
  readonly key: string;
  readonly value: Bytes | undefined;
}

function encodeRaw({ table, key, value }: RawChange): Bytes {
  const keyBytes = utf8(key);
  const head = new Uint8Array(4);
  const view = new DataView(head.buffer);
  head[0] = table;
  head[1] = value ? 1 : 0;
  view.setUint16(2, keyBytes.length);
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, value?.length ?? 0);
  return concat(head, keyBytes, length, value ?? new Uint8Array(0));
}

function* decodeRaw(bytes: Bytes): Generator<RawChange> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let offset = 0; offset < bytes.length;) {
    const keyEnd = offset + 4 + view.getUint16(offset + 2);
    const valueEnd = keyEnd + 4 + view.getUint32(keyEnd);
    if (valueEnd > bytes.length) throw new RangeError("Cannot read changes that are cut off");
    yield {
      table: bytes[offset]!,
      key: utf8Text(bytes.subarray(offset + 4, keyEnd)),
      value: bytes[offset + 1] ? copy(bytes.subarray(keyEnd + 4, valueEnd)) : undefined,
    };
    offset = valueEnd;
  }
}

/** All tables in memory. Rows are never changed in place. */
export class TableSet {
  readonly #tables = new Map<TableName, Map<string, unknown>>();
  readonly #sizes = new Map<string, number>();
  readonly #unknown = new Map<string, RawChange>();
  #liveBytes = 0;

  /** About how many bytes a rewritten journal would have. */
  get liveBytes(): number {
    return this.#liveBytes;
  }

  /** The rows of a table by key, in the order they were first put. */
  table(name: TableName): Map<string, unknown> {
    let table = this.#tables.get(name);
    if (!table) this.#tables.set(name, table = new Map());
    return table;
  }

  /** The bytes of `changes` to the tables as they are now. */
  encode(changes: readonly Change[]): Bytes {
    const raw = changes.flatMap((change) => [...this.#rawChanges(change)]);
    return concat(...raw.map(encodeRaw));
  }

  *#rawChanges({ table, key, row }: Change): Generator<RawChange> {
    const number = TABLE_NUMBERS[table];
    if (table !== "groups") {
      yield { table: number, key, value: row === undefined ? undefined : encodeRecord(row) };
      return;
    }
    const before = this.table("groups").get(key) as GroupRecord | undefined;
    const after = row as GroupRecord | undefined;
    if (before?.mls.base !== after?.mls.base) yield { table: GROUP_BASE_TABLE, key, value: after?.mls.base };
    const { mls, ...rest } = after ?? {};
    yield { table: number, key, value: mls && encodeRecord({ ...rest, delta: mls.delta }) };
  }

  /** Applies changes that are on disk, with the bytes they have there. */
  apply(changes: readonly Change[], bytes: Bytes): void {
    for (const { table, key, row } of changes) {
      if (row === undefined) this.table(table).delete(key);
      else this.table(table).set(key, row);
    }
    for (const raw of decodeSizes(bytes)) this.#resize(raw);
  }

  /** Applies the bytes of a transaction read from disk. */
  replay(bytes: Bytes, bases: Map<string, Bytes>): void {
    for (const raw of decodeRaw(bytes)) {
      this.#resize({
        table: raw.table,
        key: raw.key,
        size: raw.value && raw.value.length + raw.key.length + 8,
      });
      if (raw.table === GROUP_BASE_TABLE) {
        if (raw.value) bases.set(raw.key, raw.value);
        else bases.delete(raw.key);
        continue;
      }
      const name = nameByNumber.get(raw.table);
      if (!name) this.#keepUnknown(raw);
      else if (!raw.value) this.table(name).delete(raw.key);
      else this.table(name).set(raw.key, withBase(name, decodeRecord(raw.value), bases.get(raw.key)));
    }
  }

  /** A table of a version between this and the next: kept for it, untouched. */
  #keepUnknown(raw: RawChange): void {
    const key = `${raw.table}/${raw.key}`;
    if (raw.value) this.#unknown.set(key, raw);
    else this.#unknown.delete(key);
  }

  #resize({ table, key, size }: { table: number; key: string; size: number | undefined }): void {
    const name = `${table}/${key}`;
    this.#liveBytes += (size ?? 0) - (this.#sizes.get(name) ?? 0);
    if (size === undefined) this.#sizes.delete(name);
    else this.#sizes.set(name, size);
  }

  /** Everything alive, cut into transactions of about `frameBytes`. */
  *snapshot(frameBytes: number): Generator<Bytes> {
    let parts: Bytes[] = [];
    let size = 0;
    for (const part of this.#snapshotParts()) {
      parts.push(part);
      size += part.length;
      if (size < frameBytes) continue;
      yield concat(...parts);
      parts = [];
      size = 0;
    }
    if (parts.length > 0) yield concat(...parts);
  }

  *#snapshotParts(): Generator<Bytes> {
    for (const [name, rows] of this.#tables) {
      for (const [key, row] of rows) {
        if (name !== "groups") {
          yield encodeRaw({ table: TABLE_NUMBERS[name], key, value: encodeRecord(row) });
          continue;
        }
        const { mls, ...rest } = row as GroupRecord;
        yield encodeRaw({ table: GROUP_BASE_TABLE, key, value: mls.base });
        yield encodeRaw({
          table: TABLE_NUMBERS.groups,
          key,
          value: encodeRecord({ ...rest, delta: mls.delta }),
        });
      }
    }
    for (const raw of this.#unknown.values()) yield encodeRaw(raw);
  }
}

function* decodeSizes(bytes: Bytes): Generator<{ table: number; key: string; size: number | undefined }> {
  for (const { table, key, value } of decodeRaw(bytes)) {
    yield { table, key, size: value && value.length + key.length + 8 };
  }
}

function withBase(table: TableName, row: unknown, base: Bytes | undefined): unknown {
  if (table !== "groups") return row;
  const { delta, ...rest } = row as { id: GroupId; delta: Bytes };
  if (!base || !(delta instanceof Uint8Array)) {
    throw new RangeError(`Cannot read group ${rest.id} without its base`);
  }
  return { ...rest, mls: { base, delta } };
}

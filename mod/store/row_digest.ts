/** Whether two stores hold the same: a digest of their rows that does not depend on the order of rows of one kind. */
import { createHash } from "node:crypto";
import { hex } from "../base/bytes.ts";
import { ROW_KINDS, type RowKind, type StoreRow } from "./store_rows.ts";

interface Sum {
  count: number;
  /** Of the rows' SHA-256, as numbers: two sets of rows with the same sum are the same set. */
  sum: bigint;
}

const MODULUS = 1n << 256n;

/** Counts and digests of the rows that were added. */
export class RowDigest {
  readonly #kinds = new Map<RowKind, Sum>(ROW_KINDS.map((kind) => [kind, { count: 0, sum: 0n }]));

  /** The digest of everything that a store gives. */
  static async of(rows: AsyncIterable<readonly StoreRow[]>): Promise<RowDigest> {
    const digest = new RowDigest();
    for await (const batch of rows) digest.add(batch);
    return digest;
  }

  add(rows: readonly StoreRow[]): void {
    for (const row of rows) {
      const kind = this.#kinds.get(row.kind)!;
      kind.count += 1;
      kind.sum = (kind.sum + BigInt(`0x${createHash("sha256").update(rowText(row)).digest("hex")}`)) %
        MODULUS;
    }
  }

  /** How many rows there are of each kind. */
  get counts(): Record<RowKind, number> {
    const entries = [...this.#kinds].map(([kind, { count }]) => [kind, count]);
    return Object.fromEntries(entries) as Record<RowKind, number>;
  }

  /** Kinds of which the other has other rows, each with both counts in words. */
  differences(other: RowDigest): string[] {
    return ROW_KINDS.flatMap((kind) => {
      const [one, two] = [this.#kinds.get(kind)!, other.#kinds.get(kind)!];
      return one.sum === two.sum && one.count === two.count ? [] : [`${kind} (${one.count}, ${two.count})`];
    });
  }
}

/** The row as text: always the same for the same content. */
export function rowText(row: StoreRow): string {
  return JSON.stringify(plain(row));
}

function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return `bytes ${hex(value)}`;
  if (Array.isArray(value)) {
    const items = value.map(plain);
    // Entries of a payload have no order of their own; statuses, which are texts, do.
    return items.some((item) => typeof item === "object")
      ? items.map((item) => JSON.stringify(item)).sort()
      : items;
  }
  if (typeof value !== "object" || value === null) return value;
  const fields = Object.entries(value).map(([name, field]) => [name, plain(field)] as const);
  return Object.fromEntries(fields.sort(([a], [b]) => a < b ? -1 : 1));
}

/**
 * A table of the store: rows in memory under a text key, and how a row is written. Rows are never changed in
 * place, only replaced. Whoever keeps an index over a table sets `onChange`, which is told of every row that comes,
 * goes or is replaced — by a verb, by its undoing, and once for each row after loading.
 */
import { type Value, ValueError } from "./value.ts";

/** How a field is written; `?` admits null. */
export type Column = "number" | "text" | "bytes" | "flag" | "number?" | "text?" | "bytes?";

type ColumnOf<Field> = null extends Field ? `${PlainColumnOf<NonNullable<Field>>}?` : PlainColumnOf<Field>;
type PlainColumnOf<Field> = Field extends number ? "number"
  : Field extends string ? "text"
  : Field extends boolean ? "flag"
  : Field extends Uint8Array ? "bytes"
  : never;

/** The fields of a row in the order in which they are written; append only, and what is appended admits null. */
export type Columns<Row> = { readonly [Name in keyof Row]-?: ColumnOf<Row[Name]> };

/** The part of a table that does not depend on its row type: what the journal and the snapshots handle. */
export interface AnyTable {
  readonly id: number;
  readonly size: number;
  has(key: string): boolean;
  /** The row's fields; null when there is no such row. */
  encode(key: string): Value[] | null;
  /** Puts a row while loading: indexes learn of it in {@link AnyTable.loaded}. Throws ValueError. */
  load(fields: Value): void;
  unload(key: string): void;
  /** Tells the indexes of every row. */
  loaded(): void;
  /** A live walk over the keys: sees rows that come while it is under way. */
  keys(): IterableIterator<string>;
  /** Puts back what {@link Table.put} or {@link Table.remove} replaced. */
  restore(key: string, row: unknown): void;
}

/** Rows of one kind. */
export class Table<Row extends object> implements AnyTable {
  readonly id: number;
  readonly #keyOf: (row: Row) => string;
  readonly #columns: readonly (readonly [keyof Row & string, Column])[];
  readonly #rows = new Map<string, Row>();
  /** Keeps indexes: called after the change with the row that was and the row that is. */
  onChange: (before: Row | undefined, after: Row | undefined) => void = () => {};

  constructor(id: number, options: { key: (row: Row) => string; columns: Columns<Row> }) {
    this.id = id;
    this.#keyOf = options.key;
    this.#columns = Object.entries(options.columns) as [keyof Row & string, Column][];
  }

  get size(): number {
    return this.#rows.size;
  }

  has(key: string): boolean {
    return this.#rows.has(key);
  }

  get(key: string): Row | undefined {
    return this.#rows.get(key);
  }

  /** All rows, oldest key first. */
  rows(): IterableIterator<Row> {
    return this.#rows.values();
  }

  keys(): IterableIterator<string> {
    return this.#rows.keys();
  }

  keyOf(row: Row): string {
    return this.#keyOf(row);
  }

  /** The row with the fields of this table and no others. */
  pick(row: Row): Row {
    return Object.fromEntries(this.#columns.map(([name]) => [name, row[name]])) as Row;
  }

  /** Throws TypeError for a row that could not be written: better now than when it takes a whole batch with it. */
  check(row: Row): void {
    for (const [name, column] of this.#columns) {
      const field = row[name] as Value;
      const whole = typeof field !== "number" || (Number.isSafeInteger(field) && field >= 0);
      if (!whole || !fits(field, column)) {
        throw new TypeError(`Cannot store ${name} of table ${this.id} as it is not ${column}: ${field}`);
      }
    }
  }

  /** Sets a row without any record of it: for {@link State} only. */
  replace(key: string, row: Row | undefined): Row | undefined {
    const before = this.#rows.get(key);
    if (row) this.#rows.set(key, row);
    else this.#rows.delete(key);
    this.onChange(before, row);
    return before;
  }

  restore(key: string, row: unknown): void {
    this.replace(key, row as Row | undefined);
  }

  encode(key: string): Value[] | null {
    const row = this.#rows.get(key);
    return row ? this.#columns.map(([name]) => row[name] as Value) : null;
  }

  load(fields: Value): void {
    const row = this.#decode(fields);
    this.#rows.set(this.#keyOf(row), row);
  }

  unload(key: string): void {
    this.#rows.delete(key);
  }

  loaded(): void {
    for (const row of this.#rows.values()) this.onChange(undefined, row);
  }

  #decode(fields: Value): Row {
    if (!Array.isArray(fields) || fields.length > this.#columns.length) {
      throw new ValueError(`Row of table ${this.id} has more than ${this.#columns.length} fields`);
    }
    const row: Record<string, Value> = {};
    this.#columns.forEach(([name, column], index) => {
      // Missing in rows of a version that did not have the column.
      const field = (index < fields.length ? fields[index] : null) as Value;
      if (!fits(field, column)) throw new ValueError(`Field ${name} of table ${this.id} is not ${column}`);
      row[name] = field;
    });
    return row as Row;
  }
}

function fits(field: Value, column: Column): boolean {
  if (field === null) return column.endsWith("?");
  if (field instanceof Uint8Array) return column.startsWith("bytes");
  if (typeof field === "number") return column.startsWith("number");
  if (typeof field === "string") return column.startsWith("text");
  return typeof field === "boolean" && column === "flag";
}

/** A number as 14 hex digits: keys made of ids and numbers stay hex, which is written compactly. */
export function numberKey(number: number): string {
  return number.toString(16).padStart(14, "0");
}

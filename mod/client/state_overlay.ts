/** One transaction while it runs: its changes over the tables, which it does not touch. */
import type { EntryId } from "../base/ids.ts";
import type { StateTransaction } from "./state.ts";
import type { Change, TableSet } from "./state_changes.ts";
import type { KeyOf, RowOf, SingleTable, TableName } from "./state_records.ts";

/** How many processed entries are remembered. */
export const SEEN_MAX = 10_000;

/** The changes of one transaction over the tables. */
export class Overlay implements StateTransaction {
  readonly #tables: TableSet;
  readonly #changes = new Map<TableName, Map<string, unknown>>();
  #sealed = false;

  constructor(tables: TableSet) {
    this.#tables = tables;
  }

  one<Table extends SingleTable>(table: Table): RowOf<Table> | undefined {
    return this.get(table, "" as KeyOf<Table>);
  }

  get<Table extends TableName>(table: Table, key: KeyOf<Table>): RowOf<Table> | undefined {
    const changed = this.#changes.get(table);
    const row = changed?.has(key) ? changed.get(key) : this.#tables.table(table).get(key);
    return row as RowOf<Table> | undefined;
  }

  all<Table extends TableName>(table: Table): RowOf<Table>[] {
    return [...this.#merged(table).values()] as RowOf<Table>[];
  }

  set<Table extends SingleTable>(table: Table, row: RowOf<Table>): void {
    this.#change(table, { key: "", row });
  }

  put<Table extends TableName>(table: Table, key: KeyOf<Table>, row: RowOf<Table>): void {
    this.#change(table, { key, row });
  }

  delete<Table extends TableName>(table: Table, key: KeyOf<Table>): void {
    this.#change(table, { key, row: undefined });
  }

  clear(table: TableName): void {
    for (const key of this.#merged(table).keys()) this.#change(table, { key, row: undefined });
  }

  markSeen(entryId: EntryId): boolean {
    if (this.get("seen", entryId)) return false;
    this.put("seen", entryId, true);
    const seen = this.#tables.table("seen");
    const changed = this.#changes.get("seen")!;
    let excess = seen.size - SEEN_MAX;
    for (const row of changed.values()) excess += row ? 1 : -1;
    // At most as many steps as this transaction has marked entries: the oldest are the first in the table.
    for (const oldest of seen.keys()) {
      if (excess <= 0) break;
      if (changed.has(oldest)) continue;
      this.#change("seen", { key: oldest, row: undefined });
      excess--;
    }
    return true;
  }

  /** The changes that make a difference; nothing can be changed afterwards. */
  seal(): Change[] {
    this.#sealed = true;
    const sealed: Change[] = [];
    for (const [table, rows] of this.#changes) {
      const before = this.#tables.table(table);
      for (const [key, row] of rows) if (row !== before.get(key)) sealed.push({ table, key, row });
    }
    return sealed;
  }

  #change(table: TableName, change: { key: string; row: unknown }): void {
    if (this.#sealed) throw new TypeError("Cannot change the state in a transaction that has ended");
    let rows = this.#changes.get(table);
    if (!rows) this.#changes.set(table, rows = new Map());
    rows.set(change.key, change.row);
  }

  #merged(table: TableName): Map<string, unknown> {
    const merged = new Map(this.#tables.table(table));
    for (const [key, row] of this.#changes.get(table) ?? []) {
      if (row === undefined) merged.delete(key);
      else merged.set(key, row);
    }
    return merged;
  }
}

/**
 * One SQLCipher connection and its prepared statements. The binding sends every number as a double and an empty
 * byte string as NULL: columns of STRICT tables turn the first back into integers, and statements that store
 * byte strings which may be empty say `ifnull(?, x'')`.
 */
import Database, { type Statement } from "@signalapp/sqlcipher";

/** What a column can hold or a parameter be. */
export type Value = string | number | null | Uint8Array;
type Params = readonly Value[];
type NativeParams = (string | number | null | Uint8Array<ArrayBuffer>)[];

/** A compiled statement; rows are objects by column name. */
export class Prepared<Row> {
  readonly #statement: Statement;

  constructor(statement: Statement) {
    this.#statement = statement;
  }

  /** Runs it; returns how many rows it changed. */
  run(...params: Params): number {
    return this.#statement.run(params as NativeParams).changes;
  }

  /** Runs an INSERT; returns the new row's integer key. */
  insert(...params: Params): number {
    return this.#statement.run(params as NativeParams).lastInsertRowid;
  }

  /** First row, if any. */
  get(...params: Params): Row | undefined {
    return this.#statement.get(params as NativeParams) as Row | undefined;
  }

  /** All rows. */
  all(...params: Params): Row[] {
    return this.#statement.all(params as NativeParams) as Row[];
  }
}

/** An open database. */
export class Connection {
  readonly #database: Database;
  readonly #sql: string[] = [];
  #begin: Statement | undefined;
  #commit: Statement | undefined;

  constructor(readonly path: string) {
    this.#database = new Database(path);
  }

  /** Compiles a statement that lives as long as the connection. */
  prepare<Row = never>(sql: string): Prepared<Row> {
    this.#sql.push(sql);
    return new Prepared<Row>(this.#database.prepare(sql, { persistent: true }));
  }

  /** Text of everything that was prepared, for the check that no query scans. */
  get preparedSql(): readonly string[] {
    return this.#sql;
  }

  /** Runs SQL without parameters. */
  exec(sql: string): void {
    this.#database.exec(sql);
  }

  /** First column of the first row of a pragma or query. */
  value(sql: string): Value | undefined {
    const statement = this.#database.prepare(sql, { pluck: true });
    try {
      return statement.get() as Value | undefined;
    } finally {
      statement.close();
    }
  }

  /** All rows of a statement that is run once in a while. */
  rows<Row>(sql: string, params: Params = []): Row[] {
    const statement = this.#database.prepare(sql);
    try {
      return statement.all(params as NativeParams) as Row[];
    } finally {
      statement.close();
    }
  }

  /** Starts a transaction that may write. */
  begin(): void {
    this.#begin ??= this.#database.prepare("BEGIN IMMEDIATE", { persistent: true });
    this.#begin.run();
  }

  /** Makes the transaction durable. */
  commit(): void {
    this.#commit ??= this.#database.prepare("COMMIT", { persistent: true });
    this.#commit.run();
  }

  /** Undoes the transaction, if SQLite has not done so already (as it may on a full disk). */
  rollback(): void {
    try {
      this.#database.exec("ROLLBACK");
    } catch (error) {
      if (!/no transaction is active/.test(String(error))) throw error;
    }
  }

  /**
   * Calls `listener` after each commit with the number of pages in the WAL, instead of making checkpoints. `PRAGMA
   * wal_autocheckpoint` undoes it.
   */
  onCommit(listener: (walPages: number) => void): void {
    this.#database.setWalHook((_name, pages) => listener(pages));
  }

  /** Closes the file. */
  close(): void {
    this.#database.close();
  }
}

/** Was there no space on the disk, for the database, its log or the index of that? */
export function isSqliteFull(error: unknown): boolean {
  return ["SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"].includes(sqliteCode(error) ?? "");
}

/** SQLite's name of an error (SQLITE_FULL and the like); undefined when it is not SQLite's. */
export function sqliteCode(error: unknown): string | undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" && code.startsWith("SQLITE_") ? code : undefined;
}

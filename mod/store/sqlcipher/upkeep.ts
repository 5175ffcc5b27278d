/**
 * Inside the worker that owns the database: what snapshots and a change of key need of it. A snapshot goes on beside
 * the batches; while a key is changed a second worker reads the file, and at the end the new file takes its place.
 */
import { QpqError } from "../../base/errors.ts";
import { swapBack, swapIn } from "../swap.ts";
import type { StoreCounts } from "../store.ts";
import type { BatchRunner } from "./batch.ts";
import { CHECKPOINT_PAGES } from "./connect.ts";
import { OnlineCopy } from "./online_copy.ts";
import { DATABASE_NAME, reopenDatabase } from "./open_database.ts";

/**
 * While the file is copied checkpoints are smaller, and so are the waits for them, which are longer by the pages that
 * have to be saved.
 */
const CHECKPOINT_PAGES_COPYING = CHECKPOINT_PAGES / 4;

const LOST = "The store was opened again in the middle after an error: try again";

/** Where the database is. */
export interface DatabasePlace {
  readonly dataDir: string;
  readonly path: string;
  readonly key: string;
}

/** Upkeep of one open database. */
export class Upkeep {
  readonly #runner: BatchRunner;
  readonly #dataDir: string;
  readonly #path: string;
  #key: string;
  /**
   * The main file, for snapshots. Closing any handle of a file takes away the process' POSIX locks on it, SQLite's
   * too: so it is kept until the connection is closed as well.
   */
  #source: Deno.FsFile | undefined;
  #copy: OnlineCopy | undefined;
  /** Pages in the WAL, while a copy is under way. */
  #walPages = 0;

  constructor(runner: BatchRunner, { dataDir, path, key }: DatabasePlace) {
    this.#runner = runner;
    this.#dataDir = dataDir;
    this.#path = path;
    this.#key = key;
    runner.onLost = () => this.abort(LOST);
  }

  /** The key that opens the database. */
  get key(): string {
    return this.#key;
  }

  /** Copies the store as it is now to `target`. */
  async copyTo(target: string, onProgress: (share: number) => void): Promise<StoreCounts> {
    this.#runner.settle();
    const counts = this.#runner.counts();
    const { connection } = this.#runner;
    this.#checkpoint();
    connection.onCommit((walPages) => this.#walPages = walPages);
    try {
      this.#source ??= Deno.openSync(this.#path);
      this.#copy = new OnlineCopy(this.#source, target);
      await this.#copy.run(onProgress);
    } finally {
      this.#copy = undefined;
      // Another connection, opened after an error, has the usual setting already.
      if (this.#runner.connection === connection) {
        connection.exec(`PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`);
      }
    }
    return counts;
  }

  /** Ends a copy under way; its promise rejects. */
  abort(reason: string): void {
    this.#copy?.fail(new QpqError("storeUnavailable", reason));
  }

  /** To be called after each batch: makes the checkpoint when it is due and a copy is under way. */
  afterBatch(): void {
    if (!this.#copy || this.#walPages === 0) return;
    this.#copy.noteBatch();
    if (this.#walPages < CHECKPOINT_PAGES_COPYING) return;
    this.#copy.beforeCheckpoint(`${this.#path}-wal`, this.#walPages);
    try {
      this.#checkpoint();
    } catch (error) {
      this.#copy.fail(error);
    }
  }

  /** Moves the whole WAL into the main file. The WAL keeps its size: writing over it is cheaper than growing it. */
  #checkpoint(): void {
    const sql = "PRAGMA wal_checkpoint(PASSIVE)";
    const [result] = this.#runner.connection.rows<{ busy: number; log: number; checkpointed: number }>(sql);
    if (result?.busy !== 0 || result.log !== result.checkpointed) {
      throw new QpqError("storeUnavailable", "The database is being read by another program");
    }
    this.#walPages = 0;
  }

  /** Lets a second connection read the file, until {@link unshare} or {@link swap}. */
  share(): void {
    // Reads would write it otherwise, in the middle of the other one's reading.
    this.#runner.settle();
    this.#reopen(this.#key, "NORMAL");
  }

  /** The file is this connection's alone again. */
  unshare(): void {
    this.#reopen(this.#key, "EXCLUSIVE");
  }

  #reopen(key: string, locking: "NORMAL" | "EXCLUSIVE"): void {
    this.close();
    // After an error later on it is opened as ever.
    const open = (locking: "NORMAL" | "EXCLUSIVE") => reopenDatabase({ path: this.#path, key, locking });
    this.#runner.use(open(locking), () => open("EXCLUSIVE"));
  }

  /** Puts the completed draft in the place of the file; returns where that is now. No batch may run meanwhile. */
  async swap(key: string): Promise<string> {
    this.close();
    let old: string | undefined;
    try {
      // A WAL would be taken for the new file's.
      if (walBytes(this.#path) > 0) throw new QpqError("storeUnavailable", `${this.#path}-wal is in use`);
      old = await swapIn(this.#dataDir, DATABASE_NAME);
      this.#reopen(key, "EXCLUSIVE");
      this.#key = key;
      return old;
    } catch (error) {
      if (old) await swapBack(this.#dataDir, DATABASE_NAME, old);
      this.unshare();
      throw error;
    }
  }

  /** Moves everything into the main file and closes it. */
  close(): void {
    try {
      this.#runner.close();
    } finally {
      this.#source?.close();
      this.#source = undefined;
    }
  }
}

function walBytes(path: string): number {
  try {
    return Deno.statSync(`${path}-wal`).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

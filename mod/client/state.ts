/**
 * A client's state folder: everything that must survive, encrypted, held by one process at a time.
 *
 *   DIR/key     the state key (state_key.ts)
 *   DIR/state   the journal (state_journal.ts)
 *   DIR/lock    locked while a process has the folder open; holds its pid, for the message only
 *
 * All of it is in memory; every transaction is one durable append, whose cost does not grow with the rest. A saved
 * MLS group must never be put back to an older copy: keys would be used twice. So do not restore single files.
 *
 * What is replaced or deleted, message keys too, stays in the journal, encrypted, until it is next rewritten.
 */
import { join } from "node:path";
import type { Bytes } from "../base/bytes.ts";
import { exists } from "../base/files.ts";
import type { EntryId } from "../base/ids.ts";
import { type Change, TableSet } from "./state_changes.ts";
import { StateError } from "./state_error.ts";
import { StateJournal } from "./state_journal.ts";
import { createStateKey, type Passphrase, readStateKey, writeStateKey } from "./state_key.ts";
import { lockStateFolder } from "./state_lock.ts";
import { Overlay } from "./state_overlay.ts";
import type { KeyOf, RowOf, SingleTable, TableName } from "./state_records.ts";

/** The journal is rewritten when it is larger than this and mostly dead; when it is opened, sooner. */
const REWRITE_BYTES_MIN = 1 << 20;
const REWRITE_RATIO = 4;
const OPEN_REWRITE_BYTES_MIN = 64 << 10;
const OPEN_REWRITE_RATIO = 2;
const SNAPSHOT_FRAME_BYTES = 1 << 20;

/** Options of {@link ClientState.open}. */
export interface OpenStateOptions {
  readonly folder: string;
  /** For a new state: wraps its key. For an existing one: asked only if its key is wrapped. */
  readonly passphrase?: Passphrase;
}

/** Reading tables. Rows are values: never change one, put another. */
export interface StateReader {
  /** The row of a table of one. */
  one<Table extends SingleTable>(table: Table): RowOf<Table> | undefined;
  get<Table extends TableName>(table: Table, key: KeyOf<Table>): RowOf<Table> | undefined;
  /** All rows, in the order they were first put. */
  all<Table extends TableName>(table: Table): RowOf<Table>[];
}

/** Changes that are saved together or not at all; reading sees them already. */
export interface StateTransaction extends StateReader {
  /** Puts the row of a table of one. */
  set<Table extends SingleTable>(table: Table, row: RowOf<Table>): void;
  put<Table extends TableName>(table: Table, key: KeyOf<Table>, row: RowOf<Table>): void;
  delete<Table extends TableName>(table: Table, key: KeyOf<Table>): void;
  /** Deletes all rows of a table. */
  clear(table: TableName): void;
  /** Remembers an entry, forgetting the oldest of more than 10,000. False when it was seen before. */
  markSeen(entryId: EntryId): boolean;
}

/**
 * The state of one client.
 *
 * ```ts
 * await using state = await ClientState.open({ folder: "state" });
 * await state.transaction((tx) => {
 *   tx.put("groups", id, { ...group, mls: encodeGroup(next, group.mls) });
 *   tx.put("outbox", messageId, { messageId, request, createdMs, groupId: id });
 * });
 * ```
 */
export class ClientState implements StateReader, AsyncDisposable {
  readonly folder: string;
  readonly #lock: Deno.FsFile;
  readonly #key: Bytes;
  readonly #journal: StateJournal;
  readonly #tables: TableSet;
  #queue: Promise<unknown> = Promise.resolve();
  #closed = false;
  #rewriteBytesMin = 0;

  private constructor(
    folder: string,
    parts: { lock: Deno.FsFile; key: Bytes; journal: StateJournal; tables: TableSet },
  ) {
    this.folder = folder;
    this.#lock = parts.lock;
    this.#key = parts.key;
    this.#journal = parts.journal;
    this.#tables = parts.tables;
  }

  /** Opens the state in a folder, or makes a new one. Throws StateError, with the file and the remedy. */
  static async open(options: OpenStateOptions): Promise<ClientState> {
    const { folder } = options;
    const lock = await lockStateFolder(folder);
    try {
      const key = await openKey(folder, options.passphrase);
      const tables = new TableSet();
      const journal = await openJournal(folder, { key, tables });
      const state = new ClientState(folder, { lock, key, journal, tables });
      await state.#rewriteAbove(OPEN_REWRITE_BYTES_MIN, OPEN_REWRITE_RATIO);
      return state;
    } catch (error) {
      lock.close();
      throw error;
    }
  }

  one<Table extends SingleTable>(table: Table): RowOf<Table> | undefined {
    return this.#tables.table(table).get("") as RowOf<Table> | undefined;
  }

  get<Table extends TableName>(table: Table, key: KeyOf<Table>): RowOf<Table> | undefined {
    return this.#tables.table(table).get(key) as RowOf<Table> | undefined;
  }

  all<Table extends TableName>(table: Table): RowOf<Table>[] {
    return [...this.#tables.table(table).values()] as RowOf<Table>[];
  }

  /** Was this entry processed? */
  hasSeen(entryId: EntryId): boolean {
    return this.#tables.table("seen").has(entryId);
  }

  /**
   * Runs `work` and saves what it changed, durably, before this resolves. When `work` throws, nothing changes.
   * Transactions run one after another: do not start one inside another.
   */
  transaction<T>(work: (tx: StateTransaction) => T | Promise<T>): Promise<T> {
    const done = this.#queue.then(async () => {
      this.#checkOpen();
      const overlay = new Overlay(this.#tables);
      const result = await work(overlay);
      await this.#save(overlay.seal());
      return result;
    });
    this.#queue = done.catch(() => {}); // the caller gets the error; the next transaction is not concerned
    return done;
  }

  /** Wraps the state key under another passphrase, or under none. */
  setPassphrase(passphrase: Passphrase | undefined): Promise<void> {
    const done = this.#queue.then(async () => {
      this.#checkOpen();
      await writeStateKey(join(this.folder, "key"), this.#key, passphrase);
    });
    this.#queue = done.catch(() => {});
    return done;
  }

  #checkOpen(): void {
    if (this.#closed) {
      throw new StateError("closed", `Cannot use the state in ${this.folder} after it was closed`);
    }
  }

  async #save(changes: readonly Change[]): Promise<void> {
    if (changes.length === 0) return;
    const bytes = this.#tables.encode(changes);
    await this.#journal.append(bytes);
    this.#tables.apply(changes, bytes);
    await this.#rewriteAbove(REWRITE_BYTES_MIN, REWRITE_RATIO);
  }

  /** Drops what is dead. A failure fails nothing, as all is saved: the next try waits until there is more. */
  async #rewriteAbove(bytesMin: number, ratio: number): Promise<void> {
    const limit = Math.max(bytesMin, ratio * this.#tables.liveBytes, this.#rewriteBytesMin);
    if (this.#journal.bytes <= limit) return;
    try {
      await this.#journal.rewrite(this.#tables.snapshot(SNAPSHOT_FRAME_BYTES));
      this.#rewriteBytesMin = 0;
    } catch (error) {
      if (!(error instanceof StateError)) throw error;
      this.#rewriteBytesMin = 2 * this.#journal.bytes;
    }
  }

  /** Waits for transactions that were started, then lets go of the folder. */
  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#queue;
    if (this.#closed) return;
    this.#closed = true;
    this.#journal.close();
    this.#lock.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

async function openKey(folder: string, passphrase: Passphrase | undefined): Promise<Bytes> {
  const path = join(folder, "key");
  const key = await readStateKey(path, passphrase);
  if (key) return key;
  const journal = join(folder, "state");
  if (await exists(journal)) {
    throw new StateError(
      "keyMissing",
      `Cannot read ${journal} without ${path}: restore it, or delete the folder`,
    );
  }
  return await createStateKey(path, passphrase);
}

async function openJournal(
  folder: string,
  options: { key: Bytes; tables: TableSet },
): Promise<StateJournal> {
  const path = join(folder, "state");
  const { key, tables } = options;
  if (!await exists(path)) return await StateJournal.create(path, key);
  const unfinished = `${path}.new`; // a rewrite that a crash cut off
  if (await exists(unfinished)) await Deno.remove(unfinished);
  const bases = new Map<string, Bytes>();
  const replay = (frame: Bytes) => {
    try {
      tables.replay(frame, bases);
    } catch (cause) {
      throw new StateError("damaged", `Cannot read ${path} as a record in it is damaged`, { cause });
    }
  };
  return await StateJournal.open(path, { key, replay });
}

/**
 * Runs a batch of verbs in one transaction (group commit). When one of them throws, the whole batch is undone and
 * its verbs run again one by one, each in a transaction of its own, so that the bad one fails alone.
 */
import { messageOf } from "../../base/errors.ts";
import { type Connection, isSqliteFull, sqliteCode } from "./connection.ts";
import type { GenerationSize } from "./deferred.ts";
import { readMessage } from "./message_codec.ts";
import type { Touched } from "./touched_queues.ts";
import { READ_VERBS, SETTLED_READ_VERBS } from "./verb_names.ts";
import { prepareVerbs, type VerbSet } from "./verbs.ts";
import type { StoreCounts } from "../store.ts";
import type { Call, Failure, Outcome } from "./wire.ts";

const readVerbs: ReadonlySet<string> = new Set(READ_VERBS);
const settledReadVerbs: ReadonlySet<string> = new Set(SETTLED_READ_VERBS);

/** Errors after which SQLCipher refuses everything on the connection, or may do so. */
const CONNECTION_LOST = /^SQLITE_(NOTADB|CORRUPT|IOERR|CANTOPEN|READONLY|PROTOCOL)/;

/** Errors that tell of damage in the file. */
const DAMAGED = /^SQLITE_(NOTADB|CORRUPT)/;

/** What came of a batch. */
export interface BatchResult {
  readonly outcomes: readonly Outcome[];
  /** What got entries: one for each transaction that it took. */
  readonly enqueued: readonly Touched[];
  /** Domains whose outboxes got messages. */
  readonly relaying: readonly string[];
}

/** What transactions have put where. */
interface Told {
  readonly enqueued: Touched[];
  readonly relaying: string[];
}

/** The worker's only user of the database. */
export class BatchRunner {
  #reopen: () => Connection;
  #connection: Connection | undefined;
  readonly #path: string;
  readonly #size: GenerationSize | undefined;
  #set: VerbSet;
  /** Called when the connection was given up after an error. */
  onLost: () => void = () => {};

  /** `size`: see prepareVerbs. */
  constructor(connection: Connection, reopen: () => Connection, size?: GenerationSize) {
    this.#reopen = reopen;
    this.#connection = connection;
    this.#path = connection.path;
    this.#size = size;
    this.#set = prepareVerbs(connection, size);
  }

  /** Who the store is. */
  identity(): { incarnation: Uint8Array; realmId: string } {
    return this.#set.server.identity();
  }

  /** Numbers for gauges. */
  counts(): StoreCounts {
    this.#connected();
    return this.#set.verbs.counts();
  }

  /** The connection, opened again if it was lost. Between two batches no transaction is open. */
  get connection(): Connection {
    return this.#connected();
  }

  /** Goes on with another connection after {@link close}; `reopen` opens it again after an error. */
  use(connection: Connection, reopen: () => Connection): void {
    this.#reopen = reopen;
    this.#connection = connection;
    this.#set = prepareVerbs(connection, this.#size);
  }

  /** Runs all calls; what they wrote is on disk when this returns. */
  run(calls: readonly Call[], messages: ArrayBuffer): BatchResult {
    if (calls.every((call) => readVerbs.has(call.verb))) return this.#runOneByOne(calls, messages);
    const told: Told = { enqueued: [], relaying: [] };
    try {
      const outcomes = this.#transaction(told, () =>
        calls.map((call) => {
          if (settledReadVerbs.has(call.verb)) this.#set.ledger.settle();
          return this.#call(call, messages);
        }));
      return { outcomes, ...told };
    } catch (error) {
      if (calls.length > 1) return this.#runOneByOne(calls, messages);
      return { outcomes: [{ failure: failureOf(error, this.#path) }], enqueued: [], relaying: [] };
    }
  }

  #runOneByOne(calls: readonly Call[], messages: ArrayBuffer): BatchResult {
    const told: Told = { enqueued: [], relaying: [] };
    const outcomes = calls.map((call): Outcome => {
      try {
        if (readVerbs.has(call.verb)) return this.#read(call, messages);
        return this.#transaction(told, () => this.#call(call, messages));
      } catch (error) {
        return { failure: failureOf(error, this.#path) };
      }
    });
    return { outcomes, ...told };
  }

  #transaction<Result>(told: Told, run: () => Result): Result {
    const connection = this.#connected();
    const { ledger, sweepWhenDue } = this.#set;
    try {
      connection.begin();
      const result = run();
      sweepWhenDue();
      ledger.flush();
      connection.commit();
      ledger.committed();
      const touched = ledger.touched.take();
      if (touched.devices.length > 0) told.enqueued.push(touched);
      told.relaying.push(...ledger.peers.takeRelaying());
      return result;
    } catch (error) {
      ledger.rolledBack();
      this.#recover(connection, error);
      throw error;
    }
  }

  /** Has everything that is written later written now. */
  settle(): void {
    if (this.#set.ledger.settled) return;
    this.#transaction({ enqueued: [], relaying: [] }, () => this.#set.ledger.settle());
  }

  #read(call: Call, messages: ArrayBuffer): Outcome {
    if (settledReadVerbs.has(call.verb)) this.#settleIfRoom();
    const connection = this.#connected();
    try {
      const result = this.#call(call, messages);
      this.#set.ledger.trim();
      return result;
    } catch (error) {
      this.#recover(connection, error);
      throw error;
    }
  }

  /** On a full disk the last changes of some numbers are missing in lists. */
  #settleIfRoom(): void {
    try {
      this.settle();
    } catch (error) {
      if (!isSqliteFull(error)) throw error;
    }
  }

  #call({ verb, args }: Call, messages: ArrayBuffer): Outcome {
    const { verbs } = this.#set;
    if (verb !== "enqueue") {
      return { value: (verbs[verb] as (...args: readonly unknown[]) => unknown)(...args as unknown[]) };
    }
    const result = verbs.enqueue(readMessage(messages, args as number));
    const plain = result.status === "accepted" && !result.replayed &&
      result.recipients.every((status) => status === "ok") &&
      result.remote.every((status) => status === "relaying");
    return plain ? {} : { value: result };
  }

  #recover(connection: Connection, error: unknown): void {
    const lost = CONNECTION_LOST.test(sqliteCode(error) ?? "");
    try {
      connection.rollback();
      if (!lost) return;
    } catch {
      // A connection that cannot roll back is of no more use: closing it undoes the transaction.
    }
    this.#connection = undefined;
    connection.close();
    this.onLost();
  }

  #connected(): Connection {
    if (!this.#connection) {
      const connection = this.#reopen();
      this.#set = prepareVerbs(connection, this.#size);
      this.#connection = connection;
    }
    return this.#connection;
  }

  /** Moves everything into the main file and closes it. */
  close(): void {
    if (!this.#connection) return;
    try {
      this.settle();
    } catch {
      // It is in the log, and read from there at the next start.
    }
    const connection = this.#connection;
    this.#connection = undefined;
    if (!connection) return;
    try {
      connection.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    } finally {
      connection.close();
    }
  }
}

/** What a verb's error is to the caller. */
function failureOf(error: unknown, path: string): Failure {
  const code = sqliteCode(error) ?? "";
  const full = isSqliteFull(error);
  let why = full ? ` as the disk of ${path} is full` : "";
  if (DAMAGED.test(code)) why = ` as ${path} is damaged: restore the latest backup`;
  return {
    code: full ? "storeFull" : "storeUnavailable",
    message: `Cannot run the store's verb${why}: ${messageOf(error)}`,
  };
}

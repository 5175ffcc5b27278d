/**
 * Rows that are written later. A message to one of many queues would change a page of its own in each of the tables
 * `entries`, `queues`, `senders` and `daily` (97 us with 100,000 queues, 19 with one). So a transaction appends what
 * these rows have become to `deferred_rows`, one row for all of it, and the rows themselves are written when there are
 * thousands, in the order of their keys, many to a page: a few in each transaction, so that none takes long. An
 * entry that is acknowledged before is never written. Entries need no log: each payload names its own.
 *
 * What the tables do not hold yet is in memory, as of the last commit: an old generation, which is being written,
 * and a young one, which gathers. When the old one is written, its part of the log is deleted. Opening the database
 * reads the log into memory again; it is never longer than two generations.
 */
import type { Connection } from "./connection.ts";
import { readLog, recordsOf, writtenPayload } from "./deferred_log.ts";
import { DeferredWriter } from "./deferred_writer.ts";
import {
  type Changes,
  type DailyNumbers,
  type DeferredEntry,
  dropThrough,
  Generation,
  numbersOf,
  type QueueNumbers,
  type ShareNumbers,
} from "./deferred_generation.ts";

/** What makes a generation. */
export interface GenerationSize {
  readonly rows: number;
  /** Of its part of the log. */
  readonly bytes: number;
}

/** More rows would meet more neighbours, and take longer to write when SQL has to see them. */
const GENERATION: GenerationSize = { rows: 65_536, bytes: 8 << 20 };
/** A transaction writes so many rows of the old generation for each that it adds to the young one, */
const WRITTEN_PER_ADDED = 2;
/** and so many in any case. */
const WRITTEN_MIN = 16;

const NO_ENTRIES: readonly DeferredEntry[] = [];

/** The rows that wait, on one connection. */
export class Deferred {
  readonly #write: DeferredWriter;
  #old: Generation | undefined;
  #young = new Generation();
  /** Devices of the old generation that are not written yet, the next one last. */
  #order: number[] = [];
  /** Devices whose rows this transaction has written. */
  #written: number[] = [];
  /** This transaction has written the rest of the old generation. */
  #oldDone = false;
  /** What was there before this transaction wrote everything. */
  #before:
    | { old: Generation | undefined; young: Generation; order: number[]; writtenPayload: number }
    | undefined;
  /** Key of the last row of the log, as of the last commit and with this transaction. */
  #lastLogRow = 0;
  #appendedLogRow = 0;

  /** Entries of payloads up to here are not among those that wait. */
  #writtenPayload = 0;
  readonly #size: GenerationSize;

  /** Reads what the log holds. */
  constructor(connection: Connection, size: GenerationSize = GENERATION) {
    this.#size = size;
    this.#write = new DeferredWriter(connection);
    this.#writtenPayload = writtenPayload(connection);
    const old = readLog(connection);
    this.#lastLogRow = this.#appendedLogRow = old?.lastLogRow ?? 0;
    this.#setOld(old);
  }

  #setOld(old: Generation | undefined): void {
    this.#old = old;
    this.#order = old ? [...old.devices.keys()].sort((a, b) => b - a) : [];
  }

  /** The key of the next payload in an empty transaction: higher than any that was written about. */
  static nextPayload(connection: Connection): number {
    const last = connection.value(
      `SELECT max(written_payload, ifnull((SELECT max(id) FROM payloads), 0)) FROM store WHERE id = 1`,
    );
    return Number(last) + 1;
  }

  /** Has the payload entries that wait? */
  holds(payload: number): boolean {
    return payload > this.#writtenPayload;
  }

  /** Nothing waits. */
  get empty(): boolean {
    return !this.#old && this.#young.rows === 0;
  }

  /** The queue's row, when it waits. */
  numbers(device: number): QueueNumbers | undefined {
    return this.#young.devices.get(device)?.numbers ?? this.#old?.devices.get(device)?.numbers;
  }

  /** What the account has in the queue, when that waits. */
  share(device: number, account: number): ShareNumbers | undefined {
    return this.#young.devices.get(device)?.shares?.get(account) ??
      this.#old?.devices.get(device)?.shares?.get(account);
  }

  /** The sums of the account, when they wait. */
  daily(account: number): DailyNumbers | undefined {
    return this.#young.daily.get(account) ?? this.#old?.daily.get(account);
  }

  /** Do sums of a day before `day` wait? */
  hasDailyBefore(day: number): boolean {
    const generations = this.#old ? [this.#old, this.#young] : [this.#young];
    return generations.some(({ daily }) => daily.values().some((sums) => sums.day < day));
  }

  /**
   * The queue's entries that wait, in their order and behind all that the tables hold; those that this transaction
   * has acknowledged are still among them.
   */
  entries(device: number): readonly DeferredEntry[] {
    const old = this.#old?.devices.get(device)?.entries ?? NO_ENTRIES;
    const young = this.#young.devices.get(device)?.entries ?? NO_ENTRIES;
    if (old.length === 0) return young;
    return young.length === 0 ? old : old.concat(young);
  }

  /** Puts what the transaction has changed off until later; to be called once, right before COMMIT. */
  defer(changes: Changes): void {
    const added = changes.queues.reduce((sum, { added }) => sum + 1 + added.length, 0) +
      changes.shares.length + changes.daily.length;
    if (this.#old) this.#writeSome(WRITTEN_PER_ADDED * added + WRITTEN_MIN, changes);
    if (added === 0) return;
    const records = recordsOf(changes);
    this.#appendedLogRow = this.#write.append(records);
    this.#young.logBytes += records.length;
  }

  /** Writes everything that waits, and all changes up to now, so that SQL sees them. */
  writeAll(changes: Changes): void {
    const devices = new Set<number>();
    for (const generation of [this.#old, this.#young]) {
      for (const device of generation?.devices.keys() ?? []) devices.add(device);
    }
    for (const device of [...devices].sort((a, b) => a - b)) {
      const numbers = this.numbers(device);
      const queue = changes.find(device);
      if (numbers && !queue?.dirty) this.#write.queue(device, numbers);
      const shares = new Map([
        ...this.#old?.devices.get(device)?.shares ?? [],
        ...this.#young.devices.get(device)?.shares ?? [],
      ]);
      for (const [account, share] of shares) this.#write.share(device, account, share);
      this.#write.entries(device, this.entries(device), queue?.ackedThrough);
    }
    for (const [account, sums] of [...this.#old?.daily ?? [], ...this.#young.daily]) {
      this.#write.daily(account, sums);
    }
    for (const queue of changes.queues) {
      this.#write.queue(queue.device, queue);
      this.#write.entries(queue.device, queue.added, queue.ackedThrough);
    }
    for (const { queue, account, share } of changes.shares) this.#write.share(queue.device, account, share);
    for (const sums of changes.daily) this.#write.daily(sums.account, sums);
    this.#before ??= {
      old: this.#old,
      young: this.#young,
      order: this.#order,
      writtenPayload: this.#writtenPayload,
    };
    this.#write.forgetLog(this.#lastLogRow, changes.lastPayload);
    this.#writtenPayload = changes.lastPayload;
    this.#setOld(undefined);
    this.#young = new Generation();
  }

  /** Writes about so many rows of the old generation, in their order. */
  #writeSome(count: number, { find }: Changes): void {
    const old = this.#old!;
    let left = count;
    while (left > 0 && this.#written.length < this.#order.length) {
      const device = this.#order[this.#order.length - 1 - this.#written.length]!;
      this.#written.push(device);
      const { numbers, shares, entries } = old.devices.get(device)!;
      const newer = this.#young.devices.get(device);
      const queue = find(device);
      // What has changed since is in the log behind this generation's part.
      if (numbers && !newer?.numbers && !queue?.dirty) this.#write.queue(device, numbers);
      for (const [account, share] of shares ?? []) {
        if (!newer?.shares?.has(account)) this.#write.share(device, account, share);
      }
      this.#write.entries(device, entries, queue?.ackedThrough);
      left -= 1 + (shares?.size ?? 0) + entries.length;
    }
    if (this.#written.length < this.#order.length) return;
    for (const [account, sums] of old.daily) {
      if (!this.#young.daily.has(account)) this.#write.daily(account, sums);
    }
    this.#write.forgetLog(old.lastLogRow, old.lastPayload);
    this.#oldDone = true;
  }

  /** The transaction, with these changes since {@link writeAll}, is committed. */
  committed({ queues, shares, daily, lastPayload }: Changes): void {
    this.#before = undefined;
    for (const device of this.#written) this.#old!.devices.delete(device);
    this.#order.length -= this.#written.length;
    this.#written.length = 0;
    if (this.#oldDone) {
      this.#writtenPayload = this.#old!.lastPayload;
      this.#old = undefined;
    }
    this.#oldDone = false;
    const young = this.#young;
    for (const queue of queues) {
      young.setNumbers(queue.device, numbersOf(queue));
      young.waiting(queue.device).entries.push(...queue.added);
      young.rows += queue.added.length;
      for (const generation of this.#old ? [this.#old, young] : [young]) {
        dropThrough(generation.devices.get(queue.device), queue.ackedThrough);
      }
    }
    for (const { queue, account, share } of shares) young.setShare(queue.device, account, share);
    for (const sums of daily) young.setDaily(sums.account, sums);
    young.lastLogRow = this.#lastLogRow = this.#appendedLogRow;
    young.lastPayload = lastPayload;
    if (this.#old || (young.rows < this.#size.rows && young.logBytes < this.#size.bytes)) return;
    this.#setOld(young);
    this.#young = new Generation();
  }

  /** The transaction is undone. */
  rolledBack(): void {
    this.#appendedLogRow = this.#lastLogRow;
    this.#written.length = 0;
    this.#oldDone = false;
    if (!this.#before) return;
    this.#old = this.#before.old;
    this.#young = this.#before.young;
    this.#order = this.#before.order;
    this.#writtenPayload = this.#before.writtenPayload;
    this.#before = undefined;
  }
}

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
import type { Connection, Prepared } from "./connection.ts";

/** A queue's row, but for its key. */
export interface QueueNumbers {
  nextSeq: number;
  ackedThrough: number;
  droppedThrough: number;
  droppedCount: number;
  depth: number;
  bytes: number;
  sentNext: number;
}

/** What an account has in a queue. */
export interface ShareNumbers {
  depth: number;
  bytes: number;
}

/** What an account has sent on its latest day. */
export interface DailyNumbers {
  day: number;
  bytes: number;
  guards: number;
}

/** An entry's row, but for its device. */
export interface DeferredEntry {
  readonly seq: number;
  readonly payload: number;
  readonly size: number;
  readonly expiresAt: number;
  readonly sender: number;
  readonly shared: number;
}

/** Rows of one queue that were changed in the present transaction. */
export interface ChangedQueue extends QueueNumbers {
  readonly device: number;
  /** Entries that it got, whether or not it has them still. */
  readonly added: DeferredEntry[];
}

/** Everything that the present transaction has changed so far. */
export interface Changes {
  readonly queues: readonly ChangedQueue[];
  readonly shares: readonly { queue: { device: number }; account: number; share: ShareNumbers }[];
  readonly daily: readonly (DailyNumbers & { account: number })[];
  /** A queue of these, or one that was looked at; undefined: it is as it was. */
  readonly find: (device: number) => { ackedThrough: number; dirty: boolean } | undefined;
  /** The key of the last payload. */
  readonly lastPayload: number;
}

/** What waits for one device. */
interface Waiting {
  numbers: QueueNumbers | undefined;
  /** By account; one that nothing is put into takes 200 bytes. */
  shares: Map<number, ShareNumbers> | undefined;
  entries: DeferredEntry[];
}

/** Rows of the log up to its end, and what they say. */
class Generation {
  readonly devices = new Map<number, Waiting>();
  readonly daily = new Map<number, DailyNumbers>();
  rows = 0;
  logBytes = 0;
  lastLogRow = 0;
  lastPayload = 0;

  waiting(device: number): Waiting {
    let waiting = this.devices.get(device);
    if (!waiting) this.devices.set(device, waiting = { numbers: undefined, shares: undefined, entries: [] });
    return waiting;
  }

  setNumbers(device: number, numbers: QueueNumbers): void {
    const waiting = this.waiting(device);
    if (!waiting.numbers) this.rows += 1;
    waiting.numbers = numbers;
  }

  setShare(device: number, account: number, { depth, bytes }: ShareNumbers): void {
    const waiting = this.waiting(device);
    const shares = waiting.shares ??= new Map();
    if (!shares.has(account)) this.rows += 1;
    shares.set(account, { depth, bytes });
  }

  setDaily(account: number, { day, bytes, guards }: DailyNumbers): void {
    if (!this.daily.has(account)) this.rows += 1;
    this.daily.set(account, { day, bytes, guards });
  }
}

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

/** Bytes of one (device, seq) pair of a payload's recipients. */
const PAIR_BYTES = 16;

/** Kinds of records in a row of the log: the kind, then so many numbers, all little-endian doubles. */
const QUEUE = 0;
const SHARE = 1;
const DAILY = 2;
const RECORD_NUMBERS = [9, 5, 5] as const;

const NO_ENTRIES: readonly DeferredEntry[] = [];

/** The rows that wait, on one connection. */
export class Deferred {
  readonly #appendLog: Prepared<never>;
  readonly #deleteLog: Prepared<never>;
  readonly #setMark: Prepared<never>;
  readonly #updateQueue: Prepared<never>;
  readonly #putShare: Prepared<never>;
  readonly #deleteShare: Prepared<never>;
  readonly #putDaily: Prepared<never>;
  readonly #insertEntry: Prepared<never>;
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
    this.#appendLog = connection.prepare("INSERT INTO deferred_rows (rows) VALUES (?)");
    this.#deleteLog = connection.prepare("DELETE FROM deferred_rows WHERE id <= ?");
    this.#setMark = connection.prepare("UPDATE store SET written_payload = ? WHERE id = 1");
    this.#updateQueue = connection.prepare(
      `UPDATE queues SET next_seq = ?, acked_through = ?, dropped_through = ?, dropped_count = ?, depth = ?,
       bytes = ?, sent_next = ? WHERE device = ?`,
    );
    this.#putShare = connection.prepare(
      `INSERT INTO senders (device, account, depth, bytes) VALUES (?, ?, ?, ?)
       ON CONFLICT (device, account) DO UPDATE SET depth = excluded.depth, bytes = excluded.bytes`,
    );
    this.#deleteShare = connection.prepare("DELETE FROM senders WHERE device = ? AND account = ?");
    this.#putDaily = connection.prepare(
      "REPLACE INTO daily (account, day, bytes, guards) VALUES (?, ?, ?, ?)",
    );
    this.#insertEntry = connection.prepare(
      "INSERT INTO entries (device, seq, payload, size, expires_at, sender, shared) VALUES (?, ?, ?, ?, ?, ?, ?)",
    );
    this.#read(connection);
  }

  #read(connection: Connection): void {
    this.#writtenPayload = Number(connection.value("SELECT written_payload FROM store WHERE id = 1") ?? 0);
    const log = connection.rows<{ id: number; rows: Uint8Array }>(
      "SELECT id, rows FROM deferred_rows ORDER BY id",
    );
    if (log.length === 0) return;
    const old = new Generation();
    for (const { rows } of log) readRecords(rows, old);
    old.lastLogRow = this.#lastLogRow = this.#appendedLogRow = log.at(-1)!.id;
    old.lastPayload = this.#writtenPayload;
    readEntries(connection, old);
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
    this.#appendedLogRow = this.#appendLog.insert(records);
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
      if (numbers && !queue?.dirty) this.#writeQueue(device, numbers);
      const shares = new Map([
        ...this.#old?.devices.get(device)?.shares ?? [],
        ...this.#young.devices.get(device)?.shares ?? [],
      ]);
      for (const [account, share] of shares) this.#writeShare(device, account, share);
      this.#writeEntries(device, this.entries(device), queue?.ackedThrough);
    }
    for (const [account, sums] of [...this.#old?.daily ?? [], ...this.#young.daily]) {
      this.#writeDaily(account, sums);
    }
    for (const queue of changes.queues) {
      this.#writeQueue(queue.device, queue);
      this.#writeEntries(queue.device, queue.added, queue.ackedThrough);
    }
    for (const { queue, account, share } of changes.shares) this.#writeShare(queue.device, account, share);
    for (const sums of changes.daily) this.#writeDaily(sums.account, sums);
    this.#before ??= {
      old: this.#old,
      young: this.#young,
      order: this.#order,
      writtenPayload: this.#writtenPayload,
    };
    this.#forgetLog(this.#lastLogRow, changes.lastPayload);
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
      if (numbers && !newer?.numbers && !queue?.dirty) this.#writeQueue(device, numbers);
      for (const [account, share] of shares ?? []) {
        if (!newer?.shares?.has(account)) this.#writeShare(device, account, share);
      }
      this.#writeEntries(device, entries, queue?.ackedThrough);
      left -= 1 + (shares?.size ?? 0) + entries.length;
    }
    if (this.#written.length < this.#order.length) return;
    for (const [account, sums] of old.daily) {
      if (!this.#young.daily.has(account)) this.#writeDaily(account, sums);
    }
    this.#forgetLog(old.lastLogRow, old.lastPayload);
    this.#oldDone = true;
  }

  #forgetLog(lastLogRow: number, lastPayload: number): void {
    this.#deleteLog.run(lastLogRow);
    this.#setMark.run(lastPayload);
  }

  #writeQueue(device: number, numbers: QueueNumbers): void {
    this.#updateQueue.run(
      numbers.nextSeq,
      numbers.ackedThrough,
      numbers.droppedThrough,
      numbers.droppedCount,
      numbers.depth,
      numbers.bytes,
      numbers.sentNext,
      device,
    );
  }

  #writeShare(device: number, account: number, { depth, bytes }: ShareNumbers): void {
    if (depth === 0) this.#deleteShare.run(device, account);
    else this.#putShare.run(device, account, depth, bytes);
  }

  #writeDaily(account: number, { day, bytes, guards }: DailyNumbers): void {
    this.#putDaily.run(account, day, bytes, guards);
  }

  #writeEntries(device: number, entries: readonly DeferredEntry[], ackedThrough = 0): void {
    for (const { seq, payload, size, expiresAt, sender, shared } of entries) {
      if (seq > ackedThrough) this.#insertEntry.run(device, seq, payload, size, expiresAt, sender, shared);
    }
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

function numbersOf(queue: QueueNumbers): QueueNumbers {
  const { nextSeq, ackedThrough, droppedThrough, droppedCount, depth, bytes, sentNext } = queue;
  return { nextSeq, ackedThrough, droppedThrough, droppedCount, depth, bytes, sentNext };
}

function dropThrough(waiting: Waiting | undefined, ackedThrough: number): void {
  if (!waiting || waiting.entries.length === 0 || waiting.entries[0]!.seq > ackedThrough) return;
  const kept = waiting.entries.findIndex(({ seq }) => seq > ackedThrough);
  waiting.entries = kept < 0 ? [] : waiting.entries.slice(kept);
}

function recordsOf({ queues, shares, daily }: Changes): Uint8Array {
  const size = queues.length * RECORD_NUMBERS[QUEUE] + shares.length * RECORD_NUMBERS[SHARE] +
    daily.length * RECORD_NUMBERS[DAILY];
  const numbers = new Float64Array(size);
  let at = 0;
  for (const queue of queues) {
    numbers[at++] = QUEUE;
    numbers[at++] = queue.device;
    numbers[at++] = queue.nextSeq;
    numbers[at++] = queue.ackedThrough;
    numbers[at++] = queue.droppedThrough;
    numbers[at++] = queue.droppedCount;
    numbers[at++] = queue.depth;
    numbers[at++] = queue.bytes;
    numbers[at++] = queue.sentNext;
  }
  for (const { queue, account, share } of shares) {
    numbers[at++] = SHARE;
    numbers[at++] = queue.device;
    numbers[at++] = account;
    numbers[at++] = share.depth;
    numbers[at++] = share.bytes;
  }
  for (const sums of daily) {
    numbers[at++] = DAILY;
    numbers[at++] = sums.account;
    numbers[at++] = sums.day;
    numbers[at++] = sums.bytes;
    numbers[at++] = sums.guards;
  }
  return new Uint8Array(numbers.buffer);
}

function readRecords(rows: Uint8Array, into: Generation): void {
  const view = new DataView(rows.buffer, rows.byteOffset, rows.length);
  let at = 0;
  const next = () => view.getFloat64(8 * at++, true);
  while (8 * at < rows.length) {
    switch (next()) {
      case QUEUE:
        into.setNumbers(next(), {
          nextSeq: next(),
          ackedThrough: next(),
          droppedThrough: next(),
          droppedCount: next(),
          depth: next(),
          bytes: next(),
          sentNext: next(),
        });
        break;
      case SHARE:
        into.setShare(next(), next(), { depth: next(), bytes: next() });
        break;
      case DAILY:
        into.setDaily(next(), { day: next(), bytes: next(), guards: next() });
        break;
      default:
        throw new RangeError("A row of deferred_rows is of an unknown kind");
    }
  }
}

interface PayloadRow {
  id: number;
  sender: number;
  size: number;
  expires_at: number;
  recipients: Uint8Array;
}

/** Entries of payloads behind the mark that are neither acknowledged nor in the table. */
function readEntries(connection: Connection, into: Generation): void {
  const payloads = connection.rows<PayloadRow>(
    `SELECT id, sender, length(bytes) AS size, expires_at, recipients FROM payloads
     WHERE id > (SELECT written_payload FROM store WHERE id = 1) ORDER BY id`,
  );
  const lastInTable = connection.prepare<{ seq: number | null }>(
    "SELECT max(seq) AS seq FROM entries WHERE device = ?",
  );
  /** Those up to here are in the table or gone. */
  const through = new Map<number, number>();
  for (const { id, sender, size, expires_at: expiresAt, recipients } of payloads) {
    into.lastPayload = id;
    const shared = recipients.length > PAIR_BYTES ? 1 : 0;
    const pairs = new DataView(recipients.buffer, recipients.byteOffset, recipients.length);
    for (let at = 0; at < recipients.length; at += PAIR_BYTES) {
      const [device, seq] = [pairs.getFloat64(at, true), pairs.getFloat64(at + 8, true)];
      const waiting = into.waiting(device);
      let last = through.get(device);
      if (last === undefined) {
        last = Math.max(waiting.numbers?.ackedThrough ?? Infinity, lastInTable.get(device)?.seq ?? 0);
        through.set(device, last);
      }
      if (seq > last) waiting.entries.push({ seq, payload: id, size, expiresAt, sender, shared });
    }
  }
}

/** The log of rows that are written later (deferred.ts): what a transaction appends to it, and how it is read again. */
import type { Connection } from "./connection.ts";
import { type Changes, Generation } from "./deferred_generation.ts";

/** Bytes of one (device, seq) pair of a payload's recipients. */
const PAIR_BYTES = 16;

/** Kinds of records in a row of the log: the kind, then so many numbers, all little-endian doubles. */
const QUEUE = 0;
const SHARE = 1;
const DAILY = 2;
const RECORD_NUMBERS = [9, 5, 5] as const;

/** What a transaction appends. */
export function recordsOf({ queues, shares, daily }: Changes): Uint8Array {
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

/** What waits according to the log; undefined when it is empty. */
export function readLog(connection: Connection): Generation | undefined {
  const log = connection.rows<{ id: number; rows: Uint8Array }>(
    "SELECT id, rows FROM deferred_rows ORDER BY id",
  );
  if (log.length === 0) return undefined;
  const generation = new Generation();
  for (const { rows } of log) readRecords(rows, generation);
  generation.lastLogRow = log.at(-1)!.id;
  generation.lastPayload = writtenPayload(connection);
  readEntries(connection, generation);
  return generation;
}

/** Entries of payloads up to this one are in their table, or gone. */
export function writtenPayload(connection: Connection): number {
  return Number(connection.value("SELECT written_payload FROM store WHERE id = 1") ?? 0);
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

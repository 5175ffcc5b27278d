/**
 * Entries and the payloads they refer to: putting a payload into queues once for all of them, and deleting it
 * with its last entry. Counters go through the ledger.
 */
import type { Connection, Prepared } from "./connection.ts";
import type { Ledger, Queue } from "./ledger.ts";

/** A payload on its way into queues. */
export interface Delivery {
  readonly entryId: Uint8Array;
  /** Integer key of the sending account; 0: a notice. */
  readonly sender: number;
  readonly senderDevice: Uint8Array | null;
  readonly acceptedAt: number;
  readonly expiresAt: number;
  readonly payload: Uint8Array;
}

interface EntryRow {
  seq: number;
  payload: number;
  size: number;
  sender: number;
  shared: number;
}

/** Bytes of one (device, seq) pair in `recipients`. */
const PAIR_BYTES = 16;

/** Writes and deletes entries. */
export class Payloads {
  readonly #ledger: Ledger;
  readonly #insertPayload: Prepared<never>;
  readonly #insertEntry: Prepared<never>;
  readonly #insertRefs: Prepared<never>;
  readonly #dropRef: Prepared<{ refs: number }>;
  readonly #deleteRefs: Prepared<never>;
  readonly #deletePayload: Prepared<never>;
  readonly #sumsThrough: Prepared<{ sender: number; depth: number; bytes: number; shared: number }>;
  readonly #sharedThrough: Prepared<{ payload: number }>;
  readonly #deletePayloadsThrough: Prepared<never>;
  readonly #deleteThrough: Prepared<never>;
  readonly #deleteEntry: Prepared<EntryRow>;
  readonly #findExpired: Prepared<{ recipients: Uint8Array }>;

  constructor(connection: Connection, ledger: Ledger) {
    this.#ledger = ledger;
    this.#insertPayload = connection.prepare(
      `INSERT INTO payloads (entry_id, sender, sender_device, accepted_at, expires_at, recipients, bytes)
       VALUES (?, ?, ?, ?, ?, ?, ifnull(?, x''))`,
    );
    this.#insertEntry = connection.prepare(
      "INSERT INTO entries (device, seq, payload, size, expires_at, sender, shared) VALUES (?, ?, ?, ?, ?, ?, ?)",
    );
    this.#insertRefs = connection.prepare("INSERT INTO payload_refs (payload, refs) VALUES (?, ?)");
    this.#dropRef = connection.prepare(
      "UPDATE payload_refs SET refs = refs - 1 WHERE payload = ? RETURNING refs",
    );
    this.#deleteRefs = connection.prepare("DELETE FROM payload_refs WHERE payload = ?");
    this.#deletePayload = connection.prepare("DELETE FROM payloads WHERE id = ?");
    this.#sumsThrough = connection.prepare(
      `SELECT sender, count(*) AS depth, sum(size) AS bytes, sum(shared) AS shared FROM entries
       WHERE device = ? AND seq <= ? GROUP BY sender`,
    );
    this.#sharedThrough = connection.prepare(
      "SELECT payload FROM entries WHERE device = ? AND seq <= ? AND shared = 1",
    );
    this.#deletePayloadsThrough = connection.prepare(
      `DELETE FROM payloads WHERE id IN
       (SELECT payload FROM entries WHERE device = ? AND seq <= ? AND shared = 0)`,
    );
    this.#deleteThrough = connection.prepare("DELETE FROM entries WHERE device = ? AND seq <= ?");
    this.#deleteEntry = connection.prepare(
      "DELETE FROM entries WHERE device = ? AND seq = ? RETURNING seq, payload, size, sender, shared",
    );
    this.#findExpired = connection.prepare(
      "SELECT recipients FROM payloads WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
    );
  }

  /** Gives each queue an entry with its next number; the payload is stored once. */
  deliver(delivery: Delivery, queues: readonly Queue[]): void {
    if (queues.length === 0) return;
    const { entryId, sender, senderDevice, acceptedAt, expiresAt, payload } = delivery;
    const pairs = new Float64Array(queues.length * 2);
    for (const [index, queue] of queues.entries()) {
      pairs[index * 2] = queue.device;
      pairs[index * 2 + 1] = queue.nextSeq++;
    }
    const recipients = new Uint8Array(pairs.buffer);
    const id = this.#insertPayload.insert(
      entryId,
      sender,
      senderDevice,
      acceptedAt,
      expiresAt,
      recipients,
      payload,
    );
    const shared = queues.length > 1 ? 1 : 0;
    if (shared) this.#insertRefs.run(id, queues.length);
    for (const [index, queue] of queues.entries()) {
      const seq = pairs[index * 2 + 1]!;
      this.#insertEntry.run(queue.device, seq, id, payload.length, expiresAt, sender, shared);
      this.#ledger.countEntries(queue, sender, 1, payload.length);
      this.#ledger.touch(queue);
    }
  }

  /**
   * Deletes the queue's entries up to `through`; returns how many. By statements over all of them: a call for each row
   * and its payload took half as long again.
   */
  deleteThrough(queue: Queue, through: number): number {
    const { device } = queue;
    let shared = 0;
    for (const sums of this.#sumsThrough.all(device, through)) {
      this.#ledger.countEntries(queue, sums.sender, -sums.depth, -sums.bytes);
      shared += sums.shared;
    }
    if (shared > 0) {
      for (const { payload } of this.#sharedThrough.all(device, through)) this.#dropReference(payload);
    }
    this.#deletePayloadsThrough.run(device, through);
    return this.#deleteThrough.run(device, through);
  }

  /**
   * Deletes entries expired at `now`, at most `limit`, and counts them as dropped. A payload whose entries do not
   * all fit into the limit keeps the rest of them for the next call.
   */
  deleteExpired(now: number, limit: number): number {
    let count = 0;
    for (const { recipients } of this.#findExpired.all(now, limit)) {
      const pairs = new DataView(recipients.buffer, recipients.byteOffset, recipients.length);
      for (let at = 0; at < recipients.length; at += PAIR_BYTES) {
        if (count === limit) return count;
        if (this.#expireEntry(pairs.getFloat64(at, true), pairs.getFloat64(at + 8, true))) count += 1;
      }
    }
    return count;
  }

  #expireEntry(device: number, seq: number): boolean {
    const row = this.#deleteEntry.get(device, seq);
    if (!row) return false;
    const queue = this.#ledger.queueByKey(device)!;
    this.#deleted(queue, row);
    queue.droppedThrough = Math.max(queue.droppedThrough, seq);
    queue.droppedCount += 1;
    return true;
  }

  #deleted(queue: Queue, row: EntryRow): void {
    this.#ledger.countEntries(queue, row.sender, -1, -row.size);
    if (row.shared) this.#dropReference(row.payload);
    else this.#deletePayload.run(row.payload);
  }

  /** One entry less refers to a payload that several shared. */
  #dropReference(payload: number): void {
    if (this.#dropRef.get(payload)!.refs > 0) return;
    this.#deleteRefs.run(payload);
    this.#deletePayload.run(payload);
  }
}

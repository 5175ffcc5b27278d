/**
 * Entries and the payloads they refer to: putting a payload into queues once for all of them, and deleting it after
 * its last entry. Counters go through the ledger.
 *
 * Payloads lie in the order in which they came, whatever queue they are for. Deleting those of one queue as it is
 * acknowledged would write nearly every page anew, once for each queue (16 us a message with eight queues, 0.5 us
 * without). So they are first released, and then deleted in their own order, many to a page.
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

/** Payloads that wait to be deleted, and how many of them the present transaction has added. */
export interface Released {
  depth: number;
  bytes: number;
  newDepth: number;
  newBytes: number;
}

/** What a sender has among entries, in rows and bytes; `released`: bytes of payloads that no other entry shares. */
interface Sums {
  sender: number;
  depth: number;
  bytes: number;
  shared: number;
  released: number;
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
/** So many released payloads, or bytes of them, may wait for others to be released beside them. */
const RELEASED_MAX = 16_384;
const RELEASED_BYTES_MAX = 16 << 20;
/** A transaction that finds more deletes at least so many, and in any case more than it has released. */
const SWEEP_ROWS_MIN = 512;
const SWEEP_BYTES_MIN = 1 << 20;

/** Writes and deletes entries. */
export class Payloads {
  readonly #ledger: Ledger;
  readonly #insertPayload: Prepared<never>;
  readonly #insertRefs: Prepared<never>;
  readonly #dropRef: Prepared<{ refs: number }>;
  readonly #deleteRefs: Prepared<never>;
  readonly #sumsThrough: Prepared<Sums>;
  readonly #sharedThrough: Prepared<{ payload: number; size: number }>;
  readonly #releaseThrough: Prepared<never>;
  readonly #deleteThrough: Prepared<never>;
  readonly #deleteEntry: Prepared<EntryRow>;
  readonly #release: Prepared<never>;
  readonly #findReleased: Prepared<{ last: number | null; depth: number; bytes: number }>;
  readonly #deleteReleasedPayloads: Prepared<never>;
  readonly #deleteReleased: Prepared<never>;
  readonly #findExpired: Prepared<{ id: number; recipients: Uint8Array }>;

  constructor(connection: Connection, ledger: Ledger) {
    this.#ledger = ledger;
    this.#insertPayload = connection.prepare(
      `INSERT INTO payloads (id, entry_id, sender, sender_device, accepted_at, expires_at, recipients, bytes)
       VALUES (?, ?, ?, ?, ?, ?, ?, ifnull(?, x''))`,
    );
    this.#insertRefs = connection.prepare("INSERT INTO payload_refs (payload, refs) VALUES (?, ?)");
    this.#dropRef = connection.prepare(
      "UPDATE payload_refs SET refs = refs - 1 WHERE payload = ? RETURNING refs",
    );
    this.#deleteRefs = connection.prepare("DELETE FROM payload_refs WHERE payload = ?");
    this.#sumsThrough = connection.prepare(
      `SELECT sender, count(*) AS depth, sum(size) AS bytes, sum(shared) AS shared,
       sum(CASE shared WHEN 0 THEN size ELSE 0 END) AS released FROM entries
       WHERE device = ? AND seq <= ? GROUP BY sender`,
    );
    this.#sharedThrough = connection.prepare(
      "SELECT payload, size FROM entries WHERE device = ? AND seq <= ? AND shared = 1",
    );
    this.#releaseThrough = connection.prepare(
      `INSERT INTO released_payloads (payload, bytes)
       SELECT payload, size FROM entries WHERE device = ? AND seq <= ? AND shared = 0`,
    );
    this.#deleteThrough = connection.prepare("DELETE FROM entries WHERE device = ? AND seq <= ?");
    this.#deleteEntry = connection.prepare(
      "DELETE FROM entries WHERE device = ? AND seq = ? RETURNING seq, payload, size, sender, shared",
    );
    this.#release = connection.prepare("INSERT INTO released_payloads (payload, bytes) VALUES (?, ?)");
    this.#findReleased = connection.prepare(
      `SELECT max(payload) AS last, count(*) AS depth, ifnull(sum(bytes), 0) AS bytes FROM (
         SELECT payload, bytes, sum(bytes) OVER (ORDER BY payload ROWS UNBOUNDED PRECEDING) - bytes AS before FROM (
           SELECT payload, bytes FROM released_payloads WHERE payload > 0 ORDER BY payload LIMIT ?))
       WHERE before < ?`,
    );
    this.#deleteReleasedPayloads = connection.prepare(
      "DELETE FROM payloads WHERE id IN (SELECT payload FROM released_payloads WHERE payload <= ?)",
    );
    this.#deleteReleased = connection.prepare("DELETE FROM released_payloads WHERE payload <= ?");
    this.#findExpired = connection.prepare(
      `SELECT id, recipients FROM payloads WHERE expires_at <= ?
       AND NOT EXISTS (SELECT 1 FROM released_payloads WHERE payload = id) ORDER BY expires_at LIMIT ?`,
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
    const id = this.#ledger.takePayloadKey();
    this.#insertPayload.run(
      id,
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
      this.#ledger.addEntry(queue, { seq, payload: id, size: payload.length, expiresAt, sender, shared });
      this.#ledger.touched.add(queue);
    }
  }

  /** Deletes the queue's entries up to `through`, which are acknowledged thereby; returns how many. */
  acknowledge(queue: Queue, through: number): number {
    const deferred = this.#ledger.deferredEntries(queue);
    let count = deferred.length < queue.depth ? this.deleteThrough(queue, through) : 0;
    for (const entry of deferred) {
      if (entry.seq > through) break;
      this.#deleted(queue, entry);
      count += 1;
    }
    queue.ackedThrough = through;
    this.#ledger.queueChanged(queue);
    return count;
  }

  /** Deletes the queue's entries in the table up to `through`; returns how many. */
  deleteThrough(queue: Queue, through: number): number {
    const { device } = queue;
    let [shared, releasedBytes] = [0, 0];
    for (const sums of this.#sumsThrough.all(device, through)) {
      this.#ledger.countEntries(queue, sums.sender, -sums.depth, -sums.bytes);
      shared += sums.shared;
      releasedBytes += sums.released;
    }
    if (shared > 0) {
      for (const { payload, size } of this.#sharedThrough.all(device, through)) {
        this.#dropReference(payload, size);
      }
    }
    this.#ledger.countReleased(this.#releaseThrough.run(device, through), releasedBytes);
    return this.#deleteThrough.run(device, through);
  }

  /** To be called at the end of each transaction: deletes released payloads when there are many. */
  sweepWhenDue(): void {
    const { depth, bytes, newDepth, newBytes } = this.#ledger.released();
    if (depth <= RELEASED_MAX && bytes <= RELEASED_BYTES_MAX) return;
    this.sweep(Math.max(SWEEP_ROWS_MIN, 2 * newDepth), Math.max(SWEEP_BYTES_MIN, 2 * newBytes));
  }

  /** Deletes released payloads in their order: at most `rows` of them, and one that passes `bytesMax` is the last. */
  sweep(rows: number, bytesMax: number): void {
    const { last, depth, bytes } = this.#findReleased.get(rows, bytesMax)!;
    if (last === null) return;
    this.#deleteReleasedPayloads.run(last);
    this.#deleteReleased.run(last);
    this.#ledger.countReleased(-depth, -bytes);
  }

  /**
   * Deletes entries expired at `now`, at most `limit`, and counts them as dropped. A payload whose entries do not
   * all fit into the limit keeps the rest of them for the next call.
   */
  deleteExpired(now: number, limit: number): number {
    let count = 0;
    for (const { id, recipients } of this.#findExpired.all(now, limit)) {
      if (this.#ledger.defers(id)) this.#ledger.settle();
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

  #deleted(queue: Queue, row: Omit<EntryRow, "seq">): void {
    this.#ledger.countEntries(queue, row.sender, -1, -row.size);
    if (row.shared) this.#dropReference(row.payload, row.size);
    else this.#releaseOne(row.payload, row.size);
  }

  /** One entry less refers to a payload that several shared. */
  #dropReference(payload: number, size: number): void {
    if (this.#dropRef.get(payload)!.refs > 0) return;
    this.#deleteRefs.run(payload);
    this.#releaseOne(payload, size);
  }

  #releaseOne(payload: number, size: number): void {
    this.#release.run(payload, size);
    this.#ledger.countReleased(1, size);
  }
}

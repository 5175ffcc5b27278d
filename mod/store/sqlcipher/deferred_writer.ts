/** The statements that write what was deferred (deferred.ts), and its log. */
import type { Connection, Prepared } from "./connection.ts";
import type { DailyNumbers, DeferredEntry, QueueNumbers, ShareNumbers } from "./deferred_generation.ts";

/** Writes rows. */
export class DeferredWriter {
  readonly #appendLog: Prepared<never>;
  readonly #deleteLog: Prepared<never>;
  readonly #setMark: Prepared<never>;
  readonly #updateQueue: Prepared<never>;
  readonly #putShare: Prepared<never>;
  readonly #deleteShare: Prepared<never>;
  readonly #putDaily: Prepared<never>;
  readonly #insertEntry: Prepared<never>;

  constructor(connection: Connection) {
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
  }

  /** Appends to the log; returns the row's key. */
  append(records: Uint8Array): number {
    return this.#appendLog.insert(records);
  }

  /** What the log says up to here, and entries of payloads up to there, are written. */
  forgetLog(lastLogRow: number, lastPayload: number): void {
    this.#deleteLog.run(lastLogRow);
    this.#setMark.run(lastPayload);
  }

  /** Writes a queue's row. */
  queue(device: number, numbers: QueueNumbers): void {
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

  /** Writes what an account has in a queue. */
  share(device: number, account: number, { depth, bytes }: ShareNumbers): void {
    if (depth === 0) this.#deleteShare.run(device, account);
    else this.#putShare.run(device, account, depth, bytes);
  }

  /** Writes an account's sums. */
  daily(account: number, { day, bytes, guards }: DailyNumbers): void {
    this.#putDaily.run(account, day, bytes, guards);
  }

  /** Writes the entries that are not acknowledged. */
  entries(device: number, entries: readonly DeferredEntry[], ackedThrough = 0): void {
    for (const { seq, payload, size, expiresAt, sender, shared } of entries) {
      if (seq > ackedThrough) this.#insertEntry.run(device, seq, payload, size, expiresAt, sender, shared);
    }
  }
}

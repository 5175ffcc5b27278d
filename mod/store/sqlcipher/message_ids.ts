/**
 * Message ids and the results they are answered with again. Rows lie in order of acceptance, so that remembering
 * one costs little; those beyond a device's maximum are found by a sweep that goes round and round.
 */
import { equal } from "../../base/bytes.ts";
import type { Accepted, RecipientStatus } from "../store.ts";
import type { Connection, Prepared } from "./connection.ts";
import type { Ledger, Queue } from "./ledger.ts";
import type { IncomingMessage } from "./queues.ts";

interface KnownMessage {
  id: number;
  device: number;
  number: number;
  request_sha256: Uint8Array;
  accepted_at: number;
  expires_at: number;
  statuses: Uint8Array;
}

interface SweptMessage {
  id: number;
  device: number;
  number: number;
}

/** One byte for each recipient in `statuses`; the order may only be appended to. */
export const STATUSES: readonly RecipientStatus[] = ["ok", "unknownDevice", "queueFull", "blocked"];
/** After so many messages of devices beyond their maximum, twice as many rows are looked at. */
const SWEEP_STEP = 64;

/** Remembers results. */
export class MessageIds {
  readonly #ledger: Ledger;
  readonly #find: Prepared<KnownMessage>;
  readonly #insert: Prepared<never>;
  readonly #delete: Prepared<never>;
  readonly #list: Prepared<SweptMessage>;
  readonly #expire: Prepared<never>;
  #sweptThrough = 0;
  #unswept = 0;

  constructor(connection: Connection, ledger: Ledger) {
    this.#ledger = ledger;
    this.#find = connection.prepare(
      `SELECT id, device, number, request_sha256, accepted_at, expires_at, statuses FROM message_ids
       WHERE message_id = ? AND account = ?`,
    );
    this.#insert = connection.prepare(
      `INSERT INTO message_ids
       (account, device, number, message_id, request_sha256, accepted_at, expires_at, statuses)
       VALUES (?, ?, ?, ?, ?, ?, ?, ifnull(?, x''))`,
    );
    this.#delete = connection.prepare("DELETE FROM message_ids WHERE id = ?");
    this.#list = connection.prepare(
      "SELECT id, device, number FROM message_ids WHERE id > ? ORDER BY id LIMIT ?",
    );
    this.#expire = connection.prepare(
      "DELETE FROM message_ids WHERE accepted_at < ? ORDER BY accepted_at LIMIT ?",
    );
  }

  /** The answer to a message id that is still remembered. */
  replay(message: IncomingMessage, account: number): Accepted | { status: "idConflict" } | undefined {
    const known = this.#find.get(message.messageId, account);
    if (!known) return undefined;
    const { idempotencyMs, idempotencyCountMax } = message.limits;
    const tooOld = message.now - known.accepted_at >= idempotencyMs;
    if (tooOld || this.#isBeyond(known, idempotencyCountMax)) {
      this.#delete.run(known.id);
      return undefined;
    }
    if (!equal(known.request_sha256, message.requestSha256)) return { status: "idConflict" };
    return {
      status: "accepted",
      replayed: true,
      recipients: Array.from(known.statuses, (status) => STATUSES[status]!),
      acceptedAt: known.accepted_at,
      expiresAt: known.expires_at,
    };
  }

  /** Is it not among its device's last `countMax`? */
  #isBeyond({ device, number }: SweptMessage, countMax: number): boolean {
    const queue = this.#ledger.queueByKey(device);
    return queue !== undefined && number < queue.sentNext - countMax;
  }

  /** Remembers the result of a message that `own`, the sending device, has had accepted. */
  remember(message: IncomingMessage, own: Queue, statuses: readonly RecipientStatus[]): void {
    const number = own.sentNext++;
    this.#ledger.queueChanged(own);
    this.#insert.run(
      own.account,
      own.device,
      number,
      message.messageId,
      message.requestSha256,
      message.now,
      message.expiresAt,
      Uint8Array.from(statuses, (status) => STATUSES.indexOf(status)),
    );
    const { idempotencyCountMax } = message.limits;
    if (number <= idempotencyCountMax) return;
    this.#unswept += 1;
    if (this.#unswept >= SWEEP_STEP) this.#sweep(idempotencyCountMax);
  }

  #sweep(countMax: number): void {
    this.#unswept = 0;
    const rows = this.#list.all(this.#sweptThrough, 2 * SWEEP_STEP);
    for (const row of rows) if (this.#isBeyond(row, countMax)) this.#delete.run(row.id);
    this.#sweptThrough = rows.length < 2 * SWEEP_STEP ? 0 : rows.at(-1)!.id;
  }

  /** Forgets ids accepted before `before`, at most `limit`. */
  expire(before: number, limit: number): number {
    return this.#expire.run(before, limit);
  }
}

/**
 * Message ids and the results they are answered with again. Rows lie in order of acceptance, so that remembering
 * one costs little; those beyond a device's maximum are found by a sweep that goes round and round.
 */
import { equal } from "../../base/bytes.ts";
import type { Accepted, RecipientStatus, RemoteStatus } from "../store.ts";
import type { Connection, Prepared } from "./connection.ts";
import type { Ledger, Queue } from "./ledger.ts";
import type { Peer, Peers } from "./peers.ts";
import type { IncomingMessage } from "./queues.ts";

/** Who sends: a device of this server or a peer, by their keys. */
export interface Sender {
  readonly account: number;
  readonly device: number;
  sentNext: number;
}

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
/** The same for outboxes: their bytes follow those of the recipients. */
export const REMOTE_STATUSES: readonly RemoteStatus[] = ["relaying", "queueFull"];
const REMOTE_FIRST = 128;
/** After so many messages of devices beyond their maximum, twice as many rows are looked at. */
const SWEEP_STEP = 64;

/** Remembers results. */
export class MessageIds {
  readonly #ledger: Ledger;
  readonly #peers: Peers;
  readonly #find: Prepared<KnownMessage>;
  readonly #insert: Prepared<never>;
  readonly #delete: Prepared<never>;
  readonly #list: Prepared<SweptMessage>;
  readonly #expire: Prepared<never>;
  readonly #expireRemote: Prepared<never>;
  readonly #listRemote: Prepared<SweptMessage>;
  #sweptThrough = 0;
  #unswept = 0;
  /** The same for ids of peers, whose maximum is another. */
  #sweptRemote = 0;
  #unsweptRemote = 0;

  constructor(connection: Connection, { ledger, peers }: { ledger: Ledger; peers: Peers }) {
    this.#ledger = ledger;
    this.#peers = peers;
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
    this.#listRemote = connection.prepare(
      "SELECT id, device, number FROM message_ids WHERE account < 0 AND id > ? ORDER BY id LIMIT ?",
    );
    this.#expire = connection.prepare(
      "DELETE FROM message_ids WHERE account > 0 AND accepted_at < ? ORDER BY accepted_at LIMIT ?",
    );
    this.#expireRemote = connection.prepare(
      "DELETE FROM message_ids WHERE account < 0 AND accepted_at < ? ORDER BY accepted_at LIMIT ?",
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
      ...readStatuses(known.statuses),
      acceptedAt: known.accepted_at,
      expiresAt: known.expires_at,
    };
  }

  /** Is the message remembered? */
  has(messageId: Uint8Array, account: number): boolean {
    return this.#find.get(messageId, account) !== undefined;
  }

  /** Is it not among its sender's last `countMax`? */
  #isBeyond({ device, number }: SweptMessage, countMax: number): boolean {
    const sender = device < 0 ? this.#peers.byKey(-device) : this.#ledger.queueByKey(device);
    return sender !== undefined && number < sender.sentNext - countMax;
  }

  /** Remembers the result of a message that `sender` has had accepted. */
  remember(message: IncomingMessage, sender: Queue | Peer, statuses: Statuses): void {
    const number = sender.sentNext++;
    if ("domain" in sender) this.#peers.changed(sender);
    else this.#ledger.queueChanged(sender);
    this.#insert.run(
      sender.account,
      sender.device,
      number,
      message.messageId,
      message.requestSha256,
      message.now,
      message.expiresAt,
      writeStatuses(statuses),
    );
    const { idempotencyCountMax } = message.limits;
    if (number > idempotencyCountMax) this.#sweepWhenDue(sender, idempotencyCountMax);
  }

  #sweepWhenDue({ device }: Sender, countMax: number): void {
    if (device < 0) {
      this.#unsweptRemote += 1;
      if (this.#unsweptRemote >= SWEEP_STEP) this.#sweepRemote(countMax);
    } else {
      this.#unswept += 1;
      if (this.#unswept >= SWEEP_STEP) this.#sweep(countMax);
    }
  }

  #sweepRemote(countMax: number): void {
    this.#unsweptRemote = 0;
    const rows = this.#listRemote.all(this.#sweptRemote, 2 * SWEEP_STEP);
    for (const row of rows) if (this.#isBeyond(row, countMax)) this.#delete.run(row.id);
    this.#sweptRemote = rows.length < 2 * SWEEP_STEP ? 0 : rows.at(-1)!.id;
  }

  #sweep(countMax: number): void {
    this.#unswept = 0;
    const rows = this.#list.all(this.#sweptThrough, 2 * SWEEP_STEP);
    for (const row of rows) if (row.device > 0 && this.#isBeyond(row, countMax)) this.#delete.run(row.id);
    this.#sweptThrough = rows.length < 2 * SWEEP_STEP ? 0 : rows.at(-1)!.id;
  }

  /** Forgets ids accepted before `before`, those of peers before `remoteBefore`, at most `limit`. */
  expire(before: number, limit: number, remoteBefore: number): number {
    const own = this.#expire.run(before, limit);
    return own + this.#expireRemote.run(remoteBefore, limit - own);
  }
}

/** What became of a message. */
export type Statuses = Pick<Accepted, "recipients" | "remote">;

/** As a column keeps them. */
export function writeStatuses({ recipients, remote }: Statuses): Uint8Array {
  const bytes = new Uint8Array(recipients.length + remote.length);
  recipients.forEach((status, index) => bytes[index] = STATUSES.indexOf(status));
  remote.forEach((status, index) => {
    bytes[recipients.length + index] = REMOTE_FIRST + REMOTE_STATUSES.indexOf(status);
  });
  return bytes;
}

/** What a column keeps. */
export function readStatuses(bytes: Uint8Array): Statuses {
  const all = Array.from(bytes);
  return {
    recipients: all.filter((byte) => byte < REMOTE_FIRST).map((byte) => STATUSES[byte]!),
    remote: all.filter((byte) => byte >= REMOTE_FIRST).map((byte) => REMOTE_STATUSES[byte - REMOTE_FIRST]!),
  };
}

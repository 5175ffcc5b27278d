/** The verbs of PeerStore inside the worker, and how messages come into an outbox; see store.ts for the promises. */
import { copy } from "../../base/bytes.ts";
import { idOf } from "../../base/ids.ts";
import type { OutboxEntry, OutboxSums, PeerStore, RemoteStatus } from "../store.ts";
import type { Connection, Prepared } from "./connection.ts";
import type { Ledger } from "./ledger.ts";
import type { Peer } from "./peers.ts";
import type { IncomingMessage, Queues } from "./queues.ts";

interface OutboxRow {
  id: number;
  sender_account: Uint8Array;
  sender_device: Uint8Array;
  message_id: Uint8Array;
  recipients: number;
  accepted_at: number;
  expires_at: number;
  body: Uint8Array;
}

interface SettledRow {
  sender_device: Uint8Array;
  size: number;
}

type Settle = Parameters<PeerStore["settleOutbox"]>[0];

/** Messages for other servers. */
export class Outbox {
  readonly #ledger: Ledger;
  readonly #insert: Prepared<never>;
  readonly #list: Prepared<OutboxRow>;
  readonly #delete: Prepared<SettledRow>;
  readonly #sums: () => { domain: string; depth: number; bytes: number; oldest: number }[];
  readonly #setBlocked: Prepared<never>;
  readonly #unblock: Prepared<never>;
  readonly #blocked: () => { domain: string }[];

  constructor(connection: Connection, ledger: Ledger) {
    this.#ledger = ledger;
    this.#insert = connection.prepare(
      `INSERT INTO outbox
       (peer, sender_account, sender_device, message_id, recipients, accepted_at, expires_at, size, body)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ifnull(?, x''))`,
    );
    // The first always fits; of the others as many as entriesMax and bytesMax allow.
    this.#list = connection.prepare(
      `SELECT id, sender_account, sender_device, message_id, recipients, accepted_at, expires_at, body FROM outbox
       WHERE id IN (SELECT id FROM (
         SELECT id, row_number() OVER ids AS number, sum(size) OVER ids AS through FROM (
           SELECT id, size FROM outbox WHERE peer = ? AND id > ? ORDER BY id LIMIT ?)
         WINDOW ids AS (ORDER BY id ROWS UNBOUNDED PRECEDING)) WHERE number = 1 OR through <= ?) ORDER BY id`,
    );
    this.#delete = connection.prepare(
      "DELETE FROM outbox WHERE id = ? AND peer = ? RETURNING sender_device, size",
    );
    this.#setBlocked = connection.prepare(
      "UPDATE peers SET blocked_at = ifnull(blocked_at, ?) WHERE id = ?",
    );
    this.#unblock = connection.prepare("UPDATE peers SET blocked_at = NULL WHERE domain = ?");
    const sums = `SELECT p.domain, p.depth, p.bytes,
      (SELECT o.accepted_at FROM outbox o WHERE o.peer = p.id ORDER BY o.id LIMIT 1) AS oldest
      FROM peers p WHERE p.depth > 0 ORDER BY p.domain`;
    // Every peer is looked at: compiled when needed, which is seldom.
    this.#sums = () => connection.rows(sums);
    this.#blocked = () =>
      connection.rows("SELECT domain FROM peers WHERE blocked_at IS NOT NULL ORDER BY domain");
  }

  /** Puts the message's remote parts into their outboxes. */
  add(message: IncomingMessage): RemoteStatus[] {
    return message.remote.map((remote) => this.#add(message, remote));
  }

  #add(
    message: IncomingMessage,
    { domain, body, recipients }: IncomingMessage["remote"][number],
  ): RemoteStatus {
    const { outboxDepthMax, outboxBytesMax } = message.limits;
    const peer = this.#ledger.peers.get(domain);
    const size = body.length;
    if (peer.depth + 1 > outboxDepthMax || peer.bytes + size > outboxBytesMax) return "queueFull";
    this.#insert.run(
      peer.key,
      Uint8Array.fromHex(message.senderAccount),
      Uint8Array.fromHex(message.senderDevice),
      message.messageId,
      recipients,
      message.now,
      message.expiresAt,
      size,
      body,
    );
    this.#count(peer, 1, size);
    this.#ledger.peers.relaying.add(domain);
    return "relaying";
  }

  /** Counts messages in or out of a peer's outbox. */
  #count(peer: Peer, depth: number, bytes: number): void {
    peer.depth += depth;
    peer.bytes += bytes;
    this.#ledger.peers.changed(peer);
    const totals = this.#ledger.totals.change();
    totals.outboxEntries += depth;
    totals.outboxBytes += bytes;
  }

  outboxes(): OutboxSums[] {
    this.#ledger.peers.flush();
    return this.#sums().map(({ oldest, ...sums }) => ({ ...sums, oldestAcceptedAt: oldest }));
  }

  outboxAfter(
    { domain, after, entriesMax, bytesMax }: Parameters<PeerStore["outboxAfter"]>[0],
  ): OutboxEntry[] {
    const peer = this.#ledger.peers.find(domain);
    if (!peer || peer.depth === 0) return [];
    return this.#list.all(peer.key, after, Math.max(1, entriesMax), bytesMax).map((row) => ({
      id: row.id,
      body: copy(row.body),
      senderAccount: idOf(row.sender_account),
      senderDevice: idOf(row.sender_device),
      messageId: idOf(row.message_id),
      recipients: row.recipients,
      acceptedAt: row.accepted_at,
      expiresAt: row.expires_at,
    }));
  }

  settleOutbox({ domain, settled, now }: Settle, queues: Queues): void {
    const peer = this.#ledger.peers.find(domain);
    if (!peer) return;
    for (const { id, failures } of settled) {
      const row = this.#delete.get(id, peer.key);
      if (!row) continue;
      this.#count(peer, -1, -row.size);
      for (const failure of failures) queues.notify([idOf(row.sender_device)], failure, now);
    }
  }

  setPeerBlocked(domain: string, blocked: boolean, now: number): void {
    if (blocked) this.#setBlocked.run(now, this.#ledger.peers.get(domain).key);
    else this.#unblock.run(domain);
  }

  blockedPeers(): string[] {
    return this.#blocked().map((row) => row.domain);
  }
}

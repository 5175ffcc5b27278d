/**
 * The numbers that nearly every verb of a batch touches (queues, sender shares, daily sums, totals), read once,
 * counted in memory, and written when the batch commits: a thousand messages into one queue then cost one update
 * of it. What is clean stays for the next batch. After a rollback everything is forgotten.
 */
import { hex } from "../../base/bytes.ts";
import type { StoreCounts } from "../store.ts";
import type { Connection, Prepared } from "./connection.ts";
import type { Released } from "./payloads.ts";
import { type Peer, Peers } from "./peers.ts";
import { TouchedQueues } from "./touched_queues.ts";

/** What one account holds in one queue. */
export interface Share {
  depth: number;
  bytes: number;
  /** The database has a row for it. */
  stored: boolean;
  dirty: boolean;
}

/** A device that is not revoked, and its queue. */
export interface Queue {
  readonly device: number;
  readonly deviceId: string;
  readonly account: number;
  nextSeq: number;
  ackedThrough: number;
  droppedThrough: number;
  droppedCount: number;
  depth: number;
  bytes: number;
  sentNext: number;
  dirty: boolean;
  /** By account key. */
  readonly shares: Map<number, Share>;
}

/** An account that is not deleted, or a peer (with its domain as `accountId`), and its sums of `day`. */
export interface AccountSums {
  readonly account: number;
  readonly accountId: string;
  day: number;
  bytes: number;
  guards: number;
  dirty: boolean;
}

type Totals = { -readonly [Name in keyof StoreCounts]: number };

interface QueueRow {
  device: number;
  device_id: Uint8Array;
  account: number;
  next_seq: number;
  acked_through: number;
  dropped_through: number;
  dropped_count: number;
  depth: number;
  bytes: number;
  sent_next: number;
}

/** Clean entries that may stay for the next batch. */
const KEPT_MAX = 50_000;

const QUEUE_SQL = `SELECT q.device, d.device_id, d.account, q.next_seq, q.acked_through, q.dropped_through,
  q.dropped_count, q.depth, q.bytes, q.sent_next`;

/** The numbers in memory. */
export class Ledger {
  readonly #queueById: Prepared<QueueRow>;
  readonly #queueByKey: Prepared<QueueRow>;
  readonly #updateQueue: Prepared<never>;
  readonly #findShare: Prepared<{ depth: number; bytes: number }>;
  readonly #insertShare: Prepared<never>;
  readonly #updateShare: Prepared<never>;
  readonly #deleteShare: Prepared<never>;
  readonly #findAccount: Prepared<
    { id: number; day: number | null; bytes: number | null; guards: number | null }
  >;
  readonly #putDaily: Prepared<never>;
  readonly #findTotals: Prepared<Record<string, number>>;
  readonly #updateTotals: Prepared<never>;
  readonly #findBlocks: Prepared<{ blocked: Uint8Array }>;

  readonly #queues = new Map<string, Queue>();
  readonly #queuesByKey = new Map<number, Queue>();
  readonly #accounts = new Map<string, AccountSums>();
  readonly #blocks = new Map<number, Set<string>>();
  #totals: Totals | undefined;
  #totalsDirty = false;
  #released: Released | undefined;
  readonly #countReleasedRows: () => { depth: number; bytes: number };
  /** Shares and block list members kept. */
  #detailCount = 0;
  #dirtyQueues: Queue[] = [];
  #dirtyShares: { queue: Queue; account: number; share: Share }[] = [];
  #dirtyAccounts: AccountSums[] = [];
  /** Queues that get entries in this transaction. */
  readonly touched = new TouchedQueues();
  readonly peers: Peers;

  constructor(connection: Connection) {
    this.peers = new Peers(connection);
    this.#queueById = connection.prepare(
      `${QUEUE_SQL} FROM devices d JOIN queues q ON q.device = d.id WHERE d.device_id = ?`,
    );
    this.#queueByKey = connection.prepare(
      `${QUEUE_SQL} FROM queues q JOIN devices d ON d.id = q.device WHERE q.device = ?`,
    );
    this.#updateQueue = connection.prepare(
      `UPDATE queues SET next_seq = ?, acked_through = ?, dropped_through = ?, dropped_count = ?, depth = ?,
       bytes = ?, sent_next = ? WHERE device = ?`,
    );
    this.#findShare = connection.prepare("SELECT depth, bytes FROM senders WHERE device = ? AND account = ?");
    this.#insertShare = connection.prepare(
      "INSERT INTO senders (depth, bytes, device, account) VALUES (?, ?, ?, ?)",
    );
    this.#updateShare = connection.prepare(
      "UPDATE senders SET depth = ?, bytes = ? WHERE device = ? AND account = ?",
    );
    this.#deleteShare = connection.prepare("DELETE FROM senders WHERE device = ? AND account = ?");
    this.#findAccount = connection.prepare(
      `SELECT a.id, y.day, y.bytes, y.guards FROM accounts a LEFT JOIN daily y ON y.account = a.id
       WHERE a.account_id = ? AND a.deleted_at IS NULL`,
    );
    this.#putDaily = connection.prepare(
      "REPLACE INTO daily (account, day, bytes, guards) VALUES (?, ?, ?, ?)",
    );
    this.#findTotals = connection.prepare(
      `SELECT accounts, devices, queue_entries, queue_bytes, key_packages, blobs, blob_bytes,
       outbox_entries, outbox_bytes FROM store WHERE id = 1`,
    );
    this.#updateTotals = connection.prepare(
      `UPDATE store SET accounts = ?, devices = ?, queue_entries = ?, queue_bytes = ?, key_packages = ?, blobs = ?,
       blob_bytes = ?, outbox_entries = ?, outbox_bytes = ? WHERE id = 1`,
    );
    this.#findBlocks = connection.prepare("SELECT blocked FROM blocks WHERE account = ?");
    // Counted once for each connection; there are never many (see payloads.ts).
    const countReleased = "SELECT count(*) AS depth, ifnull(sum(bytes), 0) AS bytes FROM released_payloads";
    this.#countReleasedRows = () => connection.rows<{ depth: number; bytes: number }>(countReleased)[0]!;
  }

  /** The device's queue; undefined when the device is unknown or revoked. */
  queue(deviceId: string): Queue | undefined {
    const known = this.#queues.get(deviceId);
    if (known) return known;
    const row = this.#queueById.get(Uint8Array.fromHex(deviceId));
    return row && this.#keepQueue(row);
  }

  /** {@link queue} by integer key. */
  queueByKey(device: number): Queue | undefined {
    const known = this.#queuesByKey.get(device);
    if (known) return known;
    const row = this.#queueByKey.get(device);
    return row && this.#keepQueue(row);
  }

  #keepQueue(row: QueueRow): Queue {
    const queue: Queue = {
      device: row.device,
      deviceId: hex(row.device_id),
      account: row.account,
      nextSeq: row.next_seq,
      ackedThrough: row.acked_through,
      droppedThrough: row.dropped_through,
      droppedCount: row.dropped_count,
      depth: row.depth,
      bytes: row.bytes,
      sentNext: row.sent_next,
      dirty: false,
      shares: new Map(),
    };
    this.#queues.set(queue.deviceId, queue);
    this.#queuesByKey.set(queue.device, queue);
    return queue;
  }

  /** Has the queue written at the next flush. */
  queueChanged(queue: Queue): void {
    if (queue.dirty) return;
    queue.dirty = true;
    this.#dirtyQueues.push(queue);
  }

  /** Forgets a queue whose rows are being deleted. */
  dropQueue(queue: Queue): void {
    this.#queues.delete(queue.deviceId);
    this.#queuesByKey.delete(queue.device);
    this.#dirtyQueues = this.#dirtyQueues.filter((dirty) => dirty !== queue);
    this.#dirtyShares = this.#dirtyShares.filter((dirty) => dirty.queue !== queue);
    this.touched.forget(queue);
  }

  /** What `account` holds in the queue. */
  share(queue: Queue, account: number): Share {
    const known = queue.shares.get(account);
    if (known) return known;
    const row = this.#findShare.get(queue.device, account);
    const share = { depth: row?.depth ?? 0, bytes: row?.bytes ?? 0, stored: row !== undefined, dirty: false };
    queue.shares.set(account, share);
    this.#detailCount += 1;
    return share;
  }

  /** Counts `depth` entries with `bytes` in or out of a queue; `sender` 0 is the server itself. */
  countEntries(queue: Queue, sender: number, depth: number, bytes: number): void {
    queue.depth += depth;
    queue.bytes += bytes;
    this.queueChanged(queue);
    const totals = this.changeTotals();
    totals.queueEntries += depth;
    totals.queueBytes += bytes;
    if (sender === 0) return;
    const share = this.share(queue, sender);
    share.depth += depth;
    share.bytes += bytes;
    if (share.dirty) return;
    share.dirty = true;
    this.#dirtyShares.push({ queue, account: sender, share });
  }

  /** The account's sums of `day`; undefined when it is unknown or deleted. */
  accountSums(accountId: string, day: number): AccountSums | undefined {
    const sums = this.#accounts.get(accountId) ?? this.#loadAccount(accountId);
    return sums && ofDay(sums, day);
  }

  /** The peer's sums of `day`. */
  peerSums(peer: Peer, day: number): AccountSums {
    return ofDay(this.#accounts.get(peer.domain) ?? this.#loadPeer(peer), day);
  }

  #loadPeer({ domain, account }: Peer): AccountSums {
    const sums = { account, accountId: domain, ...this.peers.daily(account), dirty: false };
    this.#accounts.set(domain, sums);
    return sums;
  }

  #loadAccount(accountId: string): AccountSums | undefined {
    const row = this.#findAccount.get(Uint8Array.fromHex(accountId));
    if (!row) return undefined;
    const { id: account, day, bytes, guards } = row;
    const sums = { account, accountId, day: day ?? 0, bytes: bytes ?? 0, guards: guards ?? 0, dirty: false };
    this.#accounts.set(accountId, sums);
    return sums;
  }

  /** Has the sums written at the next flush. */
  sumsChanged(sums: AccountSums): void {
    if (sums.dirty) return;
    sums.dirty = true;
    this.#dirtyAccounts.push(sums);
  }

  /** Forgets sums that were deleted. */
  dropSums(accountId: string): void {
    this.#accounts.delete(accountId);
    this.#dirtyAccounts = this.#dirtyAccounts.filter((dirty) => dirty.accountId !== accountId);
  }

  /** Forgets all clean sums: their rows were deleted behind the ledger's back. */
  dropCleanSums(): void {
    for (const [id, sums] of this.#accounts) if (!sums.dirty) this.#accounts.delete(id);
  }

  /** Ids of the accounts that `account` blocks. */
  blocks(account: number): ReadonlySet<string> {
    let blocked = this.#blocks.get(account);
    if (!blocked) {
      blocked = new Set(this.#findBlocks.all(account).map((row) => hex(row.blocked)));
      this.#blocks.set(account, blocked);
      this.#detailCount += blocked.size;
    }
    return blocked;
  }

  /** Forgets the block list, which is being changed. */
  dropBlocks(account: number): void {
    this.#blocks.delete(account);
  }

  /** The totals, to look at. */
  totals(): Readonly<Totals> {
    return this.#totals ??= this.#loadTotals();
  }

  /** The totals, to change; written at the next flush. */
  changeTotals(): Totals {
    this.#totalsDirty = true;
    return this.#totals ??= this.#loadTotals();
  }

  #loadTotals(): Totals {
    const row = this.#findTotals.get()!;
    return {
      accounts: row.accounts!,
      devices: row.devices!,
      queueEntries: row.queue_entries!,
      queueBytes: row.queue_bytes!,
      keyPackages: row.key_packages!,
      blobs: row.blobs!,
      blobBytes: row.blob_bytes!,
      outboxEntries: row.outbox_entries!,
      outboxBytes: row.outbox_bytes!,
    };
  }

  /** What waits to be deleted among the payloads. */
  released(): Readonly<Released> {
    return this.#released ??= { ...this.#countReleasedRows(), newDepth: 0, newBytes: 0 };
  }

  /** Counts payloads that were released (or, negative, deleted) by rows that are written already. */
  countReleased(depth: number, bytes: number): void {
    if (!this.#released) return; // they are counted when somebody asks
    this.#released.depth += depth;
    this.#released.bytes += bytes;
    this.#released.newDepth += Math.max(0, depth);
    this.#released.newBytes += Math.max(0, bytes);
  }

  /** Writes what has changed; to be called before COMMIT, and before SQL that looks at these numbers. */
  flush(): void {
    for (const queue of this.#dirtyQueues) this.#writeQueue(queue);
    for (const { queue, account, share } of this.#dirtyShares) this.#writeShare(queue.device, account, share);
    for (const sums of this.#dirtyAccounts) {
      this.#putDaily.run(sums.account, sums.day, sums.bytes, sums.guards);
      sums.dirty = false;
    }
    this.#dirtyQueues.length = this.#dirtyShares.length = this.#dirtyAccounts.length = 0;
    this.peers.flush();
    if (this.#totalsDirty && this.#totals) {
      const { accounts, devices, queueEntries, queueBytes, keyPackages, blobs, blobBytes } = this.#totals;
      const outbox = [this.#totals.outboxEntries, this.#totals.outboxBytes];
      const queues = [queueEntries, queueBytes];
      this.#updateTotals.run(accounts, devices, ...queues, keyPackages, blobs, blobBytes, ...outbox);
      this.#totalsDirty = false;
    }
  }

  #writeQueue(queue: Queue): void {
    this.#updateQueue.run(
      queue.nextSeq,
      queue.ackedThrough,
      queue.droppedThrough,
      queue.droppedCount,
      queue.depth,
      queue.bytes,
      queue.sentNext,
      queue.device,
    );
    queue.dirty = false;
  }

  #writeShare(device: number, account: number, share: Share): void {
    if (share.depth === 0) {
      if (share.stored) this.#deleteShare.run(device, account);
    } else {
      (share.stored ? this.#updateShare : this.#insertShare).run(share.depth, share.bytes, device, account);
    }
    share.stored = share.depth !== 0;
    share.dirty = false;
  }

  /** After a commit: keeps what is clean, within bounds. */
  trim(): void {
    if (this.#released) this.#released.newDepth = this.#released.newBytes = 0;
    const kept = this.#queues.size + this.#accounts.size + this.#blocks.size + this.#detailCount +
      this.peers.size;
    if (kept > KEPT_MAX) this.clear();
  }

  /** Forgets everything, as after a rollback. */
  clear(): void {
    this.#queues.clear();
    this.#queuesByKey.clear();
    this.#accounts.clear();
    this.#blocks.clear();
    this.#totals = undefined;
    this.#totalsDirty = false;
    this.#released = undefined;
    this.#detailCount = 0;
    this.#dirtyQueues.length = this.#dirtyShares.length = this.#dirtyAccounts.length = 0;
    this.touched.clear();
    this.peers.clear();
  }
}

function ofDay(sums: AccountSums, day: number): AccountSums {
  if (sums.day !== day) {
    sums.day = day;
    sums.bytes = 0;
    sums.guards = 0;
  }
  return sums;
}

/**
 * The numbers that nearly every verb of a batch touches (queues, sender shares, daily sums, totals), read once,
 * counted in memory, and kept when the batch commits: a thousand messages into one queue then count as one change
 * of it. When the rows themselves are written deferred.ts decides: SQL that looks at them has to `settle` first.
 * What is clean stays for the next batch. After a rollback everything is forgotten.
 */
import { hex } from "../../base/bytes.ts";
import type { Connection, Prepared } from "./connection.ts";
import { Deferred, type GenerationSize } from "./deferred.ts";
import type { ChangedQueue, Changes, DeferredEntry } from "./deferred_generation.ts";
import type { Released } from "./payloads.ts";
import { type Peer, Peers } from "./peers.ts";
import { Totals } from "./totals.ts";
import { TouchedQueues } from "./touched_queues.ts";

/** What one account holds in one queue. */
export interface Share {
  depth: number;
  bytes: number;
  dirty: boolean;
}

/** A device that is not revoked, and its queue. */
export interface Queue extends ChangedQueue {
  readonly deviceId: string;
  readonly account: number;
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
const KEPT_MAX = 200_000;

const QUEUE_SQL = `SELECT q.device, d.device_id, d.account, q.next_seq, q.acked_through, q.dropped_through,
  q.dropped_count, q.depth, q.bytes, q.sent_next`;

/** The numbers in memory. */
export class Ledger {
  readonly #queueById: Prepared<QueueRow>;
  readonly #queueByKey: Prepared<QueueRow>;
  readonly #findShare: Prepared<{ depth: number; bytes: number }>;
  readonly #findAccount: Prepared<
    { id: number; day: number | null; bytes: number | null; guards: number | null }
  >;
  readonly #findOldDaily: Prepared<{ day: number }>;
  readonly #findBlocks: Prepared<{ blocked: Uint8Array }>;

  readonly #queues = new Map<string, Queue>();
  readonly #queuesByKey = new Map<number, Queue>();
  readonly #accounts = new Map<string, AccountSums>();
  readonly #blocks = new Map<number, Set<string>>();
  #released: Released | undefined;
  readonly #countReleasedRows: () => { depth: number; bytes: number };
  readonly #deferred: Deferred;
  readonly #findNextPayload: () => number;
  #nextPayload: number | undefined;
  /** Shares and block list members kept. */
  #detailCount = 0;
  #dirtyQueues: Queue[] = [];
  #dirtyShares: { queue: Queue; account: number; share: Share }[] = [];
  #dirtyAccounts: AccountSums[] = [];
  /** Queues that get entries in this transaction. */
  readonly touched = new TouchedQueues();
  readonly peers: Peers;
  readonly totals: Totals;

  constructor(connection: Connection, size?: GenerationSize) {
    this.peers = new Peers(connection);
    this.totals = new Totals(connection);
    this.#deferred = new Deferred(connection, size);
    this.#findNextPayload = () => Deferred.nextPayload(connection);
    this.#queueById = connection.prepare(
      `${QUEUE_SQL} FROM devices d JOIN queues q ON q.device = d.id WHERE d.device_id = ?`,
    );
    this.#queueByKey = connection.prepare(
      `${QUEUE_SQL} FROM queues q JOIN devices d ON d.id = q.device WHERE q.device = ?`,
    );
    this.#findShare = connection.prepare("SELECT depth, bytes FROM senders WHERE device = ? AND account = ?");
    this.#findAccount = connection.prepare(
      `SELECT a.id, y.day, y.bytes, y.guards FROM accounts a LEFT JOIN daily y ON y.account = a.id
       WHERE a.account_id = ? AND a.deleted_at IS NULL`,
    );
    this.#findOldDaily = connection.prepare("SELECT day FROM daily WHERE day < ? LIMIT 1");
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
      ...this.#deferred.numbers(row.device),
      dirty: false,
      added: [],
      shares: new Map(),
    };
    this.#queues.set(queue.deviceId, queue);
    this.#queuesByKey.set(queue.device, queue);
    return queue;
  }

  /** Has the queue kept at the next flush. */
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
    const found = this.#deferred.share(queue.device, account) ?? this.#findShare.get(queue.device, account);
    const share = { depth: found?.depth ?? 0, bytes: found?.bytes ?? 0, dirty: false };
    queue.shares.set(account, share);
    this.#detailCount += 1;
    return share;
  }

  /** Counts `depth` entries with `bytes` in or out of a queue; `sender` 0 is the server itself. */
  countEntries(queue: Queue, sender: number, depth: number, bytes: number): void {
    queue.depth += depth;
    queue.bytes += bytes;
    this.queueChanged(queue);
    const totals = this.totals.change();
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
    const daily = this.#deferred.daily(account) ?? this.peers.daily(account);
    const sums = { account, accountId: domain, ...daily, dirty: false };
    this.#accounts.set(domain, sums);
    return sums;
  }

  #loadAccount(accountId: string): AccountSums | undefined {
    const row = this.#findAccount.get(Uint8Array.fromHex(accountId));
    if (!row) return undefined;
    const { id: account, day, bytes, guards } = row;
    const daily = this.#deferred.daily(account) ?? { day: day ?? 0, bytes: bytes ?? 0, guards: guards ?? 0 };
    const sums = { account, accountId, ...daily, dirty: false };
    this.#accounts.set(accountId, sums);
    return sums;
  }

  /** Are sums of a day before `day` still kept? */
  hasSumsBefore(day: number): boolean {
    return this.#findOldDaily.get(day) !== undefined || this.#deferred.hasDailyBefore(day) ||
      this.#dirtyAccounts.some((sums) => sums.day < day);
  }

  /** Has the sums kept at the next flush. */
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

  /** A key for the next payload. */
  takePayloadKey(): number {
    this.#nextPayload ??= this.#findNextPayload();
    return this.#nextPayload++;
  }

  /** Puts an entry behind all others of the queue. */
  addEntry(queue: Queue, entry: DeferredEntry): void {
    queue.added.push(entry);
    this.countEntries(queue, entry.sender, 1, entry.size);
  }

  /** The queue's entries that are not in the table yet: the newest ones, in their order. */
  deferredEntries(queue: Queue): readonly DeferredEntry[] {
    const waiting = this.#deferred.entries(queue.device);
    const all = queue.added.length === 0 ? waiting : waiting.concat(queue.added);
    if (all.length === 0 || all[0]!.seq > queue.ackedThrough) return all;
    return all.filter(({ seq }) => seq > queue.ackedThrough);
  }

  get #changes(): Changes {
    this.#nextPayload ??= this.#findNextPayload();
    return {
      queues: this.#dirtyQueues,
      shares: this.#dirtyShares,
      daily: this.#dirtyAccounts,
      find: (device) => this.#queuesByKey.get(device),
      lastPayload: this.#nextPayload - 1,
    };
  }

  /** To be called right before COMMIT. */
  flush(): void {
    this.#deferred.defer(this.#changes);
    this.#flushSums();
  }

  /** May entries of the payload wait to be written? */
  defers(payload: number): boolean {
    return this.#deferred.holds(payload);
  }

  /** Nothing is left to be written later. */
  get settled(): boolean {
    return this.#deferred.empty && this.#dirtyQueues.length === 0 && this.#dirtyAccounts.length === 0;
  }

  /**
   * Writes all that has changed, now or earlier: to be called before SQL that looks at queues, shares, entries or
   * daily sums, or changes them. Only within a transaction.
   */
  settle(): void {
    this.#deferred.writeAll(this.#changes);
    this.#forgetChanges();
    this.#flushSums();
  }

  #flushSums(): void {
    this.peers.flush();
    this.totals.flush();
  }

  #forgetChanges(): void {
    for (const queue of this.#dirtyQueues) {
      queue.dirty = false;
      queue.added.length = 0;
    }
    for (const { share } of this.#dirtyShares) share.dirty = false;
    for (const sums of this.#dirtyAccounts) sums.dirty = false;
    this.#dirtyQueues.length = this.#dirtyShares.length = this.#dirtyAccounts.length = 0;
  }

  /** To be called after COMMIT. */
  committed(): void {
    this.#deferred.committed(this.#changes);
    this.#forgetChanges();
    this.trim();
  }

  /** Between transactions: keeps what is clean, within bounds. */
  trim(): void {
    if (this.#released) this.#released.newDepth = this.#released.newBytes = 0;
    const kept = this.#queues.size + this.#accounts.size + this.#blocks.size + this.#detailCount +
      this.peers.size;
    if (kept > KEPT_MAX) this.#clear();
  }

  /** To be called after a rollback: forgets everything. */
  rolledBack(): void {
    this.#deferred.rolledBack();
    this.#clear();
  }

  /** Rows were written behind the ledger's back, after it had settled. */
  forget(): void {
    this.#flushSums();
    this.#clear();
    this.settle();
  }

  #clear(): void {
    this.#queues.clear();
    this.#queuesByKey.clear();
    this.#accounts.clear();
    this.#blocks.clear();
    this.totals.clear();
    this.#released = undefined;
    this.#nextPayload = undefined;
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

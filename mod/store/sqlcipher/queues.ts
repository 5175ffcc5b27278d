/** The verbs of QueueStore inside the worker; see store.ts for what they promise. */
import { hex } from "../../base/bytes.ts";
import type { DeviceId } from "../../base/ids.ts";
import { ID_BYTES, idOf } from "../../base/ids.ts";
import type {
  Cursor,
  EnqueueLimits,
  Entry,
  QueueStore,
  RecipientStatus,
  RemoteMessage,
  ServerNotice,
} from "../store.ts";
import type { Connection, Prepared } from "./connection.ts";
import type { DeferredEntry } from "./deferred_generation.ts";
import { type Guard, Guards } from "./guards.ts";
import type { AccountSums, Ledger, Queue } from "./ledger.ts";
import { MessageIds } from "./message_ids.ts";
import type { Outbox } from "./outbox.ts";
import type { Peer } from "./peers.ts";
import { Payloads } from "./payloads.ts";

/** A message as the worker gets it: what only goes into the database stays bytes. */
export interface IncomingMessage {
  readonly origin: string | null;
  readonly remote: readonly RemoteMessage[];
  readonly senderAccount: string;
  readonly senderDevice: string;
  readonly messageId: Uint8Array;
  readonly requestSha256: Uint8Array;
  readonly entryId: Uint8Array;
  readonly parts: readonly { readonly payload: Uint8Array; readonly recipients: readonly string[] }[];
  readonly expiresAt: number;
  readonly commitsTo: readonly Uint8Array[];
  readonly behind: readonly Uint8Array[];
  readonly guard: Guard | null;
  readonly limits: EnqueueLimits;
  readonly now: number;
}

type EnqueueResult = Awaited<ReturnType<QueueStore["enqueue"]>>;
type Fetch = Parameters<QueueStore["fetchAfter"]>[0];
type FetchResult = Awaited<ReturnType<QueueStore["fetchAfter"]>>;
type AckResult = Awaited<ReturnType<QueueStore["ack"]>>;

interface StoredEntry extends StoredPayload {
  seq: number;
  sender: number;
}

interface StoredPayload {
  entry_id: Uint8Array;
  account_id: Uint8Array | null;
  sender_device: Uint8Array | null;
  accepted_at: number;
  expires_at: number;
  bytes: Uint8Array;
}

/** What a fetch has gathered. */
interface Page {
  readonly entries: Entry[];
  bytes: number;
  /** There are others behind it. */
  more: boolean;
}

/** Who sends: a device or a peer, what counts for it, and the ids that its entries carry. */
interface MessageSender {
  readonly own: Queue | Peer;
  readonly sums: AccountSums;
  readonly ids: string;
}

const DAY_MS = 86_400_000;
/** Released payloads that are deleted in a step of expiry, for each entry that may expire in it, and their bytes. */
const SWEEPS_PER_STEP = 8;
const SWEEP_BYTES = 8 << 20;

/** Queues, message ids and guards. */
export class Queues {
  readonly #ledger: Ledger;
  readonly #payloads: Payloads;
  readonly #guards: Guards;
  readonly #messageIds: MessageIds;
  readonly #outbox: Outbox;
  readonly #expireDaily: Prepared<never>;
  readonly #findPage: Prepared<{ last: number | null; count: number; found: number }>;
  readonly #listEntries: Prepared<StoredEntry>;
  readonly #findPayload: Prepared<StoredPayload>;

  constructor(connection: Connection, { ledger, outbox }: { ledger: Ledger; outbox: Outbox }) {
    this.#ledger = ledger;
    this.#outbox = outbox;
    this.#payloads = new Payloads(connection, ledger);
    this.#guards = new Guards(connection, ledger);
    this.#messageIds = new MessageIds(connection, { ledger, peers: ledger.peers });
    this.#expireDaily = connection.prepare("DELETE FROM daily WHERE day < ? ORDER BY day LIMIT ?");
    // The first entry always fits; of the others as many as entriesMax and bytesMax allow.
    this.#findPage = connection.prepare(
      `SELECT max(CASE WHEN fits THEN seq END) AS last, ifnull(sum(fits), 0) AS count, count(*) AS found FROM (
         SELECT seq, number = 1 OR (number <= ? AND through <= ?) AS fits FROM (
           SELECT seq, row_number() OVER seqs AS number, sum(size) OVER seqs AS through FROM (
             SELECT seq, size FROM entries WHERE device = ? AND seq > ? AND expires_at > ? ORDER BY seq LIMIT ?)
           WINDOW seqs AS (ORDER BY seq ROWS UNBOUNDED PRECEDING)))`,
    );
    this.#listEntries = connection.prepare(
      `SELECT e.seq, e.sender, p.entry_id, a.account_id, p.sender_device, p.accepted_at, p.expires_at, p.bytes
       FROM entries e JOIN payloads p ON p.id = e.payload LEFT JOIN accounts a ON a.id = e.sender
       WHERE e.device = ? AND e.seq > ? AND e.seq <= ? AND e.expires_at > ? ORDER BY e.seq`,
    );
    this.#findPayload = connection.prepare(
      `SELECT p.entry_id, a.account_id, p.sender_device, p.accepted_at, p.expires_at, p.bytes
       FROM payloads p LEFT JOIN accounts a ON a.id = p.sender WHERE p.id = ?`,
    );
  }

  enqueue(message: IncomingMessage): EnqueueResult {
    const { limits, now } = message;
    const day = Math.floor(now / DAY_MS);
    const refused = { status: "quotaExceeded", retryAfterMs: (day + 1) * DAY_MS - now } as const;
    const sender = this.#senderOf(message, day);
    // Deleted or revoked while its last request was on the way: nothing may be sent any more.
    if (!sender) return refused;
    const { sums } = sender;
    const replay = this.#messageIds.replay(message, sums.account);
    if (replay) return replay;
    const context = { commitsTo: message.commitsTo, sums, guardsPerDay: limits.guardsPerDay };
    const verdict = this.#guards.judge(message.guard, context);
    if (verdict.status !== "pass") return verdict;
    const overtakes = message.behind.some((id) => !this.#messageIds.has(id, sums.account));
    if (overtakes) return { status: "heldBack" };
    let cost = 0;
    for (const { payload, recipients } of message.parts) cost += payload.length * recipients.length;
    for (const { body, recipients } of message.remote) cost += body.length * recipients;
    if (sums.bytes + cost > limits.senderBytesPerDay) return refused;
    if (message.guard) this.#guards.advance(message.guard, { begins: verdict.begins, sums, now });
    sums.bytes += cost;
    this.#ledger.sumsChanged(sums);
    return this.#accept(message, sender);
  }

  #senderOf(message: IncomingMessage, day: number): MessageSender | undefined {
    if (message.origin !== null) {
      const own = this.#ledger.peers.get(message.origin);
      return {
        own,
        sums: this.#ledger.peerSums(own, day),
        ids: message.senderDevice + message.senderAccount,
      };
    }
    const sums = this.#ledger.accountSums(message.senderAccount, day);
    const own = this.#ledger.queue(message.senderDevice);
    if (!sums || !own || own.account !== sums.account) return undefined;
    return { own, sums, ids: message.senderDevice };
  }

  #accept(message: IncomingMessage, { own, sums, ids }: MessageSender): EnqueueResult {
    const { entryId, expiresAt, now } = message;
    const statuses: RecipientStatus[] = [];
    for (const { payload, recipients } of message.parts) {
      // A set: a device named twice in one part gets one entry for it.
      const queues = new Set<Queue>();
      for (const deviceId of recipients) {
        const queue = this.#ledger.queue(deviceId);
        const status = queue
          ? this.#admit(queue, { message, sums, size: payload.length, queues })
          : "unknownDevice";
        statuses.push(status);
        if (queue && status === "ok") queues.add(queue);
      }
      const senderDevice = Uint8Array.fromHex(ids);
      const delivery = { entryId, sender: sums.account, senderDevice, acceptedAt: now, expiresAt, payload };
      this.#payloads.deliver(delivery, [...queues]);
    }
    const remote = this.#outbox.add(message);
    this.#messageIds.remember(message, own, { recipients: statuses, remote });
    return { status: "accepted", replayed: false, recipients: statuses, remote, acceptedAt: now, expiresAt };
  }

  /** What becomes of one recipient; `queues` get this part already. */
  #admit(
    queue: Queue,
    part: { message: IncomingMessage; sums: AccountSums; size: number; queues: ReadonlySet<Queue> },
  ): RecipientStatus {
    const { message, sums, size } = part;
    const { limits } = message;
    if (part.queues.has(queue)) return "ok";
    if (this.#ledger.blocks(queue.account).has(message.senderAccount)) return "blocked";
    let full = queue.depth + 1 > limits.queueDepthMax || queue.bytes + size > limits.queueBytesMax;
    if (!full && queue.account !== sums.account) {
      const share = this.#ledger.share(queue, sums.account);
      full = share.depth + 1 > limits.queueDepthMax * limits.senderShare ||
        share.bytes + size > limits.queueBytesMax * limits.senderShare;
    }
    if (!full) return "ok";
    queue.droppedThrough = Math.max(queue.droppedThrough, queue.nextSeq - 1);
    queue.droppedCount += 1;
    this.#ledger.queueChanged(queue);
    return "queueFull";
  }

  /** Puts a notice of the server into the queues, whether full or not. */
  notify(devices: readonly string[], notice: ServerNotice, now: number): void {
    const queues = devices.map((deviceId) => this.#ledger.queue(deviceId)).filter((queue) =>
      queue !== undefined
    );
    const { payload, expiresAt } = notice;
    const entryId = Uint8Array.fromHex(notice.entryId);
    const delivery = { entryId, sender: 0, senderDevice: null, acceptedAt: now, expiresAt, payload };
    this.#payloads.deliver(delivery, queues);
  }

  fetchAfter(fetch: Fetch): FetchResult {
    const queue = this.#ledger.queue(fetch.deviceId);
    if (!queue) return null;
    const cursor = cursorOf(queue);
    const deferred = this.#ledger.deferredEntries(queue);
    const page: Page = { entries: [], bytes: 0, more: false };
    if (deferred.length < queue.depth) this.#readTable(queue, fetch, page);
    this.#readDeferred(deferred, fetch, page);
    return { entries: page.entries, more: page.more, cursor };
  }

  #readTable({ device }: Queue, { after, entriesMax, bytesMax, now }: Fetch, page: Page): void {
    const wanted = Math.max(1, entriesMax);
    const { last, count, found } = this.#findPage.get(wanted, bytesMax, device, after, now, wanted + 1)!;
    if (last === null) return;
    for (const row of this.#listEntries.all(device, after, last, now)) {
      page.entries.push(this.#entryOf(row));
      page.bytes += row.bytes.length;
    }
    page.more = found > count;
  }

  /** Goes on with what is not in the table yet. */
  #readDeferred(
    deferred: readonly DeferredEntry[],
    { after, entriesMax, bytesMax, now }: Fetch,
    page: Page,
  ): void {
    for (const { seq, payload, sender, size, expiresAt } of deferred) {
      if (page.more) return;
      if (seq <= after || expiresAt <= now) continue;
      const { entries } = page;
      page.more = entries.length > 0 && (entries.length >= entriesMax || page.bytes + size > bytesMax);
      if (page.more) return;
      entries.push(this.#entryOf({ seq, sender, ...this.#findPayload.get(payload)! }));
      page.bytes += size;
    }
  }

  #entryOf(row: StoredEntry): Entry {
    const { sender, sender_device: ids } = row;
    const remote = sender < 0;
    return {
      seq: row.seq,
      kind: sender === 0 ? "notice" : "message",
      entryId: idOf(row.entry_id),
      senderAccount: remote ? idOf(ids!.subarray(ID_BYTES)) : row.account_id && idOf(row.account_id),
      senderDevice: remote ? idOf(ids!.subarray(0, ID_BYTES)) : ids && hex(ids) as DeviceId,
      senderDomain: remote ? this.#ledger.peers.byKey(-sender)!.domain : null,
      payload: row.bytes,
      acceptedAt: row.accepted_at,
      expiresAt: row.expires_at,
    };
  }

  ack(deviceId: DeviceId, through: number): AckResult {
    const queue = this.#ledger.queue(deviceId);
    if (!queue) return { status: "noDevice" };
    if (through >= queue.nextSeq) return { status: "beyondEnd" };
    const deleted = through > queue.ackedThrough ? this.#payloads.acknowledge(queue, through) : 0;
    return { status: "acked", deleted, cursor: cursorOf(queue) };
  }

  cursor(deviceId: DeviceId): Cursor | null {
    const queue = this.#ledger.queue(deviceId);
    return queue ? cursorOf(queue) : null;
  }

  expireEntries(now: number, limit: number): number {
    // Nobody else deletes the last of the released ones while nothing is acknowledged.
    this.#payloads.sweep(SWEEPS_PER_STEP * limit, SWEEP_BYTES);
    return this.#payloads.deleteExpired(now, limit);
  }

  /** See Payloads.sweepWhenDue. */
  sweepWhenDue(): void {
    this.#payloads.sweepWhenDue();
  }

  expireMessageIds(before: number, limit: number, { remoteBefore } = { remoteBefore: before }): number {
    const messages = this.#messageIds.expire(before, limit, remoteBefore);
    const day = Math.floor(before / DAY_MS);
    if (!this.#ledger.hasSumsBefore(day)) return messages;
    this.#ledger.settle();
    const days = this.#expireDaily.run(day, limit - messages);
    if (days > 0) this.#ledger.dropCleanSums();
    return messages + days;
  }

  expireGuards(before: number, limit: number): number {
    return this.#guards.expire(before, limit);
  }

  /** See AdminStore.purgeQueue. */
  purge(deviceId: DeviceId): number | null {
    const queue = this.#ledger.queue(deviceId);
    if (!queue) return null;
    this.#ledger.settle();
    const count = this.#payloads.deleteThrough(queue, queue.nextSeq);
    if (count === 0) return 0;
    queue.droppedThrough = Math.max(queue.droppedThrough, queue.nextSeq - 1);
    queue.droppedCount += count;
    this.#ledger.queueChanged(queue);
    return count;
  }

  /** Deletes all entries of a queue that is being dropped; the ledger has settled. */
  empty(queue: Queue): void {
    this.#payloads.deleteThrough(queue, queue.nextSeq);
  }
}

function cursorOf(queue: Queue): Cursor {
  const { ackedThrough, nextSeq, droppedThrough, droppedCount } = queue;
  return { ackedThrough, nextSeq, droppedThrough, droppedCount };
}

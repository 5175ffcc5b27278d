/**
 * Rules of delivery: what may be enqueued, how it is fetched, waited for, pushed and acknowledged. Quotas and
 * time are decided here and applied by the store inside its transaction.
 */
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import {
  type AccountId,
  type DeviceId,
  type EntryId,
  type GroupId,
  type MessageId,
  randomId,
} from "../base/ids.ts";
import type { Metrics } from "../observe/metrics.ts";
import type {
  Accepted,
  Cursor,
  EnqueueLimits,
  EnqueuePart,
  Entry,
  RemoteStatus,
  Store,
} from "../store/store.ts";
import { checkGuard, checkParts, requestHash, sha256Sync } from "./enqueue_rules.ts";
import { HeldBackError } from "./held_back.ts";
import { Subscription } from "./subscription.ts";
import { Waiters } from "./waiters.ts";

/** Bounds of delivery. Durations in ms. */
export interface DeliveryLimits {
  readonly partsMax: number;
  readonly recipientsMax: number;
  readonly payloadBytesMax: number;
  /** All payloads of one Enqueue. */
  readonly enqueueBytesMax: number;
  readonly ttlDefaultMs: number;
  readonly ttlMaxMs: number;
  readonly fetchEntriesMax: number;
  readonly fetchBytesMax: number;
  readonly waitMsMax: number;
  readonly waitersMax: number;
  readonly enqueue: EnqueueLimits;
  /** For what other servers bring: shares, bytes a day, ids and guards count for the origin. */
  readonly relayed: EnqueueLimits;
}

/** Who is asking: a logged-in device. */
export interface Caller {
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
}

/** A guard as the sender gives it. */
export interface GuardRequest {
  readonly groupId: GroupId;
  readonly epoch: number;
  /** 32 bytes. */
  readonly token: Uint8Array;
  readonly nextTokenSha256: Uint8Array;
}

/** What the MLS header of a payload says about a commit in it. */
export interface CommitHeader {
  readonly groupId: GroupId;
  readonly epoch: number;
  /** A new_member_commit (RFC 9420 §12.4.3.2). */
  readonly external: boolean;
}

/** What of an Enqueue is for another server. */
export interface RemoteRequest {
  readonly domain: string;
  /** For each part of the request, the devices there that get it. */
  readonly recipients: readonly (readonly DeviceId[])[];
  /** As it will be sent there; null: it does not go into the outbox, but belongs to what makes a request the same. */
  readonly body: Uint8Array | null;
}

/** The result of an accepted message; `remote` has a status for each of the request's with a body, in their order. */
export type EnqueueResult = Accepted & { readonly remote: readonly RemoteStatus[]; readonly ttlMs: number };

/** An Enqueue in this module's terms. */
export interface EnqueueRequest {
  readonly messageId: MessageId;
  readonly parts: readonly EnqueuePart[];
  /** Each domain once. A part may have recipients on other servers only. */
  readonly remote?: readonly RemoteRequest[];
  /** 0: the default. */
  readonly ttlMs: number;
  readonly guard: GuardRequest | null;
  /** The commits among the payloads, by their headers. */
  readonly commits: readonly CommitHeader[];
  /** Messages of the same sender or origin that it must not overtake: {@link HeldBackError} until all are accepted. */
  readonly behind?: readonly MessageId[];
}

/** A message that another server has brought, with the ids of a sender that it vouches for. */
export interface RelayedRequest extends Omit<EnqueueRequest, "remote"> {
  readonly senderAccount: AccountId;
  readonly senderDevice: DeviceId;
}

/** Which entries are wanted; 0 means the largest allowed. */
export interface FetchWindow {
  readonly after: number;
  readonly entriesMax: number;
  readonly bytesMax: number;
}

/** The right to hold a large answer; see {@link Delivery.fetchWait}. */
export interface Turn {
  take(): Promise<void>;
  giveBack(): void;
}

/** Entries and where the queue stands. */
export interface Fetched {
  readonly entries: Entry[];
  readonly cursor: Cursor;
  /** Nothing waits behind the last entry. */
  readonly empty: boolean;
}

/** Who sends, and what holds for that. */
export interface MessageSender {
  readonly origin: string | null;
  readonly senderAccount: AccountId;
  readonly senderDevice: DeviceId;
  readonly limits: EnqueueLimits;
}

/** Delivery queues with their rules. */
export class Delivery implements Disposable {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #metrics: Metrics;
  readonly #limits: DeliveryLimits;
  readonly #subscriptions = new Map<DeviceId, Subscription>();
  readonly #unlisten: () => void;
  /** Parked waits; shown as a gauge. */
  readonly waiters: Waiters;

  constructor(deps: { store: Store; clock: Clock; metrics: Metrics; limits: DeliveryLimits }) {
    this.#store = deps.store;
    this.#clock = deps.clock;
    this.#metrics = deps.metrics;
    this.#limits = deps.limits;
    const { clock, limits } = deps;
    this.waiters = new Waiters({
      clock,
      get max() {
        return limits.waitersMax;
      },
    });
    this.#unlisten = deps.store.onEnqueued((devices, fresh) => {
      // A subscriber takes precedence over parked waits.
      for (const deviceId of devices) {
        const subscription = this.#subscriptions.get(deviceId);
        if (subscription) subscription.offer(fresh(deviceId));
        else this.waiters.wake([deviceId]);
      }
    });
  }

  /** Running subscriptions. */
  get subscriptionCount(): number {
    return this.#subscriptions.size;
  }

  /**
   * Accepts a message; resolves when it is on disk. `idConflict`, `guardRequired`, `guardMismatch`, `wrongEpoch`,
   * `quotaExceeded`, `payloadTooLarge`, `malformedRequest` refuse it whole.
   */
  enqueue(caller: Caller, request: EnqueueRequest): Promise<EnqueueResult> {
    const sender = { origin: null, senderAccount: caller.accountId, senderDevice: caller.deviceId };
    return this.#enqueue(request, { ...sender, limits: this.#limits.enqueue });
  }

  /**
   * Accepts a message that the server of `origin` has brought, as {@link enqueue} does: its own part of a message to
   * several servers, or a commit whose guard this server keeps. Ids are remembered by (origin, message id).
   */
  enqueueFrom(origin: string, request: RelayedRequest): Promise<EnqueueResult> {
    const { senderAccount, senderDevice } = request;
    return this.#enqueue(request, { origin, senderAccount, senderDevice, limits: this.#limits.relayed });
  }

  /** Throws what {@link enqueue} would throw for the request's own sake, whatever the store holds. */
  check(request: EnqueueRequest): void {
    checkParts(request, this.#limits);
    checkGuard(request);
  }

  /** What a time to live is clamped to, in ms. */
  ttlOf(ttlMs: number): number {
    return Math.min(ttlMs || this.#limits.ttlDefaultMs, this.#limits.ttlMaxMs);
  }

  async #enqueue(request: EnqueueRequest, sender: MessageSender): Promise<EnqueueResult> {
    const remote = request.remote ?? [];
    // A commit is judged here also when no device of this server gets it.
    const mayBeForNobody = sender.origin !== null && request.guard !== null;
    const bytes = checkParts({ parts: request.parts, remote, mayBeForNobody }, this.#limits);
    checkGuard(request);
    const ttlMs = this.ttlOf(request.ttlMs);
    const now = this.#clock.now();
    const result = await this.#store.enqueue({
      ...sender,
      messageId: request.messageId,
      requestSha256: requestHash(request, sender),
      entryId: randomId<EntryId>(),
      parts: request.parts,
      remote: remote.flatMap(({ domain, body, recipients }) =>
        body ? { domain, body, recipients: recipients.flat().length } : []
      ),
      expiresAt: now + ttlMs,
      commitsTo: request.commits.map((commit) => commit.groupId),
      behind: request.behind ?? [],
      guard: request.guard && {
        groupId: request.guard.groupId,
        epoch: request.guard.epoch,
        tokenSha256: sha256Sync(request.guard.token),
        nextTokenSha256: request.guard.nextTokenSha256,
      },
      now,
    });
    switch (result.status) {
      case "accepted":
        if (!result.replayed) {
          this.#metrics.enqueueTotal.inc();
          this.#metrics.enqueueBytesTotal.inc(bytes);
          const full = [...result.recipients, ...result.remote].includes("queueFull");
          if (full) this.#metrics.rateLimitHit("queue");
        }
        return { ...result, ttlMs: result.expiresAt - result.acceptedAt };
      case "wrongEpoch":
        throw new QpqError("wrongEpoch", `Cannot commit as the epoch is ${result.currentEpoch}`, {
          currentEpoch: result.currentEpoch,
        });
      case "quotaExceeded":
        this.#metrics.rateLimitHit("senderBytesPerDay");
        throw new QpqError("quotaExceeded", "Cannot enqueue as the sender's daily bytes are used up", {
          retryAfterMs: result.retryAfterMs,
        });
      case "guardLimit":
        this.#metrics.rateLimitHit("guardsPerDay");
        throw new QpqError("rateLimited", "Cannot guard another new group today", {
          retryAfterMs: 3_600_000,
        });
      case "heldBack":
        throw new HeldBackError();
      case "idConflict":
      case "guardRequired":
        throw new QpqError(result.status, `Cannot enqueue: ${result.status}`);
    }
  }

  /** Entries behind `window.after`, without waiting. */
  async fetch(caller: Caller, window: FetchWindow): Promise<Fetched> {
    const fetched = await this.#fetch(caller.deviceId, window);
    if (fetched.entries.length > 0) this.#metrics.fetchTotal.inc();
    return fetched;
  }

  /**
   * Like {@link fetch}, but waits for an entry for at most `timeoutMs`. `cancelled` ends the wait when the
   * caller is gone. `turn` is held while the queue is read, and given back while nothing is there.
   */
  async fetchWait(
    caller: Caller,
    wait: { window: FetchWindow; timeoutMs: number; cancelled: AbortSignal; turn?: Turn },
  ): Promise<Fetched> {
    const timeoutMs = Math.min(wait.timeoutMs || this.#limits.waitMsMax, this.#limits.waitMsMax);
    const deadline = this.#clock.monotonic() + timeoutMs;
    let waited = false;
    while (true) {
      const leftMs = deadline - this.#clock.monotonic();
      // Parked before the look into the queue, so that nothing can come between the two.
      const waiter = this.waiters.park(caller.deviceId, Math.max(0, leftMs));
      const onCancel = () => waiter.end("cancelled");
      wait.cancelled.addEventListener("abort", onCancel, { once: true });
      try {
        await wait.turn?.take();
        const fetched = await this.#fetch(caller.deviceId, wait.window);
        if (fetched.entries.length > 0) {
          this.#metrics.fetchTotal.inc();
          return fetched;
        }
        wait.turn?.giveBack();
        if (leftMs <= 0 || wait.cancelled.aborted) return fetched;
        if (!waited) this.#metrics.fetchWaitTotal.inc();
        waited = true;
        if (await waiter.woken !== "entries") return fetched;
      } finally {
        waiter.end("cancelled");
        wait.cancelled.removeEventListener("abort", onCancel);
      }
    }
  }

  /** Deletes the device's entries up to `through`, and gives its subscriber the credit back. */
  async ack(caller: Caller, through: number): Promise<{ deleted: number; cursor: Cursor }> {
    const result = await this.#store.ack(caller.deviceId, through);
    switch (result.status) {
      case "acked":
        this.#subscriptions.get(caller.deviceId)?.acked(through);
        return result;
      case "beyondEnd":
        throw new QpqError("ackBeyondEnd", `Cannot ack ${through} as it was not assigned yet`);
      case "noDevice":
        throw new QpqError("deviceRevoked", "Cannot ack as the device is gone");
    }
  }

  /** Where the device's queue stands. */
  async cursor(caller: Caller): Promise<Cursor> {
    const cursor = await this.#store.cursor(caller.deviceId);
    if (!cursor) throw new QpqError("deviceRevoked", "Cannot subscribe as the device is gone");
    return cursor;
  }

  /**
   * Pushes entries behind `after` until `gone` aborts (resolves) or a newer subscriber of this device takes
   * over (rejects with `replaced`).
   */
  async subscribe(
    caller: Caller,
    request: {
      after: number;
      creditBytes: number;
      push: (entries: Entry[], cursor: Cursor) => Promise<void>;
      gone: AbortSignal;
    },
  ): Promise<void> {
    if (this.#subscriptions.size >= this.#limits.waitersMax) {
      throw new QpqError("overloaded", "Cannot add another subscriber", { retryAfterMs: 5000 });
    }
    const subscription = new Subscription({
      after: request.after,
      creditBytes: request.creditBytes,
      push: async (entries, cursor) => {
        await request.push(entries, cursor);
        this.#metrics.fetchTotal.inc();
      },
      fetch: (after, bytesMax, entriesMax) => this.#fetch(caller.deviceId, { after, bytesMax, entriesMax }),
    });
    this.#subscriptions.get(caller.deviceId)?.end(new QpqError("replaced", "A newer subscriber took over"));
    this.#subscriptions.set(caller.deviceId, subscription);
    const onGone = () => subscription.end("closed");
    request.gone.addEventListener("abort", onGone, { once: true });
    if (request.gone.aborted) onGone();
    try {
      await subscription.run();
    } finally {
      request.gone.removeEventListener("abort", onGone);
      if (this.#subscriptions.get(caller.deviceId) === subscription) {
        this.#subscriptions.delete(caller.deviceId);
        // What it was told of instead of them may never have arrived.
        this.waiters.wake([caller.deviceId]);
      }
    }
  }

  /** Waits may be parked again. */
  endDrain(): void {
    this.waiters.endDrain();
  }

  /** Answers parked waits and ends subscriptions; waits also from now on. */
  drain(): void {
    this.waiters.drain();
    for (const subscription of this.#subscriptions.values()) {
      subscription.end(new QpqError("shuttingDown", "The server is shutting down", { retryAfterMs: 1000 }));
    }
  }

  [Symbol.dispose](): void {
    this.#unlisten();
    this.drain();
  }

  async #fetch(deviceId: DeviceId, window: FetchWindow): Promise<Fetched> {
    const { fetchEntriesMax, fetchBytesMax } = this.#limits;
    const result = await this.#store.fetchAfter({
      deviceId,
      after: window.after,
      entriesMax: Math.min(window.entriesMax || fetchEntriesMax, fetchEntriesMax),
      bytesMax: Math.min(window.bytesMax || fetchBytesMax, fetchBytesMax),
      now: this.#clock.now(),
    });
    if (!result) throw new QpqError("deviceRevoked", "Cannot fetch as the device is gone");
    return { entries: result.entries, cursor: result.cursor, empty: !result.more };
  }
}

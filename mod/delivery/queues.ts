/**
 * Rules of delivery: what may be enqueued, how it is fetched, waited for, pushed and acknowledged. Quotas and
 * time are decided here and applied by the store inside its transaction.
 */
import { createHash } from "node:crypto";
import { type Bytes, hex } from "../base/bytes.ts";
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
import type { Accepted, Cursor, EnqueueLimits, EnqueuePart, Entry, Store } from "../store/store.ts";
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

/** An Enqueue in this module's terms. */
export interface EnqueueRequest {
  readonly messageId: MessageId;
  readonly parts: readonly EnqueuePart[];
  /** 0: the default. */
  readonly ttlMs: number;
  readonly guard: GuardRequest | null;
  /** The commits among the payloads, by their headers. */
  readonly commits: readonly CommitHeader[];
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
  async enqueue(caller: Caller, request: EnqueueRequest): Promise<Accepted & { ttlMs: number }> {
    const bytes = this.#checkParts(request.parts);
    checkGuard(request);
    const ttlMs = Math.min(request.ttlMs || this.#limits.ttlDefaultMs, this.#limits.ttlMaxMs);
    const now = this.#clock.now();
    const result = await this.#store.enqueue({
      senderAccount: caller.accountId,
      senderDevice: caller.deviceId,
      messageId: request.messageId,
      requestSha256: requestHash(request),
      entryId: randomId<EntryId>(),
      parts: request.parts,
      expiresAt: now + ttlMs,
      commitsTo: request.commits.map((commit) => commit.groupId),
      guard: request.guard && {
        groupId: request.guard.groupId,
        epoch: request.guard.epoch,
        tokenSha256: sha256Sync(request.guard.token),
        nextTokenSha256: request.guard.nextTokenSha256,
      },
      limits: this.#limits.enqueue,
      now,
    });
    switch (result.status) {
      case "accepted":
        if (!result.replayed) {
          this.#metrics.enqueueTotal.inc();
          this.#metrics.enqueueBytesTotal.inc(bytes);
          if (result.recipients.includes("queueFull")) this.#metrics.rateLimitHit("queue");
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

  /** Checks the bounds of an Enqueue; returns its payload bytes, each payload once. */
  #checkParts(parts: readonly EnqueuePart[]): number {
    const { partsMax, recipientsMax, payloadBytesMax, enqueueBytesMax } = this.#limits;
    if (parts.length < 1 || parts.length > partsMax) {
      throw new QpqError("malformedRequest", `Parts must be 1..${partsMax}: ${parts.length}`);
    }
    let bytes = 0;
    let recipients = 0;
    for (const part of parts) {
      if (part.payload.length === 0 || part.recipients.length === 0) {
        throw new QpqError("malformedRequest", "A part needs a payload and a recipient");
      }
      if (part.payload.length > payloadBytesMax) {
        throw new QpqError(
          "payloadTooLarge",
          `Payload must be <= ${payloadBytesMax}: ${part.payload.length}`,
        );
      }
      bytes += part.payload.length;
      recipients += part.recipients.length;
    }
    if (recipients > recipientsMax) {
      throw new QpqError("malformedRequest", `Recipients must be <= ${recipientsMax}: ${recipients}`);
    }
    if (bytes > enqueueBytesMax) {
      throw new QpqError("payloadTooLarge", `Payloads together must be <= ${enqueueBytesMax}: ${bytes}`);
    }
    return bytes;
  }
}

/** A guard belongs to exactly one commit of its group and epoch, which is no external one. */
function checkGuard({ guard, commits }: EnqueueRequest): void {
  if (!guard) return;
  const agrees = commits.length === 1 && commits[0]!.groupId === guard.groupId &&
    commits[0]!.epoch === guard.epoch && !commits[0]!.external;
  if (!agrees) {
    throw new QpqError("guardMismatch", "The guard needs exactly one commit of its group and epoch");
  }
}

function sha256Sync(bytes: Uint8Array): Bytes {
  return new Uint8Array(createHash("sha256").update(bytes).digest());
}

/** SHA-256 over everything that makes two requests the same one: all but the payloads as text, then the payloads. */
function requestHash({ ttlMs, parts, guard }: EnqueueRequest): Bytes {
  const shape = JSON.stringify([
    ttlMs,
    parts.map(({ payload, recipients }) => [payload.length, recipients]),
    guard && [guard.groupId, guard.epoch, hex(guard.token), hex(guard.nextTokenSha256)],
  ]);
  const hash = createHash("sha256").update(shape);
  for (const { payload } of parts) hash.update(payload);
  return new Uint8Array(hash.digest());
}

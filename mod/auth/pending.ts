/**
 * Exchanges between their first and second half. Each lives once, for a limited time, on one connection, and
 * there is a bound to how many one connection and all together may have.
 */
import { randomBytes } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import type { ConnectionAuth, Pending, PendingWork } from "./connection_auth.ts";

/** How long a peer has for its half. */
export const PENDING_MS = 60_000;

/** Exchanges that one connection may have begun. */
export const PENDING_PER_CONNECTION_MAX = 4;

/** Exchanges that all connections together may have begun, unless configured. About 1 kB each. */
export const PENDING_MAX = 4096;

/** All exchanges of a server. */
export class PendingExchanges {
  readonly #clock: Clock;
  readonly #max: number;
  readonly #onAbandoned: (auth: ConnectionAuth, work: PendingWork) => void;
  #count = 0;

  constructor(
    clock: Clock,
    options: { max: number; onAbandoned: (auth: ConnectionAuth, work: PendingWork) => void },
  ) {
    this.#clock = clock;
    this.#max = options.max;
    this.#onAbandoned = options.onAbandoned;
  }

  /** Exchanges begun and not finished. */
  get count(): number {
    return this.#count;
  }

  /**
   * Does the first half and remembers its `work` under the returned handle. The place is taken before, so that
   * requests sent at once cannot exceed the bounds. `rateLimited` or `overloaded` when there is no place.
   */
  async begin<Answer>(
    auth: ConnectionAuth,
    firstHalf: () => Promise<{ work: PendingWork; answer: Answer }>,
  ): Promise<{ handle: number; answer: Answer }> {
    if (auth.pending.size + auth.starting >= PENDING_PER_CONNECTION_MAX) {
      const message = `Cannot begin another exchange as a connection may have ${PENDING_PER_CONNECTION_MAX}`;
      throw new QpqError("rateLimited", message, { retryAfterMs: PENDING_MS });
    }
    if (this.#count >= this.#max) {
      const message = `Cannot begin another exchange as the server may have ${this.#max}`;
      throw new QpqError("overloaded", message, { retryAfterMs: PENDING_MS / 10 });
    }
    this.#count++;
    auth.starting++;
    let kept = false;
    try {
      const { work, answer } = await firstHalf();
      // When the connection is gone meanwhile, nobody has seen the answer: nothing to remember or to count.
      kept = !auth.closed;
      return { handle: kept ? this.#keep(auth, work) : 0, answer };
    } finally {
      auth.starting--;
      if (!kept) this.#count--;
    }
  }

  /** Takes the work of a handle, if it is of this kind and not too old. Works once. */
  take<Kind extends PendingWork["kind"]>(
    auth: ConnectionAuth,
    handle: number,
    kind: Kind,
  ): Extract<PendingWork, { kind: Kind }> | null {
    const pending = auth.pending.get(handle);
    if (!pending || pending.work.kind !== kind) return null;
    this.#forget(auth, handle, pending);
    if (this.#clock.monotonic() >= pending.expiresAt) {
      this.#onAbandoned(auth, pending.work); // the timer is late
      return null;
    }
    return pending.work as Extract<PendingWork, { kind: Kind }>;
  }

  /** Drops what the connection has begun. */
  abandonAll(auth: ConnectionAuth): void {
    for (const [handle, pending] of [...auth.pending]) {
      this.#forget(auth, handle, pending);
      this.#onAbandoned(auth, pending.work);
    }
  }

  #keep(auth: ConnectionAuth, work: PendingWork): number {
    let handle = 0;
    while (handle === 0 || auth.pending.has(handle)) {
      handle = new DataView(randomBytes(4).buffer).getUint32(0);
    }
    const cancelTimer = this.#clock.after(PENDING_MS, () => {
      const pending = auth.pending.get(handle);
      if (pending?.cancelTimer !== cancelTimer) return;
      this.#forget(auth, handle, pending);
      this.#onAbandoned(auth, work);
    });
    auth.pending.set(handle, { work, expiresAt: this.#clock.monotonic() + PENDING_MS, cancelTimer });
    return handle;
  }

  #forget(auth: ConnectionAuth, handle: number, pending: Pending): void {
    pending.cancelTimer();
    auth.pending.delete(handle);
    this.#count--;
  }
}

/**
 * Who waits for entries of which device: parked FetchWaits and subscribers. Woken by the store's notification
 * hook. Holds no entries and reads no store.
 */
import { QpqError } from "../base/errors.ts";
import type { Clock } from "../base/clock.ts";
import type { DeviceId } from "../base/ids.ts";

/** Why a wait ended. */
export type WakeReason = "entries" | "timeout" | "cancelled" | "draining";

/** One parked wait. */
export interface Waiter {
  /** Resolves once. */
  readonly woken: Promise<WakeReason>;
  /** Ends the wait; further calls do nothing. */
  end(reason: WakeReason): void;
}

/** All parked waits of this process, bounded in number. */
export class Waiters {
  readonly #clock: Clock;
  readonly #options: { readonly max: number };
  readonly #byDevice = new Map<DeviceId, Set<Waiter>>();
  #count = 0;
  #draining = false;

  /** `max` is asked for at each park(): it may change. */
  constructor(options: { readonly clock: Clock; readonly max: number }) {
    this.#clock = options.clock;
    this.#options = options;
  }

  /** Parked waits now. */
  get count(): number {
    return this.#count;
  }

  /** Parks until woken, or for `timeoutMs`. Throws `overloaded` when too many wait. */
  park(deviceId: DeviceId, timeoutMs: number): Waiter {
    if (this.#count >= this.#options.max) {
      throw new QpqError("overloaded", `Cannot park another wait as there are ${this.#count}`, {
        retryAfterMs: 5000,
      });
    }
    const { promise: woken, resolve } = Promise.withResolvers<WakeReason>();
    let ended = false;
    const waiter: Waiter = {
      woken,
      end: (reason) => {
        if (ended) return;
        ended = true;
        cancelTimer();
        this.#count--;
        const waiters = this.#byDevice.get(deviceId);
        waiters?.delete(waiter);
        if (waiters?.size === 0) this.#byDevice.delete(deviceId);
        resolve(reason);
      },
    };
    const cancelTimer = this.#clock.after(timeoutMs, () => waiter.end("timeout"));
    this.#count++;
    const waiters = this.#byDevice.get(deviceId);
    if (waiters) waiters.add(waiter);
    else this.#byDevice.set(deviceId, new Set([waiter]));
    if (this.#draining) waiter.end("draining");
    return waiter;
  }

  /** Entries came for these devices. */
  wake(devices: readonly DeviceId[]): void {
    for (const deviceId of devices) this.#endAll(deviceId, "entries");
  }

  /** Waits may be parked again. */
  endDrain(): void {
    this.#draining = false;
  }

  /** Ends every wait, now and until {@link endDrain}. */
  drain(): void {
    this.#draining = true;
    for (const deviceId of [...this.#byDevice.keys()]) this.#endAll(deviceId, "draining");
  }

  #endAll(deviceId: DeviceId, reason: WakeReason): void {
    const waiters = this.#byDevice.get(deviceId);
    if (waiters) { for (const waiter of [...waiters]) waiter.end(reason); }
  }
}

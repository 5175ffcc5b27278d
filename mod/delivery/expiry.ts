/**
 * Deletes what has expired, in small steps so that nobody waits for it. Stops by itself when the clock has
 * jumped: a wrong clock must not empty the queues.
 */
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import type { Store } from "../store/store.ts";
import type { Blobs } from "./blobs.ts";

const log = logger("expiry");

/** Between two rounds. */
const ROUND_MS = 60_000;
/** Rows that one step may delete. */
const STEP_ROWS = 500;
/** Steps of one kind in a round; what is left comes in the next. */
const STEPS_MAX = 40;
/** Wall and monotonic clock may drift apart by this much while the server runs. */
const DRIFT_MS_MAX = 3_600_000;
/** The wall clock may differ by this much from the mark that the last start left. */
const MARK_MS_MAX = 86_400_000;

/** How long things live. Milliseconds. */
export interface ExpiryTimes {
  readonly idempotencyMs: number;
  /** The same for messages that other servers have brought. */
  readonly relayedIdempotencyMs: number;
  readonly guardIdleMs: number;
  readonly sessionIdleMs: number;
  readonly sessionMs: number;
  readonly deviceIdleMs: number;
}

/** The round of deletions. */
export class Expiry implements Disposable {
  readonly #store: Store;
  readonly #blobs: Blobs;
  readonly #clock: Clock;
  readonly #times: ExpiryTimes;
  #wallAtStart = 0;
  #monotonicAtStart = 0;
  /** The last time of the wall clock that was believed; what the store's mark says while expiry is paused. */
  #believed = 0;
  #pausedBecause: string | null = null;
  #cancel: () => void = () => {};
  #stopped = false;

  constructor(deps: { store: Store; blobs: Blobs; clock: Clock; times: ExpiryTimes }) {
    this.#store = deps.store;
    this.#blobs = deps.blobs;
    this.#clock = deps.clock;
    this.#times = deps.times;
  }

  /** Why nothing expires now; null when all is well. */
  get pausedBecause(): string | null {
    return this.#pausedBecause;
  }

  /** Compares the clock with the mark of the last run, and begins. */
  async start(): Promise<void> {
    this.resume();
    const now = this.#clock.now();
    const mark = await this.#store.writeMark(now);
    if (mark !== null && Math.abs(now - mark) > MARK_MS_MAX) {
      this.#believed = mark;
      this.#pause(`the clock differs by ${hours(now - mark)} h from when this server last ran`);
      await this.writeMark();
    }
    this.#schedule();
  }

  /**
   * Marks in the store when this server ran: rejects when the store cannot be written. A clock that is not believed
   * leaves no mark, so that the next start sees the difference as well.
   */
  async writeMark(): Promise<void> {
    this.#checkClock();
    if (!this.#pausedBecause) this.#believed = this.#clock.now();
    await this.#store.writeMark(this.#believed);
  }

  /** An operator has looked at the clock: goes on from here. */
  resume(): void {
    this.#pausedBecause = null;
    this.#wallAtStart = this.#clock.now();
    this.#monotonicAtStart = this.#clock.monotonic();
    this.#believed = this.#wallAtStart;
  }

  /** One round; {@link start} repeats it. Returns how much was deleted. */
  async round(): Promise<number> {
    await this.writeMark();
    if (this.#pausedBecause) return 0;
    const now = this.#clock.now();
    const { idempotencyMs, relayedIdempotencyMs, guardIdleMs, sessionIdleMs, sessionMs, deviceIdleMs } =
      this.#times;
    const kinds: (() => Promise<number>)[] = [
      () => this.#store.expireEntries(now, STEP_ROWS),
      () => {
        const remoteBefore = now - relayedIdempotencyMs;
        return this.#store.expireMessageIds(now - idempotencyMs, STEP_ROWS, { remoteBefore });
      },
      () => this.#store.expireKeyPackages(now, STEP_ROWS),
      () => this.#store.expireSessions(now - sessionIdleMs, now - sessionMs, STEP_ROWS),
      () => this.#store.expireGuards(now - guardIdleMs, STEP_ROWS),
      async () => (await this.#store.expireDevices(now - deviceIdleMs, STEP_ROWS)).length,
      () => this.#blobs.expire(STEP_ROWS),
    ];
    let total = 0;
    for (const step of kinds) {
      for (let i = 0; i < STEPS_MAX && !this.#stopped; i++) {
        const deleted = await step();
        total += deleted;
        if (deleted < STEP_ROWS) break;
      }
    }
    if (total > 0) log.debug("expired {count} things", { count: total });
    return total;
  }

  [Symbol.dispose](): void {
    this.#stopped = true;
    this.#cancel();
  }

  #checkClock(): void {
    const wall = this.#clock.now() - this.#wallAtStart;
    const drift = wall - (this.#clock.monotonic() - this.#monotonicAtStart);
    if (Math.abs(drift) > DRIFT_MS_MAX) this.#pause(`the clock was moved by ${hours(drift)} h`);
  }

  #pause(because: string): void {
    if (this.#pausedBecause) return;
    this.#pausedBecause = because;
    log.warn("expiry paused: {because}; check the clock, then run `qpq-server expiry resume`", {
      because,
    });
  }

  #schedule(): void {
    if (this.#stopped) return;
    this.#cancel = this.#clock.after(ROUND_MS, () => {
      this.round()
        .catch((error) => log.error("expiry failed: {error}", { error: messageOf(error) }))
        .finally(() => this.#schedule());
    });
  }
}

function hours(ms: number): number {
  return Math.round(ms / 3_600_000);
}

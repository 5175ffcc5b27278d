/**
 * Token buckets by key, bounded in number. A bucket that is not there is full; a full bucket need not be there.
 * Buckets are kept in order of use, so that the ones likely full again are found at the front.
 */
import type { Clock } from "./clock.ts";

/** How fast buckets fill and how much they hold. */
export interface Rate {
  /** Tokens a second; fractions are fine (5 a minute: 5 / 60); Infinity: no limit. */
  readonly perSecond: number;
  /** Most tokens in a bucket, and what a new key begins with. */
  readonly burst: number;
}

/** What is known of a key; for the operator, not for logs. */
export interface BucketReport {
  readonly key: string;
  readonly tokens: number;
  /** Since the bucket was made; it is forgotten once it was full and others needed the room. */
  readonly taken: number;
  readonly refused: number;
}

interface Bucket {
  tokens: number;
  at: number;
  taken: number;
  refused: number;
}

/** Buckets looked at when room is needed: bounds the work of one take(). */
const EVICTION_LOOKS = 8;

/** A set of token buckets that share one rate. */
export class RateLimiter {
  readonly #clock: Clock;
  readonly #keysMax: number;
  readonly #buckets = new Map<string, Bucket>();
  /**
   * Where the look for full buckets goes on. A new iteration each time would begin with all that was deleted since the
   * Map was last compacted.
   */
  #hand: MapIterator<[string, Bucket]> = this.#buckets.entries();
  #perMs = 0;
  #burst = 0;

  constructor(options: Rate & { clock: Clock; keysMax: number }) {
    if (!(options.keysMax >= 1)) throw new RangeError(`keysMax must be at least 1: ${options.keysMax}`);
    this.#clock = options.clock;
    this.#keysMax = options.keysMax;
    this.setRate(options);
  }

  /** Keys that have a bucket. */
  get size(): number {
    return this.#buckets.size;
  }

  /** Changes the rate for all buckets; what is in them stays, up to the new burst. */
  setRate(rate: Rate): void {
    if (!(rate.perSecond > 0) || !(rate.burst > 0)) {
      throw new RangeError(`A rate must be positive: ${rate.perSecond}/s, burst ${rate.burst}`);
    }
    this.#perMs = rate.perSecond / 1000;
    this.#burst = rate.burst;
  }

  /**
   * Takes `cost` tokens: 0, or nothing is taken and the result is after how many milliseconds it can work. A cost
   * above the burst passes when the bucket is full, and leaves it in debt.
   */
  take(key: string, cost = 1): number {
    if (this.#perMs === Infinity) return 0;
    const now = this.#clock.monotonic();
    const bucket = this.#touch(key, now);
    const needed = Math.min(cost, this.#burst);
    if (bucket.tokens >= needed) {
      bucket.tokens -= cost;
      bucket.taken += cost;
      return 0;
    }
    bucket.refused++;
    return Math.max(1, Math.ceil((needed - bucket.tokens) / this.#perMs));
  }

  /** Gives back what a take() of the same key and cost took. */
  refund(key: string, cost = 1): void {
    const bucket = this.#buckets.get(key);
    if (!bucket) return;
    this.#refill(bucket, this.#clock.monotonic());
    bucket.tokens = Math.min(this.#burst, bucket.tokens + cost);
    bucket.taken -= Math.min(cost, bucket.taken);
  }

  /** The `n` keys that were refused most, then those that took most. Costs a pass over all keys. */
  top(n: number): BucketReport[] {
    const now = this.#clock.monotonic();
    const reports: BucketReport[] = [];
    for (const [key, bucket] of this.#buckets) {
      this.#refill(bucket, now);
      reports.push({ key, tokens: bucket.tokens, taken: bucket.taken, refused: bucket.refused });
    }
    return reports.sort((a, b) => b.refused - a.refused || b.taken - a.taken).slice(0, n);
  }

  /** The key's bucket, filled up to now and moved to the end of the order of use. */
  #touch(key: string, now: number): Bucket {
    let bucket = this.#buckets.get(key);
    if (bucket) {
      this.#buckets.delete(key);
      this.#refill(bucket, now);
    } else {
      this.#makeRoom(now);
      bucket = { tokens: this.#burst, at: now, taken: 0, refused: 0 };
    }
    this.#buckets.set(key, bucket);
    return bucket;
  }

  #refill(bucket: Bucket, now: number): void {
    bucket.tokens = Math.min(this.#burst, bucket.tokens + (now - bucket.at) * this.#perMs);
    bucket.at = now;
  }

  /** Drops full buckets among the longest unused; when there is no room and none is full, the oldest goes. */
  #makeRoom(now: number): void {
    let left = Math.min(EVICTION_LOOKS, this.#buckets.size);
    while (left > 0) {
      const { value, done } = this.#hand.next();
      if (done) {
        this.#hand = this.#buckets.entries();
        if (this.#buckets.size === 0) return;
        continue;
      }
      left--;
      const [key, bucket] = value;
      this.#refill(bucket, now);
      if (bucket.tokens >= this.#burst) this.#buckets.delete(key);
    }
    if (this.#buckets.size < this.#keysMax) return;
    const [oldest] = this.#buckets.keys();
    this.#buckets.delete(oldest!);
  }
}

/**
 * Latencies as counts in buckets, in constant memory: the kind of histogram that HdrHistogram is. A bucket is at
 * most 1/128 of its value wide, so that a quantile is right to 0.8 %; below 256 µs to the microsecond.
 */

/** Buckets of each doubling. */
const STEPS = 128;
/** Values below this have a bucket each. */
const EXACT_BITS = 8;
/** Longest latency that is told apart: more than an hour. */
const MICROSECONDS_MAX = 2 ** 32 - 1;
const BUCKETS = STEPS * (32 - EXACT_BITS + 2);

/** Counts of latencies. */
export class LatencyHistogram {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sumMs = 0;
  #maxMs = 0;

  /** How many were recorded. */
  get count(): number {
    return this.#count;
  }

  /** The longest, exactly, in milliseconds; 0 when there is none. */
  get maxMs(): number {
    return this.#maxMs;
  }

  /** Their mean in milliseconds; 0 when there is none. */
  get meanMs(): number {
    return this.#count === 0 ? 0 : this.#sumMs / this.#count;
  }

  /** Adds one latency in milliseconds. */
  record(ms: number): void {
    const microseconds = ms > 0 ? Math.min(MICROSECONDS_MAX, Math.round(ms * 1000)) : 0;
    this.#counts[bucketOf(microseconds)]!++;
    this.#count++;
    this.#sumMs += ms;
    if (ms > this.#maxMs) this.#maxMs = ms;
  }

  /** Latency in milliseconds that `share` (0 to 1) of them do not exceed; 0 when there is none. */
  quantileMs(share: number): number {
    const wanted = Math.max(1, Math.ceil(share * this.#count));
    let seen = 0;
    for (let bucket = 0; bucket < this.#counts.length; bucket++) {
      seen += this.#counts[bucket]!;
      if (seen >= wanted) return Math.min(this.#maxMs, highestOf(bucket) / 1000);
    }
    return this.#maxMs;
  }

  /** Forgets everything. */
  reset(): void {
    this.#counts.fill(0);
    this.#count = this.#sumMs = this.#maxMs = 0;
  }
}

/** Values 0 to 255 by themselves; then 128 buckets for 256 to 511, 128 for 512 to 1,023, and so on. */
function bucketOf(microseconds: number): number {
  const doubling = Math.max(0, 32 - Math.clz32(microseconds) - EXACT_BITS);
  return doubling * STEPS + (microseconds >>> doubling);
}

/** The largest value of a bucket. */
function highestOf(bucket: number): number {
  const doubling = Math.max(0, Math.floor(bucket / STEPS) - 1);
  return (bucket - doubling * STEPS + 1) * 2 ** doubling - 1;
}

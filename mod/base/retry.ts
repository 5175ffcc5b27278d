/** Waiting times between attempts: exponential, with jitter so that many clients do not come back at once. */

/** How the waiting times grow. */
export interface BackoffOptions {
  /** Ceiling of the first wait. */
  readonly initialMs: number;
  /** Ceiling of every wait. */
  readonly maxMs: number;
  /** What the ceiling is multiplied with after each wait. Default 2. */
  readonly factor?: number;
  /** Numbers in [0, 1). Default Math.random. */
  readonly random?: () => number;
}

/** A run of attempts. */
export interface Backoff {
  /** How long to wait before the next attempt: between half and all of the ceiling, which then grows. */
  nextMs(): number;
  /** Attempts since the last success. */
  readonly attempts: number;
  /** It worked: begin again with the first wait. */
  reset(): void;
}

/** Waiting times of a run of attempts. */
export function backoff(options: BackoffOptions): Backoff {
  const { initialMs, maxMs, factor = 2, random = Math.random } = options;
  if (!(initialMs > 0) || !(maxMs >= initialMs) || !(factor >= 1)) {
    throw new RangeError(`Cannot back off from ${initialMs} to ${maxMs} ms by ${factor}`);
  }
  let attempts = 0;
  let ceilingMs = initialMs;
  return {
    get attempts() {
      return attempts;
    },
    nextMs() {
      const waitMs = Math.round(ceilingMs * (0.5 + random() / 2));
      attempts++;
      ceilingMs = Math.min(maxMs, ceilingMs * factor);
      return waitMs;
    },
    reset() {
      attempts = 0;
      ceilingMs = initialMs;
    },
  };
}

/** Token buckets of each peer: requests (each message of a Relay is one) and bytes. */
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { RateLimiter } from "../base/rate_limiter.ts";
import type { Metrics } from "../observe/metrics.ts";

const log = logger("federation");

const KEYS_MAX = 65_536;
const DAY_S = 86_400;
const BURST_S = 10;
const LOG_WINDOW_MS = 60_000;

/** Read at each use: a reload changes them. */
export interface PeerRates {
  readonly peerMessagesPerSecond: number;
  readonly peerBytesPerDay: number;
}

/** The limits of all peers, by domain. */
export class PeerLimiter {
  readonly #rates: PeerRates;
  readonly #metrics: Metrics;
  readonly #clock: Clock;
  readonly #requests: RateLimiter;
  readonly #bytes: RateLimiter;
  #loggedAt = -Infinity;

  constructor(rates: PeerRates, { clock, metrics }: { clock: Clock; metrics: Metrics }) {
    this.#rates = rates;
    this.#metrics = metrics;
    this.#clock = clock;
    this.#requests = new RateLimiter({ ...requestRate(rates), clock, keysMax: KEYS_MAX });
    this.#bytes = new RateLimiter({ ...byteRate(rates), clock, keysMax: KEYS_MAX });
  }

  /** Charges a request that is `count` messages; throws `rateLimited`, and then nothing is charged. */
  charge(domain: string, { count, bytes }: { count: number; bytes: number }): void {
    this.#requests.setRate(requestRate(this.#rates));
    this.#bytes.setRate(byteRate(this.#rates));
    const requestsMs = this.#requests.take(domain, count);
    if (requestsMs > 0) this.#refuse("peerRequests", domain, requestsMs);
    const bytesMs = this.#bytes.take(domain, bytes);
    if (bytesMs === 0) return;
    this.#requests.refund(domain, count);
    this.#refuse("peerBytes", domain, bytesMs);
  }

  #refuse(limit: "peerRequests" | "peerBytes", peer: string, retryAfterMs: number): never {
    this.#metrics.rateLimitHit(limit);
    const now = this.#clock.monotonic();
    if (now - this.#loggedAt >= LOG_WINDOW_MS) {
      this.#loggedAt = now;
      log.warn("a peer sends more than its limit {limit}: {peer}", { limit, peer });
    }
    throw new QpqError("rateLimited", `The limit ${limit} of ${peer} is used up`, { retryAfterMs });
  }
}

function requestRate({ peerMessagesPerSecond }: PeerRates) {
  return { perSecond: peerMessagesPerSecond, burst: BURST_S * peerMessagesPerSecond };
}

function byteRate({ peerBytesPerDay }: PeerRates) {
  return { perSecond: peerBytesPerDay / DAY_S, burst: peerBytesPerDay };
}

/** Why another server is not taken for a peer: each reason has its own log line and its own label value. */
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { RateLimiter } from "../base/rate_limiter.ts";
import type { Metrics, PeerRefusalReason } from "../observe/metrics.ts";

const log = logger("federation");

/** Lines for one reason that a listener writes at once, and in a minute. */
const LINES_AT_ONCE = 20;
const LINES_A_MINUTE = 10;

/** What the operator reads. */
const LOG_LINES: Readonly<Record<PeerRefusalReason, string>> = {
  unknown_domain: "a server that is no peer was refused: {peer}",
  blocked: "a blocked peer was refused: {peer}",
  wrong_name: "a peer's certificate is for another domain: {peer}: {why}",
  unknown_ca: "a peer's certificate is not of the CA set: {peer}: {why}",
  expired: "a peer's certificate is not valid now: {peer}: {why}",
  revoked: "a peer's certificate is revoked: {peer}: {why}",
  bad_signature: "a peer's proof does not verify: {peer}: {why}",
  wrong_responder: "a peer's proof was made for another server: {peer}: {why}",
  timeout: "a server did not prove in time who it is: {peer}",
  protocol: "a server broke the protocol between servers: {peer}: {why}",
  rate_limited: "a server opens too many connections: {peer}: {why}",
};

/** A server is not taken for the peer that it claims to be, or for a peer. */
export class PeerRefused extends QpqError {
  override name = "PeerRefused";
  readonly reason: PeerRefusalReason;

  constructor(reason: PeerRefusalReason, message: string, options: { cause?: unknown } = {}) {
    super(reason === "rate_limited" ? "rateLimited" : "peerRefused", message, options);
    this.reason = reason;
  }
}

/** Counts and logs a refusal. `peer`: the domain it claims, or its shortened address before it claimed any. */
export function reportRefusal(metrics: Metrics, { reason, message }: PeerRefused, peer: string): void {
  metrics.peerRefused(reason);
  log.warn(LOG_LINES[reason], { peer, reason, why: message });
}

/** Refusals of whoever comes: all are counted, and of a flood only some are logged. */
export class RefusalLog {
  readonly #metrics: Metrics;
  readonly #lines: RateLimiter;
  readonly #unlogged = new Map<PeerRefusalReason, number>();

  constructor({ metrics, clock }: { metrics: Metrics; clock: Clock }) {
    this.#metrics = metrics;
    const keysMax = Object.keys(LOG_LINES).length;
    this.#lines = new RateLimiter({ clock, keysMax, perSecond: LINES_A_MINUTE / 60, burst: LINES_AT_ONCE });
  }

  /** As {@link reportRefusal}. */
  report(refusal: PeerRefused, peer: string): void {
    const { reason } = refusal;
    const unlogged = this.#unlogged.get(reason) ?? 0;
    if (this.#lines.take(reason) > 0) {
      this.#metrics.peerRefused(reason);
      this.#unlogged.set(reason, unlogged + 1);
      return;
    }
    this.#unlogged.delete(reason);
    if (unlogged > 0) log.warn("{unlogged} more were refused before ({reason})", { unlogged, reason });
    reportRefusal(this.#metrics, refusal, peer);
  }
}

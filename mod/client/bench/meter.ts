/**
 * What a load is measured by: it asks before each operation and tells how it ended. Nothing counts before the warm-up
 * is over, nor after the end.
 */
import { LatencyHistogram } from "./histogram.ts";

/** One measurement. */
export class Meter {
  /** Latencies of the whole measurement. */
  readonly latency = new LatencyHistogram();
  /** Operations that were refused or failed, by the name of the error. */
  readonly refused = new Map<string, number>();
  readonly #recent = new LatencyHistogram();
  /** Resolves when no more is to begin. */
  readonly stopped: Promise<void>;
  readonly #stop: () => void;
  readonly #operationsMax: number;
  #begun = 0;
  #ended = 0;
  #operations = 0;
  #recentOperations = 0;
  #measuringSince = NaN;
  #stoppedAt = NaN;

  /** Without a maximum it goes on until {@link Meter.stop}. */
  constructor(options: { operationsMax?: number } = {}) {
    this.#operationsMax = options.operationsMax ?? Infinity;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.stopped = promise;
    this.#stop = resolve;
  }

  /** May one more operation begin? */
  get open(): boolean {
    return this.#begun < this.#operationsMax && Number.isNaN(this.#stoppedAt);
  }

  /** Operations that ended well while it was measured. */
  get operations(): number {
    return this.#operations;
  }

  /** How long it was measured; up to now while it goes on. */
  get seconds(): number {
    const end = Number.isNaN(this.#stoppedAt) ? performance.now() : this.#stoppedAt;
    return Number.isNaN(this.#measuringSince) ? 0 : (end - this.#measuringSince) / 1000;
  }

  /** The warm-up is over: from now on it counts. */
  measure(): void {
    this.#measuringSince = performance.now();
  }

  /** An operation begins. */
  begin(): void {
    this.#begun++;
  }

  /** An operation ended well; it moved `count` of whatever is counted. */
  end(latencyMs: number, count = 1): void {
    if (this.#counts) {
      this.#operations += count;
      this.#recentOperations += count;
      this.latency.record(latencyMs);
      this.#recent.record(latencyMs);
    }
    this.#one();
  }

  /** An operation was refused, or failed, by this name. */
  refuse(name: string): void {
    if (this.#counts) this.refused.set(name, (this.refused.get(name) ?? 0) + 1);
    this.#one();
  }

  /** No more begins; what is under way ends uncounted. */
  stop(): void {
    if (!Number.isNaN(this.#stoppedAt)) return;
    this.#stoppedAt = performance.now();
    this.#stop();
  }

  /** What ended since the last call. */
  takeRecent(): { operations: number; p50Ms: number; p99Ms: number } {
    const [p50Ms, p99Ms] = [this.#recent.quantileMs(0.5), this.#recent.quantileMs(0.99)];
    const operations = this.#recentOperations;
    this.#recentOperations = 0;
    this.#recent.reset();
    return { operations, p50Ms, p99Ms };
  }

  get #counts(): boolean {
    return !Number.isNaN(this.#measuringSince) && Number.isNaN(this.#stoppedAt);
  }

  #one(): void {
    this.#ended++;
    if (this.#ended >= this.#operationsMax) this.stop();
  }
}

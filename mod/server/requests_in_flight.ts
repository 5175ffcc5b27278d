/** How many requests are being worked on, and when there are none. */
import type { Metrics } from "../observe/metrics.ts";

/** Counts requests of all connections. */
export class RequestsInFlight {
  readonly #metrics: Metrics;
  #count = 0;
  #whenIdle: (() => void)[] = [];

  constructor(metrics: Metrics) {
    this.#metrics = metrics;
  }

  begin(): void {
    this.#count++;
    this.#metrics.requestsInFlight.set(this.#count);
  }

  end(): void {
    this.#count--;
    this.#metrics.requestsInFlight.set(this.#count);
    if (this.#count > 0) return;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** Resolves as soon as nothing is being worked on. */
  idle(): Promise<void> {
    return this.#count === 0 ? Promise.resolve() : new Promise((resolve) => this.#whenIdle.push(resolve));
  }
}

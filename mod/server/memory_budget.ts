/** Bytes of requests and replies held for all connections together; beyond the bound new requests are refused. */
import { QpqError } from "../base/errors.ts";

/** Retry-after of a refusal. */
const RETRY_MS = 1_000;

/** One server's budget. */
export class MemoryBudget {
  #bytesMax: number;
  #used = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Bytes held now. */
  get used(): number {
    return this.#used;
  }

  /** More is held than may be. */
  get exceeded(): boolean {
    return this.#used > this.#bytesMax;
  }

  /** The bound changes; what is held stays. */
  setMax(bytesMax: number): void {
    this.#bytesMax = bytesMax;
  }

  /** Notes that `delta` more bytes (or fewer) are held. */
  add(delta: number): void {
    this.#used += delta;
  }

  /** The refusal of a request with `bytes`; null when there is room. */
  refusal(bytes: number): QpqError | null {
    if (this.#used + bytes <= this.#bytesMax) return null;
    return new QpqError("overloaded", `Holding ${this.#used} bytes already`, { retryAfterMs: RETRY_MS });
  }
}

/** What one stream holds of it: give it the present figures after each step. */
export class MemoryShare implements Disposable {
  readonly #budget: MemoryBudget;
  #held = 0;

  constructor(budget: MemoryBudget) {
    this.#budget = budget;
  }

  /** The stream holds `bytes` now. */
  set(bytes: number): void {
    this.#budget.add(bytes - this.#held);
    this.#held = bytes;
  }

  [Symbol.dispose](): void {
    this.set(0);
  }
}

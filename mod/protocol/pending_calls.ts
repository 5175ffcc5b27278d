/** The caller's side of pipelined requests on one stream: request ids, timeouts, the bound on requests in flight. */
import type { Clock } from "../base/clock.ts";
import { encodeFrame, type Frame } from "./frame.ts";

const REQUEST_ID_MAX = 0xffff_ffff;

interface Pending {
  resolve(frame: Frame): void;
  reject(error: unknown): void;
}

/** Requests that wait for their replies. */
export class PendingCalls {
  readonly #clock: Clock;
  readonly #write: (bytes: Uint8Array) => void;
  readonly #pending = new Map<number, Pending>();
  readonly #waiting: (() => void)[] = [];
  #inFlight = 0;
  #inFlightMax: number;
  #lastId = 0;
  #failure: Error | null = null;

  /** `write` takes each request's frame. */
  constructor(options: { clock: Clock; inFlightMax: number; write: (bytes: Uint8Array) => void }) {
    this.#clock = options.clock;
    this.#inFlightMax = options.inFlightMax;
    this.#write = options.write;
  }

  /** Calls that have not ended. */
  get count(): number {
    return this.#inFlight;
  }

  /** More calls than this wait here. */
  limit(inFlightMax: number): void {
    this.#inFlightMax = Math.max(1, inFlightMax);
    this.#wakeWaiting();
  }

  /** An id that no call has. */
  nextId(): number {
    do this.#lastId = this.#lastId === REQUEST_ID_MAX ? 1 : this.#lastId + 1; while (
      this.#pending.has(this.#lastId)
    );
    return this.#lastId;
  }

  /** Sends a request; its reply, or what {@link fail} was given, or what `late` makes after `timeoutMs`. */
  async exchange(
    code: number,
    body: Uint8Array,
    options: { timeoutMs: number; late: () => Error },
  ): Promise<Frame> {
    await this.#enter();
    const id = this.nextId();
    const answer = Promise.withResolvers<Frame>();
    this.#pending.set(id, answer);
    const cancel = this.#clock.after(options.timeoutMs, () => answer.reject(options.late()));
    try {
      this.#write(encodeFrame(id, code, body));
      return await answer.promise;
    } finally {
      cancel();
      this.#pending.delete(id);
      this.#inFlight--;
      this.#wakeWaiting();
    }
  }

  /** A reply came. One after its call's timeout has no taker. */
  settle(frame: Frame): void {
    this.#pending.get(frame.requestId)?.resolve(frame);
  }

  /** Every call ends with this, those to come as well. */
  fail(error: Error): void {
    this.#failure ??= error;
    for (const pending of this.#pending.values()) pending.reject(this.#failure);
    this.#wakeWaiting();
  }

  async #enter(): Promise<void> {
    while (this.#failure === null && this.#inFlight >= this.#inFlightMax) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    if (this.#failure) throw this.#failure;
    this.#inFlight++;
  }

  #wakeWaiting(): void {
    const free = this.#failure ? this.#waiting.length : this.#inFlightMax - this.#inFlight;
    for (const wake of this.#waiting.splice(0, Math.max(0, free))) wake();
  }
}

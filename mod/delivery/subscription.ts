/**
 * One subscriber of one device's queue: pushes entries in order as they come, as long as what is pushed and not
 * acknowledged stays within the credit. Knows the store's fetch and a push function, no frames.
 */
import type { QpqError } from "../base/errors.ts";
import type { Cursor, Entry } from "../store/store.ts";

/** Entries per push at most. */
const PUSH_ENTRIES_MAX = 256;
/** Payload bytes per push at most (one larger entry excepted). */
const PUSH_BYTES_MAX = 256 << 10;

/** What a subscription needs. */
export interface SubscriptionOptions {
  readonly after: number;
  readonly creditBytes: number;
  /** Entries above `after`; rejects with what ends the subscription. */
  readonly fetch: (
    after: number,
    bytesMax: number,
    entriesMax: number,
  ) => Promise<{ entries: Entry[]; cursor: Cursor }>;
  /** Sends a batch; resolves when there is room for more. */
  readonly push: (entries: Entry[], cursor: Cursor) => Promise<void>;
}

/** A running subscription. `run()` ends when it is ended from outside or fetch or push fail. */
export class Subscription {
  readonly #options: SubscriptionOptions;
  #after: number;
  #unacked: { seq: number; bytes: number }[] = [];
  #unackedBytes = 0;
  #ended: QpqError | "closed" | null = null;
  #signalled = true;
  #wake: (() => void) | null = null;

  constructor(options: SubscriptionOptions) {
    this.#options = options;
    this.#after = options.after;
  }

  /** Entries came. */
  notify(): void {
    this.#signalled = true;
    this.#wake?.();
  }

  /** The device acknowledged up to `through`: credit returns. */
  acked(through: number): void {
    let count = 0;
    while (count < this.#unacked.length && this.#unacked[count]!.seq <= through) {
      this.#unackedBytes -= this.#unacked[count]!.bytes;
      count++;
    }
    if (count > 0) {
      this.#unacked.splice(0, count);
      this.notify();
    }
  }

  /** Ends it: with an error for the subscriber, or silently because the stream is gone. */
  end(reason: QpqError | "closed"): void {
    this.#ended ??= reason;
    this.#wake?.();
  }

  /** Pushes until the end; resolves when closed, rejects with the error that ended it. */
  async run(): Promise<void> {
    while (!this.#ended) {
      const credit = this.#options.creditBytes - this.#unackedBytes;
      const mayPush = credit > 0 || this.#unacked.length === 0;
      if (!this.#signalled || !mayPush) {
        await new Promise<void>((resolve) => this.#wake = resolve);
        this.#wake = null;
        continue;
      }
      this.#signalled = false;
      await this.#pushOnce(Math.max(1, Math.min(credit, PUSH_BYTES_MAX)));
    }
    if (this.#ended !== "closed") throw this.#ended;
  }

  async #pushOnce(bytesMax: number): Promise<void> {
    const { entries, cursor } = await this.#options.fetch(this.#after, bytesMax, PUSH_ENTRIES_MAX);
    if (this.#ended || entries.length === 0) return;
    for (const { seq, payload } of entries) {
      this.#unacked.push({ seq, bytes: payload.length });
      this.#unackedBytes += payload.length;
    }
    this.#after = entries.at(-1)!.seq;
    this.#signalled = true; // more may wait behind these
    await this.#options.push(entries, cursor);
  }
}

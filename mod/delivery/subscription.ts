/**
 * One subscriber of one device's queue: pushes entries in order as they come, as long as what is pushed and not
 * acknowledged stays within the credit. Knows the store's fetch and a push function, no frames.
 */
import type { QpqError } from "../base/errors.ts";
import type { Cursor, Entry, FreshEntries } from "../store/store.ts";

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
  /** There may be entries behind `#after` that only the store has. */
  #signalled = true;
  #fetching = false;
  /** Entries that came and were not pushed yet, without a gap between them. */
  #fresh: Entry[] = [];
  #freshBytes = 0;
  #freshCursor: Cursor | null = null;
  #wake: (() => void) | null = null;

  constructor(options: SubscriptionOptions) {
    this.#options = options;
    this.#after = options.after;
  }

  /** Entries came: these, or null when they are to be fetched. */
  offer(fresh: FreshEntries | null): void {
    if (!fresh || !this.#takeFresh(fresh)) this.#signalled = true;
    this.#wake?.();
  }

  /** Keeps entries that follow those before them; false when they do not, or are too many. */
  #takeFresh({ entries, cursor }: FreshEntries): boolean {
    const last = this.#fresh.at(-1)?.seq ?? this.#after;
    const bytes = entries.reduce((sum, { payload }) => sum + payload.length, 0);
    // What comes during a fetch may be among what is fetched.
    const isNext = !this.#signalled && !this.#fetching && entries[0]!.seq === last + 1;
    const fits = this.#fresh.length + entries.length <= PUSH_ENTRIES_MAX &&
      this.#freshBytes + bytes <= PUSH_BYTES_MAX;
    if (!isNext || !fits) return false;
    this.#fresh.push(...entries);
    this.#freshBytes += bytes;
    this.#freshCursor = cursor;
    return true;
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
      this.#wake?.();
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
      const hasMore = this.#signalled || this.#fresh.length > 0;
      if (!hasMore || !mayPush) {
        await new Promise<void>((resolve) => this.#wake = resolve);
        this.#wake = null;
        continue;
      }
      const bytesMax = Math.max(1, Math.min(credit, PUSH_BYTES_MAX));
      // What was kept comes before what only the store has.
      if (this.#fresh.length > 0) await this.#pushFresh(bytesMax);
      else await this.#pushStored(bytesMax);
    }
    if (this.#ended !== "closed") throw this.#ended;
  }

  async #pushFresh(bytesMax: number): Promise<void> {
    let [count, bytes] = [0, 0];
    for (const { payload } of this.#fresh) {
      if (count > 0 && bytes + payload.length > bytesMax) break;
      bytes += payload.length;
      count++;
    }
    this.#freshBytes -= bytes;
    await this.#push(this.#fresh.splice(0, count), this.#freshCursor!);
  }

  async #pushStored(bytesMax: number): Promise<void> {
    this.#signalled = false;
    this.#fetching = true;
    const { entries, cursor } = await this.#options.fetch(this.#after, bytesMax, PUSH_ENTRIES_MAX);
    this.#fetching = false;
    if (this.#ended || entries.length === 0) return;
    // More may wait behind these, unless they are the queue's last.
    if (entries.at(-1)!.seq + 1 < cursor.nextSeq) this.#signalled = true;
    await this.#push(entries, cursor);
  }

  async #push(entries: Entry[], cursor: Cursor): Promise<void> {
    for (const { seq, payload } of entries) {
      this.#unacked.push({ seq, bytes: payload.length });
      this.#unackedBytes += payload.length;
    }
    this.#after = entries.at(-1)!.seq;
    await this.#options.push(entries, cursor);
  }
}

/** A part of the rows that are written later: what they are to become. See deferred.ts. */

/** A queue's row, but for its key. */
export interface QueueNumbers {
  nextSeq: number;
  ackedThrough: number;
  droppedThrough: number;
  droppedCount: number;
  depth: number;
  bytes: number;
  sentNext: number;
}

/** What an account has in a queue. */
export interface ShareNumbers {
  depth: number;
  bytes: number;
}

/** What an account has sent on its latest day. */
export interface DailyNumbers {
  day: number;
  bytes: number;
  guards: number;
}

/** An entry's row, but for its device. */
export interface DeferredEntry {
  readonly seq: number;
  readonly payload: number;
  readonly size: number;
  readonly expiresAt: number;
  readonly sender: number;
  readonly shared: number;
}

/** Rows of one queue that were changed in the present transaction. */
export interface ChangedQueue extends QueueNumbers {
  readonly device: number;
  /** Entries that it got, whether or not it has them still. */
  readonly added: DeferredEntry[];
}

/** Everything that the present transaction has changed so far. */
export interface Changes {
  readonly queues: readonly ChangedQueue[];
  readonly shares: readonly { queue: { device: number }; account: number; share: ShareNumbers }[];
  readonly daily: readonly (DailyNumbers & { account: number })[];
  /** A queue of these, or one that was looked at; undefined: it is as it was. */
  readonly find: (device: number) => { ackedThrough: number; dirty: boolean } | undefined;
  /** The key of the last payload. */
  readonly lastPayload: number;
}

/** What waits for one device. */
export interface Waiting {
  numbers: QueueNumbers | undefined;
  /** By account; one that nothing is put into takes 200 bytes. */
  shares: Map<number, ShareNumbers> | undefined;
  entries: DeferredEntry[];
}

/** Rows of a part of the log, and what they say. */
export class Generation {
  readonly devices = new Map<number, Waiting>();
  readonly daily = new Map<number, DailyNumbers>();
  rows = 0;
  logBytes = 0;
  lastLogRow = 0;
  lastPayload = 0;

  waiting(device: number): Waiting {
    let waiting = this.devices.get(device);
    if (!waiting) this.devices.set(device, waiting = { numbers: undefined, shares: undefined, entries: [] });
    return waiting;
  }

  setNumbers(device: number, numbers: QueueNumbers): void {
    const waiting = this.waiting(device);
    if (!waiting.numbers) this.rows += 1;
    waiting.numbers = numbers;
  }

  setShare(device: number, account: number, { depth, bytes }: ShareNumbers): void {
    const waiting = this.waiting(device);
    const shares = waiting.shares ??= new Map();
    if (!shares.has(account)) this.rows += 1;
    shares.set(account, { depth, bytes });
  }

  setDaily(account: number, { day, bytes, guards }: DailyNumbers): void {
    if (!this.daily.has(account)) this.rows += 1;
    this.daily.set(account, { day, bytes, guards });
  }
}

/** A copy of the numbers alone. */
export function numbersOf(queue: QueueNumbers): QueueNumbers {
  const { nextSeq, ackedThrough, droppedThrough, droppedCount, depth, bytes, sentNext } = queue;
  return { nextSeq, ackedThrough, droppedThrough, droppedCount, depth, bytes, sentNext };
}

/** Forgets the entries that are acknowledged. */
export function dropThrough(waiting: Waiting | undefined, ackedThrough: number): void {
  if (!waiting || waiting.entries.length === 0 || waiting.entries[0]!.seq > ackedThrough) return;
  const kept = waiting.entries.findIndex(({ seq }) => seq > ackedThrough);
  waiting.entries = kept < 0 ? [] : waiting.entries.slice(kept);
}

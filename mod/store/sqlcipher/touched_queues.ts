/** Which queues got entries in a transaction, and where they stand after it: what subscribers and waits are told. */
import type { Queue } from "./ledger.ts";

/** Numbers for each device in {@link Touched}. */
export const STANDING_NUMBERS = 5;

/** Devices whose queues got entries in a transaction. */
export interface Touched {
  readonly devices: readonly string[];
  /** For each: entries added, then nextSeq, ackedThrough, droppedThrough and droppedCount of the queue. */
  readonly standing: Float64Array<ArrayBuffer>;
}

/** Gathers them while the transaction runs. */
export class TouchedQueues {
  readonly #added = new Map<Queue, number>();

  /** The queue got an entry. */
  add(queue: Queue): void {
    this.#added.set(queue, (this.#added.get(queue) ?? 0) + 1);
  }

  /** The queue is gone. */
  forget(queue: Queue): void {
    this.#added.delete(queue);
  }

  /** Forgets all. */
  clear(): void {
    this.#added.clear();
  }

  /** What was gathered since the last call. */
  take(): Touched {
    const devices: string[] = [];
    const standing = new Float64Array(this.#added.size * STANDING_NUMBERS);
    for (const [queue, added] of this.#added) {
      const { nextSeq, ackedThrough, droppedThrough, droppedCount } = queue;
      const at = devices.push(queue.deviceId) - 1;
      standing.set([added, nextSeq, ackedThrough, droppedThrough, droppedCount], at * STANDING_NUMBERS);
    }
    this.clear();
    return { devices, standing };
  }
}

/** A clock that jumps from one timer to the next: nothing happens between two of them. */
import { setImmediate } from "node:timers";
import type { Clock } from "../../mod/base/clock.ts";

interface Timer {
  readonly due: number;
  readonly order: number;
  callback: (() => void) | null;
}

/** See the head of this file. */
export class SimClock implements Clock {
  readonly #start: number;
  #elapsed = 0;
  #order = 0;
  /** A binary heap: the first is the next. */
  readonly #heap: Timer[] = [];

  constructor(start: number) {
    this.#start = start;
  }

  now(): number {
    return this.#start + this.#elapsed;
  }

  monotonic(): number {
    return this.#elapsed;
  }

  after(delayMs: number, callback: () => void): () => void {
    const due = this.#elapsed + Math.max(0, Math.ceil(delayMs));
    const timer: Timer = { due, order: this.#order++, callback };
    this.#push(timer);
    return () => timer.callback = null;
  }

  /** Runs the next timer with everything that follows from it at once. False: there is none. */
  async step(): Promise<boolean> {
    await this.settle();
    const timer = this.#pop();
    if (!timer) return false;
    this.#elapsed = timer.due;
    timer.callback!();
    return true;
  }

  /** Every promise that can go on has gone on: a turn of the event loop ends when no microtask is left. */
  settle(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let at = heap.push(timer) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(timer, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = timer;
  }

  /** The next timer that was not cancelled. */
  #pop(): Timer | undefined {
    while (this.#heap.length > 0) {
      const first = this.#heap[0]!;
      const last = this.#heap.pop()!;
      if (last !== first) this.#sink(last);
      if (first.callback) return first;
    }
    return undefined;
  }

  #sink(timer: Timer): void {
    const heap = this.#heap;
    let at = 0;
    while (true) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, timer)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = timer;
  }
}

function isBefore(one: Timer, other: Timer): boolean {
  return one.due < other.due || (one.due === other.due && one.order < other.order);
}

/** A clock that stands still until told: timers run in order, promises settle between them. */
import { setImmediate } from "node:timers";
import type { Clock } from "../../mod/base/clock.ts";

interface Timer {
  readonly id: number;
  readonly due: number;
  readonly callback: () => void;
}

/** Rounds of the event loop that let chains of promises, also across message ports, come to rest. */
const SETTLE_ROUNDS = 3;

/** Time for tests. Both clocks begin at the given wall time and zero. */
export class FakeClock implements Clock {
  #wall: number;
  #monotonic = 0;
  #nextId = 1;
  #timers: Timer[] = [];

  constructor(options: { now?: number } = {}) {
    this.#wall = options.now ?? Date.UTC(2026, 0, 1);
  }

  now(): number {
    return this.#wall;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  after(delayMs: number, callback: () => void): () => void {
    const timer: Timer = { id: this.#nextId++, due: this.#monotonic + Math.max(0, delayMs), callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** Timers that have not run. */
  get pendingTimers(): number {
    return this.#timers.length;
  }

  /** Moves time forward: due timers run in order, at their time, with everything they lead to. */
  async advance(ms: number): Promise<void> {
    const end = this.#monotonic + ms;
    await this.settle();
    for (let timer = this.#next(end); timer; timer = this.#next(end)) {
      this.#move(Math.max(this.#monotonic, timer.due));
      const ran = timer;
      this.#timers = this.#timers.filter((other) => other !== ran);
      ran.callback();
      await this.settle();
    }
    this.#move(end);
  }

  /** Moves the wall clock only, as an operator or NTP would. */
  jumpWall(ms: number): void {
    this.#wall += ms;
  }

  /** Lets pending promises go as far as they can without time passing. */
  async settle(): Promise<void> {
    for (let round = 0; round < SETTLE_ROUNDS; round++) {
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }

  #next(end: number): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers) {
      if (timer.due > end) continue;
      if (!first || timer.due < first.due || (timer.due === first.due && timer.id < first.id)) first = timer;
    }
    return first;
  }

  #move(to: number): void {
    this.#wall += to - this.#monotonic;
    this.#monotonic = to;
  }
}

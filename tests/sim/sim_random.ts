/** Choices of a simulation, all from one seed. */
import { prng } from "../support/prng.ts";

/** A source of choices. */
export class SimRandom {
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = prng(seed);
  }

  /** A source of its own, so that one part's choices do not shift another's. */
  fork(): SimRandom {
    return new SimRandom(this.int(0, 2 ** 31));
  }

  /** Whole, `min` and `max` included. */
  int(min: number, max: number): number {
    return min + Math.floor(this.#next() * (max - min + 1));
  }

  /** True in `probability` of all cases. */
  chance(probability: number): boolean {
    return this.#next() < probability;
  }

  pick<Value>(values: readonly Value[]): Value {
    return values[this.int(0, values.length - 1)]!;
  }

  /** One of the keys, each as often as its weight says. */
  weighted<Key extends string>(weights: Readonly<Record<Key, number>>): Key {
    const keys = Object.keys(weights) as Key[];
    let left = this.#next() * keys.reduce((sum, key) => sum + weights[key], 0);
    for (const key of keys) {
      left -= weights[key];
      if (left < 0) return key;
    }
    return keys.at(-1)!;
  }

  /** Milliseconds that are mostly few and sometimes many: exponential with this mean. */
  wait(meanMs: number): number {
    return Math.round(-Math.log(1 - this.#next()) * meanMs);
  }
}

/** Mutual exclusion by key: work on one thing waits, work on different things does not. */

/** Runs work one at a time for each key, in order of arrival. */
export class KeyedMutex {
  /** The last work of each key; gone when nobody waits. */
  readonly #tails = new Map<string, Promise<void>>();

  /** Keys that somebody works on. */
  get size(): number {
    return this.#tails.size;
  }

  /** Runs `work` when all earlier work on `key` is done; gives its result or error. */
  async run<Value>(key: string, work: () => Promise<Value>): Promise<Value> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    const done = Promise.withResolvers<void>();
    this.#tails.set(key, done.promise);
    await before;
    try {
      return await work();
    } finally {
      if (this.#tails.get(key) === done.promise) this.#tails.delete(key);
      done.resolve();
    }
  }
}

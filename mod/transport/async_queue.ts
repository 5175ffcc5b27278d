/** A queue between who produces and one consumer that iterates. */

/** Values as they are pushed; iteration ends with end(). For one consumer. */
export class AsyncQueue<Value> implements AsyncIterable<Value> {
  readonly #values: Value[] = [];
  #wake: (() => void) | undefined;
  #ended = false;

  /** Values that nobody took yet. */
  get length(): number {
    return this.#values.length;
  }

  /** Adds a value; the caller does not push after end(). */
  push(value: Value): void {
    this.#values.push(value);
    this.#wake?.();
  }

  /** No more will come; returns what nobody took. Idempotent. */
  end(): Value[] {
    this.#ended = true;
    this.#wake?.();
    return this.#values.splice(0);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Value> {
    while (true) {
      while (this.#values.length > 0) yield this.#values.shift()!;
      if (this.#ended) return;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}

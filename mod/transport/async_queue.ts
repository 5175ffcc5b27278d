/** A queue between who produces and one consumer that iterates. */

/** Values as they are pushed; iteration ends with end(). For one consumer. */
export class AsyncQueue<Value> implements AsyncIterable<Value> {
  readonly #values: Value[] = [];
  readonly #onTaken: (() => void) | undefined;
  #wake: (() => void) | undefined;
  #ended = false;

  /** `onTaken` is called for each value that leaves the queue, also through end(). */
  constructor(onTaken?: () => void) {
    this.#onTaken = onTaken;
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
    const left = this.#values.splice(0);
    left.forEach(() => this.#onTaken?.());
    return left;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Value> {
    while (true) {
      while (this.#values.length > 0) {
        const value = this.#values.shift()!;
        this.#onTaken?.();
        yield value;
      }
      if (this.#ended) return;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}

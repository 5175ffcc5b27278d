/** How many requests are being worked on, and when there are none. */
/** Counts requests of all connections. */
export class RequestsInFlight {
  #count = 0;
  #whenIdle: (() => void)[] = [];

  /** Requests being worked on now. */
  get count(): number {
    return this.#count;
  }

  begin(): void {
    this.#count++;
  }

  end(): void {
    this.#count--;
    if (this.#count > 0) return;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** Resolves as soon as nothing is being worked on. */
  idle(): Promise<void> {
    return this.#count === 0 ? Promise.resolve() : new Promise((resolve) => this.#whenIdle.push(resolve));
  }
}

/** Those of one connection. */
export class ConnectionInFlight {
  readonly #all: RequestsInFlight;
  readonly #gone: AbortSignal;
  #count = 0;
  #waiting: (() => void)[] = [];

  constructor(all: RequestsInFlight, gone: AbortSignal) {
    this.#all = all;
    this.#gone = gone;
  }

  /** Those being worked on now. */
  get count(): number {
    return this.#count;
  }

  begin(): void {
    this.#count++;
    this.#all.begin();
  }

  end(): void {
    this.#count--;
    this.#all.end();
    this.wake();
  }

  /** Resolves when `enough` says so; it is asked again after every request. Resolves when the connection is gone. */
  async until(enough: (count: number) => boolean): Promise<void> {
    while (!enough(this.#count) && !this.#gone.aborted) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** Asks those who wait again. */
  wake(): void {
    if (this.#waiting.length === 0) return;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

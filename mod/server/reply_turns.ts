/**
 * Large replies of one connection are made one after another, each when the one before has left: whatever a client
 * pipelines, a connection holds about one of them.
 */

/** The turns of one connection. */
export class ReplyTurns {
  taken = false;
  readonly waiting: (() => void)[] = [];

  /** A request's own turn; `roomToWrite` is awaited once it has come. */
  forRequest(roomToWrite: () => Promise<void>): ReplyTurn {
    return new ReplyTurn(this, roomToWrite);
  }
}

/** One request's turn to make a large reply. Given back after the reply is written, whatever happened. */
export class ReplyTurn {
  readonly #turns: ReplyTurns;
  readonly #roomToWrite: () => Promise<void>;
  #mine = false;

  constructor(turns: ReplyTurns, roomToWrite: () => Promise<void>) {
    this.#turns = turns;
    this.#roomToWrite = roomToWrite;
  }

  async take(): Promise<void> {
    if (this.#mine) return;
    if (this.#turns.taken) await new Promise<void>((resolve) => this.#turns.waiting.push(resolve));
    this.#turns.taken = true;
    this.#mine = true;
    await this.#roomToWrite();
  }

  /** Before the reply, when there is none yet (a wait that parks again). Idempotent. */
  giveBack(): void {
    if (!this.#mine) return;
    this.#mine = false;
    const next = this.#turns.waiting.shift();
    if (next) next();
    else this.#turns.taken = false;
  }
}

/**
 * Large replies of one connection are made one after another, each when the one before has left: whatever a client
 * pipelines, a connection holds about one of them.
 */

/** The turns of one connection. */
export class ReplyTurns {
  #taken = false;
  readonly #waiting: (() => void)[] = [];

  /** A request's own turn; `roomToWrite` is awaited once it has come. */
  forRequest(roomToWrite: () => Promise<void>): ReplyTurn {
    let mine = false;
    return {
      take: async () => {
        if (mine) return;
        if (this.#taken) await new Promise<void>((resolve) => this.#waiting.push(resolve));
        this.#taken = true;
        mine = true;
        await roomToWrite();
      },
      giveBack: () => {
        if (!mine) return;
        mine = false;
        const next = this.#waiting.shift();
        if (next) next();
        else this.#taken = false;
      },
    };
  }
}

/** One request's turn to make a large reply. Given back after the reply is written, whatever happened. */
export interface ReplyTurn {
  take(): Promise<void>;
  /** Before the reply, when there is none yet (a wait that parks again). Idempotent. */
  giveBack(): void;
}

/**
 * Questions to a person on a terminal: a line without echo for passwords, a line with echo for the rest. What is
 * typed or pasted ahead waits for the next question. The terminal is raw only while it waits for an answer.
 */
import type { Terminal } from "../terminal.ts";

const ENTER = [0x0d, 0x0a];
const CTRL_C = 0x03;
const CTRL_D = 0x04;
const CTRL_U = 0x15;
const BACKSPACE = [0x7f, 0x08];
const ESCAPE = 0x1b;

/** A person pressed Ctrl-C, or the input ended, before the answer. */
export class CancelledError extends Error {
  override name = "CancelledError";

  constructor() {
    super("Cancelled; nothing was changed");
  }
}

/** Asks on a terminal; one for each command, as it keeps what was typed ahead. */
export class Prompter {
  readonly #terminal: Terminal;
  #ahead: number[] = [];

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  /** Can anybody be asked? */
  get canAsk(): boolean {
    return this.#terminal.input.isTerminal;
  }

  /** A line that is not shown while it is typed. Throws CancelledError. */
  secret(question: string): Promise<string> {
    return this.#ask(question, "hidden");
  }

  /** A line. Throws CancelledError. */
  line(question: string): Promise<string> {
    return this.#ask(question, "shown");
  }

  async #ask(question: string, typed: "hidden" | "shown"): Promise<string> {
    const { input } = this.#terminal;
    // Raw before the question is shown: whoever answers a question that they see is never echoed.
    input.setMode("raw");
    try {
      this.#terminal.error(question);
      return await this.#answer(typed);
    } finally {
      input.setMode("cooked");
      this.#terminal.error("\n");
    }
  }

  async #answer(typed: "hidden" | "shown"): Promise<string> {
    let bytes: number[] = [];
    while (true) {
      const byte = await this.#next();
      if (byte === null || byte === CTRL_C || (byte === CTRL_D && bytes.length === 0)) {
        throw new CancelledError();
      }
      if (ENTER.includes(byte)) {
        if (byte === ENTER[0] && this.#ahead[0] === ENTER[1]) this.#ahead.shift();
        return textOf(bytes);
      }
      if (byte === ESCAPE) this.#skipKey();
      const former = bytes;
      if (byte === CTRL_U) bytes = [];
      else if (BACKSPACE.includes(byte)) bytes = withoutLastCharacter(bytes);
      else if (byte >= 0x20) bytes = [...bytes, byte];
      if (typed === "shown") this.#echo(former, bytes);
    }
  }

  /** Drops the rest of an arrow or function key, which would leave letters in the answer. */
  #skipKey(): void {
    const key = /^(\[[0-?]*[ -/]*[@-~]|O[@-~])/.exec(String.fromCharCode(...this.#ahead.slice(0, 16)));
    if (key) this.#ahead.splice(0, key[0].length);
  }

  #echo(former: readonly number[], bytes: readonly number[]): void {
    const gone = [...textOf(former)].length;
    const now = textOf(bytes);
    // Half of a character is shown when the rest of it has come.
    if (bytes.length > former.length && now.endsWith("\ufffd")) return;
    const shown = bytes.length > former.length ? [...now].at(-1)! : "\b \b".repeat(gone - [...now].length);
    this.#terminal.error(shown);
  }

  async #next(): Promise<number | null> {
    while (this.#ahead.length === 0) {
      const bytes = await this.#terminal.input.read();
      if (bytes === null) return null;
      this.#ahead.push(...bytes);
    }
    return this.#ahead.shift()!;
  }
}

function textOf(bytes: readonly number[]): string {
  return new TextDecoder().decode(new Uint8Array(bytes));
}

function withoutLastCharacter(bytes: readonly number[]): number[] {
  const end = bytes.findLastIndex((byte) => (byte & 0xc0) !== 0x80); // where its UTF-8 begins
  return bytes.slice(0, Math.max(0, end));
}

/** Where a chat is shown: a terminal with the line that is typed at the bottom, or plain lines for programs. */
import type { ClientEvent } from "../../client/mod.ts";
import type { Terminal } from "../terminal.ts";
import type { Context } from "./context.ts";
import { eventObject, isMessage } from "./events.ts";
import { LineEditor } from "./line_editor.ts";
import { indented, textWidth } from "./output.ts";

/** What a chat prints on and reads from. */
export interface Screen extends Disposable {
  /** Lines as a person finishes them; ends with the input, Ctrl-C or the signal. */
  lines(signal: AbortSignal): AsyncGenerator<string, void, void>;
  /** Something that was received. */
  show(event: ClientEvent, line: string): void;
  /** Something that was sent. */
  sent(prefix: string, text: string): void;
  /** Talk. */
  say(text: string): void;
  /** Something that was typed could not be done. */
  failed: boolean;
}

const PROMPT = "> ";
const PASTE_ON = "\x1b[?2004h";
const PASTE_OFF = "\x1b[?2004l";
const CLEAR_LINE = "\r\x1b[K";
const CLEAR_SCREEN = "\x1b[2J\x1b[H";

/** A terminal in raw mode: the line that is typed stays below what comes in. */
export class TerminalScreen implements Screen {
  failed = false;
  readonly #terminal: Terminal;
  readonly #editor = new LineEditor();

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
    terminal.input.setMode("raw");
    terminal.out(PASTE_ON);
    this.#draw();
  }

  async *lines(signal: AbortSignal): AsyncGenerator<string, void, void> {
    for await (const bytes of inputUntil(this.#terminal, signal)) {
      for (const event of this.#editor.feed(bytes)) {
        if (event.kind === "end") return;
        if (event.kind === "redraw") this.#terminal.out(CLEAR_SCREEN);
        else yield event.text;
      }
      this.#draw();
    }
  }

  show(_event: ClientEvent, line: string): void {
    this.say(line);
  }

  sent(prefix: string, text: string): void {
    this.say(prefix + indented(text, textWidth(prefix)));
  }

  say(text: string): void {
    this.#terminal.out(`${CLEAR_LINE}${text.replaceAll("\n", "\r\n")}\r\n`);
    this.#draw();
  }

  #draw(): void {
    const view = this.#editor.view(this.#terminal.columns() - PROMPT.length);
    const column = PROMPT.length + view.cursorColumn;
    this.#terminal.out(`${CLEAR_LINE}${PROMPT}${view.text}\r\x1b[${column}C`);
  }

  [Symbol.dispose](): void {
    this.#terminal.out(CLEAR_LINE + PASTE_OFF);
    this.#terminal.input.setMode("cooked");
  }
}

/** For pipes and programs: lines in, lines or JSON out. */
export class LineScreen implements Screen {
  failed = false;
  readonly #context: Context;

  constructor(context: Context) {
    this.#context = context;
  }

  async *lines(signal: AbortSignal): AsyncGenerator<string, void, void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const bytes of inputUntil(this.#context.terminal, signal)) {
      const lines = (rest + decoder.decode(bytes, { stream: true })).split(/\r?\n/);
      rest = lines.pop()!;
      yield* lines;
    }
    rest += decoder.decode();
    if (rest !== "" && !signal.aborted) yield rest;
  }

  show(event: ClientEvent, line: string): void {
    const { output } = this.#context;
    if (isMessage(event)) output.data(eventObject(event), line);
    else output.talk(line);
  }

  sent(): void {
    // Whoever wrote it knows it.
  }

  say(text: string): void {
    this.#context.output.talk(text);
  }

  [Symbol.dispose](): void {}
}

/** What is typed, until the input ends or the signal aborts; a read that is under way is left behind then. */
async function* inputUntil(terminal: Terminal, signal: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
  const aborted = new Promise<null>((resolve) => {
    if (signal.aborted) resolve(null);
    else signal.addEventListener("abort", () => resolve(null), { once: true });
  });
  while (!signal.aborted) {
    const bytes = await Promise.race([terminal.input.read(), aborted]);
    if (bytes === null) return;
    yield bytes;
  }
}

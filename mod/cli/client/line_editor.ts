/**
 * The line that a person types while messages come in: keys in, lines out, and how the line looks. Knows nothing of the
 * terminal's modes and prints nothing. A pasted line break stays in the line, shown as ⏎, and goes out with it.
 */
import { graphemes, graphemeWidth } from "./output.ts";

/** What a key did, beside changing the line. */
export type EditorEvent =
  | { readonly kind: "line"; readonly text: string }
  /** Ctrl-C, or Ctrl-D in an empty line. */
  | { readonly kind: "end" }
  /** Ctrl-L. */
  | { readonly kind: "redraw" };

/** A line as it is shown: at most so many columns, and where in it the cursor stands. */
export interface EditorView {
  readonly text: string;
  readonly cursorColumn: number;
}

const HISTORY_MAX = 200;
// deno-lint-ignore no-control-regex -- keys are control characters
const SEQUENCE = /^\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~]|[^[O])/;
// deno-lint-ignore no-control-regex
const UNFINISHED = /^\x1b(?:\[[0-?]*[ -/]*|O)?$/;
const PASTE_BEGIN = "\x1b[200~";
const PASTE_END = "\x1b[201~";

/** Keys that are sequences, by what they do. */
const SEQUENCE_KEYS: Readonly<Record<string, (editor: EditorState) => void>> = {
  "\x1b[D": (editor) => editor.move(-1),
  "\x1bOD": (editor) => editor.move(-1),
  "\x1b[C": (editor) => editor.move(1),
  "\x1bOC": (editor) => editor.move(1),
  "\x1b[H": (editor) => editor.move(-Infinity),
  "\x1bOH": (editor) => editor.move(-Infinity),
  "\x1b[1~": (editor) => editor.move(-Infinity),
  "\x1b[F": (editor) => editor.move(Infinity),
  "\x1bOF": (editor) => editor.move(Infinity),
  "\x1b[4~": (editor) => editor.move(Infinity),
  "\x1b[3~": (editor) => editor.deleteForward(),
  "\x1b[A": (editor) => editor.recall(-1),
  "\x1bOA": (editor) => editor.recall(-1),
  "\x1b[B": (editor) => editor.recall(1),
  "\x1bOB": (editor) => editor.recall(1),
};

/** Keys that are one control character. */
const CONTROL_KEYS: Readonly<Record<string, (editor: EditorState) => void>> = {
  "\x7f": (editor) => editor.deleteBackward(),
  "\b": (editor) => editor.deleteBackward(),
  "\x01": (editor) => editor.move(-Infinity), // Ctrl-A
  "\x05": (editor) => editor.move(Infinity), // Ctrl-E
  "\x02": (editor) => editor.move(-1), // Ctrl-B
  "\x06": (editor) => editor.move(1), // Ctrl-F
  "\x04": (editor) => editor.deleteForward(), // Ctrl-D
  "\x0b": (editor) => editor.deleteToEnd(), // Ctrl-K
  "\x15": (editor) => editor.deleteToBegin(), // Ctrl-U
  "\x17": (editor) => editor.deleteWord(), // Ctrl-W
  "\x10": (editor) => editor.recall(-1), // Ctrl-P
  "\x0e": (editor) => editor.recall(1), // Ctrl-N
  "\t": (editor) => editor.insert(" "),
};

/** The line and the cursor in it. */
class EditorState {
  characters: string[] = [];
  cursor = 0;
  readonly #history: string[] = [];
  /** Which line of the history is shown; its length for the line that is being written. */
  #recalled = 0;
  #draft = "";

  get text(): string {
    return this.characters.join("");
  }

  set(text: string): void {
    this.characters = graphemes(text);
    this.cursor = this.characters.length;
  }

  insert(text: string): void {
    const before = this.characters.slice(0, this.cursor).join("") + text;
    // Marks and emoji parts join what stands before them.
    const start = graphemes(before);
    this.characters = [...start, ...this.characters.slice(this.cursor)];
    this.cursor = start.length;
  }

  move(by: number): void {
    this.cursor = Math.min(this.characters.length, Math.max(0, this.cursor + by));
  }

  deleteBackward(): void {
    if (this.cursor > 0) this.characters.splice(--this.cursor, 1);
  }

  deleteForward(): void {
    this.characters.splice(this.cursor, 1);
  }

  deleteToEnd(): void {
    this.characters.splice(this.cursor);
  }

  deleteToBegin(): void {
    this.characters.splice(0, this.cursor);
    this.cursor = 0;
  }

  deleteWord(): void {
    const before = this.characters.slice(0, this.cursor).join("");
    const kept = graphemes(before.replace(/\S+\s*$/, ""));
    this.characters.splice(kept.length, this.cursor - kept.length);
    this.cursor = kept.length;
  }

  recall(by: number): void {
    const next = Math.min(this.#history.length, Math.max(0, this.#recalled + by));
    if (next === this.#recalled) return;
    if (this.#recalled === this.#history.length) this.#draft = this.text;
    this.#recalled = next;
    this.set(this.#history[next] ?? this.#draft);
  }

  take(): string {
    const { text } = this;
    if (text.trim() !== "" && text !== this.#history.at(-1)) this.#history.push(text);
    if (this.#history.length > HISTORY_MAX) this.#history.shift();
    this.#recalled = this.#history.length;
    this.#draft = "";
    this.set("");
    return text;
  }
}

/** The line of one chat. */
export class LineEditor {
  readonly #state = new EditorState();
  readonly #decoder = new TextDecoder();
  /** The beginning of a key that came in two pieces. */
  #unfinished = "";
  #pasting = false;

  /** What is being written. */
  get text(): string {
    return this.#state.text;
  }

  /** Takes what was typed. */
  feed(bytes: Uint8Array): EditorEvent[] {
    const events: EditorEvent[] = [];
    let rest = this.#unfinished + this.#decoder.decode(bytes, { stream: true });
    this.#unfinished = "";
    while (rest !== "") {
      if (UNFINISHED.test(rest)) {
        this.#unfinished = rest;
        break;
      }
      const key = SEQUENCE.exec(rest)?.[0] ?? textKey(rest);
      rest = rest.slice(key.length);
      const event = this.#pasting ? this.#paste(key) : this.#press(key);
      if (event) events.push(event);
    }
    return events;
  }

  #press(key: string): EditorEvent | undefined {
    if (key === PASTE_BEGIN) this.#pasting = true;
    else if (key === "\r" || key === "\n") return { kind: "line", text: this.#state.take() };
    else if (key === "\x03" || (key === "\x04" && this.#state.characters.length === 0)) {
      return { kind: "end" };
    } else if (key === "\x0c") return { kind: "redraw" };
    else if (key.startsWith("\x1b")) SEQUENCE_KEYS[key]?.(this.#state);
    else if (CONTROL_KEYS[key]) CONTROL_KEYS[key](this.#state);
    else if (key >= " ") this.#state.insert(key);
    return undefined;
  }

  #paste(key: string): undefined {
    if (key === PASTE_END) this.#pasting = false;
    else if (key === "\r" || key === "\n") this.#state.insert("\n");
    else if (key === "\t" || (key >= " " && key !== "\x7f" && !key.startsWith("\x1b"))) {
      this.#state.insert(key);
    }
  }

  /** The part of the line around the cursor that fits. */
  view(columns: number): EditorView {
    const { characters, cursor } = this.#state;
    const shown = characters.map((one) => one === "\n" || one === "\r\n" ? "⏎" : one === "\t" ? " " : one);
    const room = Math.max(1, columns - 1); // the cursor needs a place behind the text
    let begin = cursor;
    let before = 0;
    while (begin > 0 && before + graphemeWidth(shown[begin - 1]!) <= room) {
      before += graphemeWidth(shown[--begin]!);
    }
    let end = cursor;
    let width = before;
    while (end < shown.length && width + graphemeWidth(shown[end]!) <= room) {
      width += graphemeWidth(shown[end++]!);
    }
    return { text: shown.slice(begin, end).join(""), cursorColumn: before };
  }
}

/** One control character, or all plain text up to the next. */
function textKey(text: string): string {
  // deno-lint-ignore no-control-regex
  return /^[^\x00-\x1f\x7f]+/.exec(text)?.[0] ?? text[0]!;
}

/**
 * What the client's commands print: data to stdout, as text or (`--json`) one object a line; talk to stderr. Text
 * that others wrote passes printableText(), so that nobody's message moves the cursor or hides another.
 */
import { printableText } from "../../client/mod.ts";
import type { Terminal } from "../terminal.ts";

/** Prints for one command. */
export class Output {
  readonly json: boolean;
  readonly #terminal: Terminal;

  constructor(terminal: Terminal, options: { json: boolean }) {
    this.#terminal = terminal;
    this.json = options.json;
  }

  /** A result: the object for programs, the text (lines without the last newline) for people. */
  data(object: Readonly<Record<string, unknown>>, text: string): void {
    if (this.json) this.#terminal.out(JSON.stringify(object) + "\n");
    else if (text !== "") this.#terminal.out(text + "\n");
  }

  /** Something a person may want to know beside the result. */
  talk(text: string): void {
    this.#terminal.error(text + "\n");
  }

  /** Something that was done: talk for people, an object for programs. */
  done(object: Readonly<Record<string, unknown>>, text: string): void {
    if (this.json) this.data(object, "");
    else if (text !== "") this.talk(text);
  }
}

/** Text of others in one line. */
export function oneLine(text: string): string {
  return printableText(text).replaceAll(/\s+/g, " ").trim();
}

/** Text of others; further lines stand under the first, `indent` wide, so that none looks like a line of ours. */
export function indented(text: string, indent: number): string {
  return printableText(text.replaceAll("\r\n", "\n")).replaceAll("\n", "\n" + " ".repeat(indent));
}

/** Rows in columns, the first row is the heading. */
export function table(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [heading, ...rows];
  const widths = heading.map((_, column) => Math.max(...all.map((row) => textWidth(row[column] ?? ""))));
  const line = (row: readonly string[]) =>
    row.map((cell, column) => cell + " ".repeat(widths[column]! - textWidth(cell))).join("  ").trimEnd();
  return all.map(line).join("\n");
}

/** A time as people write it: the clock for today, else the date with it. */
export function timeText(unixMs: number, now: number = Date.now()): string {
  const time = new Date(unixMs);
  const two = (value: number) => String(value).padStart(2, "0");
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}`;
  if (time.toDateString() === new Date(now).toDateString()) return clock;
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${clock}`;
}

/** A size as people write it. */
export function sizeText(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let value = bytes / 1024;
  let unit = 0;
  while (value >= 1023.95 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value.toFixed(1)} ${units[unit]}`;
}

const segmenter = new Intl.Segmenter(undefined, { granularity: "grapheme" });
const WIDE =
  /\p{Emoji_Presentation}|\ufe0f|[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{20000}-\u{3fffd}]/u;

/** What a person takes for one character each. */
export function graphemes(text: string): string[] {
  return [...segmenter.segment(text)].map(({ segment }) => segment);
}

/** Columns that a text takes on a terminal. */
export function textWidth(text: string): number {
  return graphemes(text).reduce((width, one) => width + graphemeWidth(one), 0);
}

/** Columns of one character: East Asian and emoji take two, a lone mark none. */
export function graphemeWidth(one: string): number {
  if (WIDE.test(one)) return 2;
  return /^\p{Mark}+$/u.test(one) ? 0 : 1;
}

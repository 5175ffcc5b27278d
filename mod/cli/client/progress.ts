/** A progress bar on stderr, for a terminal only: `photo.jpg  [#####-----]  52 %  1.1 MiB of 2.1 MiB`. */
import type { Terminal } from "../terminal.ts";
import { oneLine, sizeText, textWidth } from "./output.ts";

const BAR_COLUMNS = 30;
/** A terminal is not drawn on more often. */
const REDRAW_MS = 100;

/** One transfer. */
export class ProgressBar implements Disposable {
  readonly #terminal: Terminal;
  readonly #label: string;
  readonly #now: () => number;
  #drawn = "";
  #drawnAt = -Infinity;

  constructor(terminal: Terminal, options: { label: string; now?: () => number }) {
    this.#terminal = terminal;
    this.#label = oneLine(options.label);
    this.#now = options.now ?? (() => performance.now());
  }

  /** So many bytes are done. */
  update(bytes: number, total: number): void {
    if (!this.#terminal.errorIsTerminal) return;
    const now = this.#now();
    if (bytes < total && now - this.#drawnAt < REDRAW_MS) return;
    const line = progressLine({ label: this.#label, bytes, total, columns: this.#terminal.columns() });
    if (line === this.#drawn) return;
    this.#terminal.error(`\r${line}\x1b[K`);
    this.#drawn = line;
    this.#drawnAt = now;
  }

  /** Takes the bar away, so that the next line begins at the left. */
  [Symbol.dispose](): void {
    if (this.#drawn !== "") this.#terminal.error("\r\x1b[K");
    this.#drawn = "";
  }
}

/** The bar as it is drawn in one line of a terminal with so many columns. */
export function progressLine(
  progress: { label: string; bytes: number; total: number; columns: number },
): string {
  const { bytes, total } = progress;
  const part = total > 0 ? Math.min(1, bytes / total) : 1;
  const percent = `${Math.floor(part * 100)} %`.padStart(5);
  const numbers = `${percent}  ${sizeText(bytes)} of ${sizeText(total)}`;
  const room = progress.columns - 1 - numbers.length - 2;
  const barColumns = Math.min(
    BAR_COLUMNS,
    Math.max(0, room - 2 - Math.min(24, textWidth(progress.label) + 2)),
  );
  const filled = Math.round(part * barColumns);
  const bar = barColumns >= 5 ? `[${"#".repeat(filled)}${"-".repeat(barColumns - filled)}]  ` : "";
  const label = cut(progress.label, room - bar.length);
  return `${label}${label === "" ? "" : "  "}${bar}${numbers}`;
}

function cut(text: string, columns: number): string {
  if (textWidth(text) <= columns) return text;
  let kept = [...text];
  while (kept.length > 0 && textWidth(kept.join("")) + 1 > columns) kept = kept.slice(0, -1);
  return kept.length === 0 ? "" : kept.join("") + "…";
}

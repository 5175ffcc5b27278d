/** A terminal that a test types on and reads from. */
import type { Terminal } from "../../mod/cli/terminal.ts";

/** What it is. */
export interface FakeTerminalOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly columns?: number;
  /** What is typed, in the pieces in which it arrives; then the input ends. */
  readonly typed?: readonly (string | Uint8Array)[];
}

/** Keeps what is printed. */
export class FakeTerminal implements Terminal {
  readonly env: Readonly<Record<string, string>>;
  readonly outIsTerminal = true;
  readonly errorIsTerminal = true;
  readonly invocation = { server: "qpq-server", client: "qpq-client" };
  readonly input: Terminal["input"];
  printed = "";
  said = "";
  /** Modes that were set, in order. */
  readonly modes: string[] = [];
  readonly #columns: number;

  constructor(options: FakeTerminalOptions = {}) {
    this.env = options.env ?? {};
    this.#columns = options.columns ?? 80;
    const pieces = [...options.typed ?? []];
    this.input = {
      isTerminal: true,
      read: () => {
        const piece = pieces.shift();
        const bytes = typeof piece === "string" ? new TextEncoder().encode(piece) : piece;
        return Promise.resolve(bytes ?? null);
      },
      setMode: (mode) => this.modes.push(mode),
    };
  }

  out(text: string): void {
    this.printed += text;
  }

  hint(text: string): void {
    this.printed += text;
  }

  error(text: string): void {
    this.said += text;
  }

  columns(): number {
    return this.#columns;
  }

  onInterrupt(): void {}

  onHangup(): void {}
}

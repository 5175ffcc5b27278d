/** What a command sees of the process it runs in. main.ts makes the real one. */

/** Streams, environment and signals. */
export interface Terminal {
  readonly env: Readonly<Record<string, string>>;
  /** Data goes here. */
  out(text: string): void;
  /** Talk goes here. */
  error(text: string): void;
  /** Goes to stdout if somebody reads it: a server does not end with the window it was started in. */
  hint(text: string): void;
  /** stdout is a terminal. */
  readonly outIsTerminal: boolean;
  /** stderr is a terminal. */
  readonly errorIsTerminal: boolean;
  readonly input: TerminalInput;
  /** Characters in a line of the terminal; 80 when there is none. */
  columns(): number;
  /** Called once for the first SIGINT or SIGTERM; another one, a second later or more, ends the process at once. */
  onInterrupt(callback: (signal: string) => void): void;
  /** Called for every SIGHUP from now on, which then no longer ends the process. */
  onHangup(callback: () => void): void;
  /** How the program was called: what a hint to the user begins with. */
  readonly invocation: Invocation;
}

/** What is typed or piped in. */
export interface TerminalInput {
  readonly isTerminal: boolean;
  /** The next bytes; null at the end. */
  read(): Promise<Uint8Array | null>;
  /** `raw`: each key as it is typed, without echo, Ctrl-C among them. `cooked`: whole lines. */
  setMode(mode: "raw" | "cooked"): void;
}

/** Command lines that reach this program again. */
export interface Invocation {
  readonly server: string;
  readonly client: string;
}

/** Wrong usage: exit code 2. The message says what was wrong, and the help how it is right. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** The command has printed its result; the process ends with this code. */
export class ExitCode extends Error {
  override name = "ExitCode";
  constructor(readonly code: number) {
    super(`exit code ${code}`);
  }
}

/** What a command sees of the process it runs in. main.ts makes the real one. */

/** Streams, environment and signals. */
export interface Terminal {
  readonly env: Readonly<Record<string, string>>;
  /** Data goes here. */
  out(text: string): void;
  /** Talk goes here. */
  error(text: string): void;
  /** stderr is a terminal. */
  readonly errorIsTerminal: boolean;
  /** stdin is a terminal. */
  readonly inputIsTerminal: boolean;
  /** Called once for the first SIGINT or SIGTERM; a second one ends the process at once. */
  onInterrupt(callback: (signal: string) => void): void;
  /** How the program was called: what a hint to the user begins with. */
  readonly invocation: Invocation;
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

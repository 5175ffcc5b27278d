/** The program as its operator runs it: any words, any folder, its output as lines. Ends with the test. */
import { DENO_RUN_ARGS } from "./server_process.ts";

/** What a run may choose. */
export interface RunOptions {
  /** Working folder. */
  readonly cwd: string;
  /** Beside what a program always has; nothing else of the tests' environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** A command that runs the rest of its words, as in `["setpriv", "--reuid=65534"]`. */
  readonly via?: readonly string[];
  /** Of `deno run`, before the program's own words. */
  readonly runtimeFlags?: readonly string[];
  /** What it reads: all of it, or "open" for what {@link Program.type} gives it. Default: nothing. */
  readonly input?: string;
}

/** How a run ended. */
export interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

const PASSED_ON = ["PATH", "HOME", "DENO_DIR", "TMPDIR", "NPM_CONFIG_REGISTRY"];

/** `deno run … main.ts` with these words, as a command line. */
export function commandLine(words: readonly string[], runtimeFlags: readonly string[] = []): string[] {
  const [run, ...args] = DENO_RUN_ARGS;
  return [Deno.execPath(), run!, ...runtimeFlags, ...args, ...words];
}

/** A running program. */
export class Program implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #outputs: [Output, Output];
  readonly #input: WritableStreamDefaultWriter<Uint8Array> | undefined;

  constructor(words: readonly string[], options: RunOptions) {
    const passedOn = PASSED_ON.map((name) => [name, Deno.env.get(name)]).filter(([, value]) => value);
    const [program, ...args] = [...(options.via ?? []), ...commandLine(words, options.runtimeFlags)];
    this.#child = new Deno.Command(program!, {
      args,
      cwd: options.cwd,
      clearEnv: true,
      env: { ...Object.fromEntries(passedOn), NO_COLOR: "1", ...options.env },
      stdin: options.input === undefined ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#outputs = [new Output(this.#child.stdout), new Output(this.#child.stderr)];
    if (options.input === undefined) return;
    this.#input = this.#child.stdin.getWriter();
    if (options.input !== "open") this.#write(options.input).then(() => this.#input?.close()).catch(() => {});
  }

  /** Runs to the end. */
  static async run(words: readonly string[], options: RunOptions): Promise<Ended> {
    await using program = new Program(words, options);
    return await program.ended();
  }

  /** Its process id; of what `via` runs if that does not replace itself. */
  get pid(): number {
    return this.#child.pid;
  }

  /** What it has written to stdout. */
  get out(): string {
    return this.#outputs[0].text;
  }

  /** What it has written to stderr: its log. */
  get err(): string {
    return this.#outputs[1].text;
  }

  /** Lines of the log as objects. */
  get log(): Record<string, unknown>[] {
    return this.err.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
  }

  /** Waits until the log matches; throws with the whole of it when the program ends before. */
  async logged(pattern: RegExp): Promise<RegExpExecArray> {
    return await this.#outputs[1].matched(pattern);
  }

  /** Waits until stdout matches. */
  async printed(pattern: RegExp): Promise<RegExpExecArray> {
    return await this.#outputs[0].matched(pattern);
  }

  /** Writes to its stdin, which has to be "open". */
  async type(text: string): Promise<void> {
    await this.#write(text);
  }

  /** Its stdin ends. */
  async endInput(): Promise<void> {
    await this.#input!.close();
  }

  async #write(text: string): Promise<void> {
    await this.#input!.write(new TextEncoder().encode(text));
  }

  signal(name: Deno.Signal): void {
    this.#child.kill(name);
  }

  /** Waits for its end. */
  async ended(): Promise<Ended> {
    const { code } = await this.#child.status;
    await this.#input?.abort().catch(() => {}); // it may be closed
    await Promise.all(this.#outputs.map((output) => output.ended));
    return { code, out: this.out, err: this.err };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.ended();
  }
}

/** A stream's text as it comes. */
class Output {
  text = "";
  readonly ended: Promise<void>;
  #open = true;
  #waiting: (() => void)[] = [];

  constructor(stream: ReadableStream<Uint8Array>) {
    this.ended = this.#read(stream);
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      this.text += text;
      this.#wake();
    }
    this.#open = false;
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  async matched(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this.text);
      if (match) return match;
      if (!this.#open) throw new Error(`The program ended without ${pattern}:\n${this.text}`);
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }
}

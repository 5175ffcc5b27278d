/** Both ends of a process of an abuse run: JSON lines in, JSON lines out. */

/** The end in the child: what it is told, line by line. */
export async function* told(): AsyncGenerator<unknown> {
  for await (const line of linesOf(Deno.stdin.readable)) yield JSON.parse(line);
}

/** Answers the parent. */
export function tell(message: unknown): void {
  console.log(JSON.stringify(message));
}

/** The end in the parent. */
export class Child implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #lines: AsyncGenerator<string>;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;

  private constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#lines = linesOf(process.stdout);
    this.#input = process.stdin.getWriter();
  }

  /** Starts a script of this folder; with the lowest priority if it is to take only what others leave. */
  static start(script: string, options: { nice: boolean }): Child {
    const path = new URL(script, import.meta.url).pathname;
    const deno = ["run", "--quiet", "--cached-only", "--no-check", "--allow-all", path];
    const [program, ...args] = options.nice
      ? ["nice", "-n", "19", Deno.execPath(), ...deno]
      : [Deno.execPath(), ...deno];
    const command = new Deno.Command(program!, {
      args,
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    });
    return new Child(command.spawn());
  }

  /** Says something. */
  async say(message: unknown): Promise<void> {
    await this.#input.write(new TextEncoder().encode(JSON.stringify(message) + "\n"));
  }

  /** Says something and waits for an answer. */
  async ask(message: unknown): Promise<unknown> {
    await this.say(message);
    return await this.answer();
  }

  /** Its next line; throws when it ends before. */
  async answer(): Promise<unknown> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("A process of the run ended early");
    return JSON.parse(value);
  }

  /** Processor time since its start, ms. */
  async cpuMs(): Promise<number> {
    const stat = await Deno.readTextFile(`/proc/${this.#process.pid}/stat`);
    const fields = stat.replace(/^.*\) /, "").split(" ");
    return (Number(fields[11]) + Number(fields[12])) * 10;
  }

  /** Ends it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close().catch(() => {});
    try {
      this.#process.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await this.#lines.return(undefined);
    await this.#process.status;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}

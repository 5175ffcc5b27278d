/** A program of the system (Prometheus, Chromium, …) beside a test: started, waited for by its log, ended. */

/** What to start. */
export interface BackgroundOptions {
  readonly program: string;
  readonly args: readonly string[];
  /** Debian package that has it. */
  readonly debianPackage: string;
}

/** A running program; its stderr is kept. */
export class BackgroundProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #lines: string[] = [];
  readonly #ended: Promise<void>;
  readonly #name: string;
  #onLine: () => void = () => {};
  #over = false;

  private constructor(child: Deno.ChildProcess, name: string) {
    this.#child = child;
    this.#name = name;
    this.#ended = this.#read();
  }

  /** Starts it; throws with what to install when it is not there. */
  static start(options: BackgroundOptions): BackgroundProcess {
    const { program, args, debianPackage } = options;
    try {
      const child = new Deno.Command(program, {
        args: [...args],
        stdin: "null",
        stdout: "null",
        stderr: "piped",
      }).spawn();
      return new BackgroundProcess(child, program);
    } catch (error) {
      throw notInstalled(error, { program, debianPackage });
    }
  }

  /** What it has logged. */
  get log(): string {
    return this.#lines.join("\n");
  }

  /** The first match in its log, now or later; throws with the log when it ends before. */
  async match(pattern: RegExp): Promise<RegExpExecArray> {
    while (true) {
      const changed = new Promise<void>((resolve) => this.#onLine = resolve);
      for (const line of this.#lines) {
        const match = pattern.exec(line);
        if (match) return match;
      }
      if (this.#over) throw new Error(`${this.#name} ended without ${pattern}:\n${this.log}`);
      await changed;
    }
  }

  async #read(): Promise<void> {
    let rest = "";
    for await (const text of this.#child.stderr.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      this.#lines.push(...lines);
      this.#onLine();
    }
    this.#over = true;
    this.#onLine();
  }

  /** Ends it and waits for its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGTERM");
    } catch {
      // It has ended by itself.
    }
    await this.#child.status;
    await this.#ended;
  }
}

/** Runs a program to its end. Throws with what to install when it is not there. */
export async function runTool(options: BackgroundOptions): Promise<{ code: number; output: string }> {
  const { program, args, debianPackage } = options;
  try {
    const { code, stdout, stderr } = await new Deno.Command(program, { args: [...args], stdin: "null" })
      .output();
    const decoder = new TextDecoder();
    return { code, output: decoder.decode(stdout) + decoder.decode(stderr) };
  } catch (error) {
    throw notInstalled(error, { program, debianPackage });
  }
}

function notInstalled(error: unknown, { program, debianPackage }: Omit<BackgroundOptions, "args">): unknown {
  if (!(error instanceof Deno.errors.NotFound)) return error;
  return new Error(`This test needs ${program}: apt-get install --no-install-recommends ${debianPackage}`, {
    cause: error,
  });
}

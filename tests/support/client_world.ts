/** A server process and people who use its client program, each with a state folder of their own. */
import { join } from "node:path";
import { type Ended, Program } from "./program.ts";
import { freeUdpPort, ServerProcess } from "./server_process.ts";
import { type TempFolder, tempFolder } from "./temp_folder.ts";

/** Everybody's password. */
export const PASSWORD = "correct horse battery staple";

/** What one run may choose. */
export interface ClientRun {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
  /** `terminal`: on a pseudo-terminal that echoes, where all output is stdout; typed with Program.type(). */
  readonly on?: "pipes" | "terminal";
  readonly cwd?: string;
}

/** Runs the rest of its words on a pseudo-terminal (script is in Debian's bsdutils, which is always there). */
const ON_TERMINAL = [
  "bash",
  "-c",
  'exec script --quiet --return --echo always --command "${*@Q}" /dev/null',
  "pty",
];

/** One server. */
export class ClientWorld implements AsyncDisposable {
  readonly #flags: readonly string[];

  private constructor(readonly folder: TempFolder, public server: ServerProcess, flags: readonly string[]) {
    this.#flags = flags;
  }

  /** `prepare` puts into the data folder what the server shall find there. */
  static async start(
    flags: readonly string[] = [],
    prepare: (dataDir: string) => Promise<void> = () => Promise.resolve(),
  ): Promise<ClientWorld> {
    const folder = await tempFolder();
    const dataDir = join(folder.path, "data");
    await prepare(dataDir);
    return new ClientWorld(folder, await ServerProcess.start({ dataDir, port: freeUdpPort(), flags }), flags);
  }

  get address(): string {
    return `127.0.0.1:${this.server.port}`;
  }

  get tokenFile(): string {
    return join(this.server.dataDir, "secrets", "auth-token");
  }

  get caFile(): string {
    return join(this.server.dataDir, "tls", "ca.pem");
  }

  stateOf(user: string): string {
    return join(this.folder.path, `state-${user}`);
  }

  /** The server ends, or is killed, and comes back at the same address. */
  async restart(
    between: () => Promise<void> = () => Promise.resolve(),
    signal: Deno.Signal = "SIGTERM",
  ): Promise<void> {
    const { dataDir, port } = this.server;
    await this.server.end(signal);
    await between();
    this.server = await ServerProcess.start({ dataDir, port, flags: this.#flags });
  }

  /** The server comes back with the same store, a new CA and a new certificate. */
  restartWithNewCertificate(): Promise<void> {
    return this.restart(() => Deno.remove(join(this.server.dataDir, "tls"), { recursive: true }));
  }

  /** The client's words as they are. */
  client(words: readonly string[], run: ClientRun = {}): Program {
    const terminal = run.on === "terminal";
    return new Program(["client", ...words], {
      cwd: run.cwd ?? this.folder.path,
      env: { XDG_STATE_HOME: join(this.folder.path, "home"), ...run.env },
      ...(terminal ? { via: ON_TERMINAL, input: run.input ?? "open" } : {}),
      ...(!terminal && run.input !== undefined ? { input: run.input } : {}),
    });
  }

  /** A run of the client to its end. */
  async run(words: readonly string[], run: ClientRun = {}): Promise<Ended> {
    await using program = this.client(words, run);
    return await program.ended();
  }

  /** A running client of `user`, who needs not type the password. */
  as(user: string, words: readonly string[], run: ClientRun = {}): Program {
    return this.client(["--state", this.stateOf(user), ...words], {
      ...run,
      env: { QPQ_PASSWORD: PASSWORD, ...run.env },
    });
  }

  /** Runs `user`'s client to its end. */
  async runAs(user: string, words: readonly string[], run: ClientRun = {}): Promise<Ended> {
    await using program = this.as(user, words, run);
    return await program.ended();
  }

  /** Like {@link runAs}; throws with what was said unless it succeeds. */
  async succeedAs(user: string, words: readonly string[], run: ClientRun = {}): Promise<Ended> {
    const ended = await this.runAs(user, words, run);
    if (ended.code !== 0) {
      throw new Error(`${words.join(" ")} ended with ${ended.code}:\n${ended.err}${ended.out}`);
    }
    return ended;
  }

  /** What a command with --json printed: one object a line. */
  async jsonAs(
    user: string,
    words: readonly string[],
    run: ClientRun = {},
  ): Promise<Record<string, unknown>[]> {
    const { out } = await this.succeedAs(user, ["--json", ...words], run);
    return out.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
  }

  /** Flags that say which server, and admit to it. */
  get serverFlags(): string[] {
    return ["--server", this.address, "--ca", this.caFile, "--auth-token-file", this.tokenFile];
  }

  /** Accounts that are logged in with a state folder each. */
  async register(...users: readonly string[]): Promise<void> {
    for (const user of users) await this.succeedAs(user, [...this.serverFlags, "register", user]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]();
    await this.folder[Symbol.asyncDispose]();
  }
}

/** The server as its operator runs it: a process of its own, with a port that stays when it is started again. */
import { join } from "node:path";
import { inspectCertificate } from "../../mod/transport/tls.ts";
import { fingerprintText } from "../../mod/transport/fingerprint.ts";
import type { Reachable } from "./test_client.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const PERMISSIONS = ["net", "read", "write", "env", "ffi", "sys"].map((name) => `--allow-${name}`);

/** What `deno run` needs before the program's own words. */
export const DENO_RUN_ARGS = ["run", "--quiet", "--cached-only", "--no-check", ...PERMISSIONS, MAIN];

/**
 * Ports below those that the system gives to whoever asks for any (Linux: from 32768): nobody else's socket gets one
 * before the server has it, nor while it is down between two starts.
 */
const PORTS = { first: 10_240, count: 22_528 };
const PORT_TRIES = 100;

/** A port of 127.0.0.1 that is free and stays so; `bind` closes it again, and throws AddrInUse. */
function freePort(bind: (port: number) => void): number {
  for (let tries = 1;; tries++) {
    const port = PORTS.first + Math.floor(Math.random() * PORTS.count);
    try {
      bind(port);
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse) || tries === PORT_TRIES) throw error;
    }
  }
}

/** For a server that is started, and started again. */
export function freeUdpPort(): number {
  return freePort((port) => {
    const address = { transport: "udp", hostname: "127.0.0.1", port } as const;
    Deno.listenDatagram(address).close();
  });
}

/** {@link freeUdpPort} for TCP. */
export function freeTcpPort(): number {
  return freePort((port) => Deno.listen({ hostname: "127.0.0.1", port }).close());
}

/** A server process and what a client needs to reach it. */
export class ServerProcess implements Reachable, AsyncDisposable {
  readonly hostname = "127.0.0.1";
  readonly #child: Deno.ChildProcess;
  readonly #log: Promise<void>;
  readonly #lines: string[];

  private constructor(
    child: Deno.ChildProcess,
    readonly port: number,
    readonly dataDir: string,
    readonly accessToken: string,
    readonly fingerprint: string,
    log: { lines: string[]; ended: Promise<void> },
  ) {
    this.#child = child;
    this.#lines = log.lines;
    this.#log = log.ended;
  }

  /** Starts it and waits until it listens. Throws with its log when it ends before. */
  static async start(
    options: { dataDir: string; port: number; flags?: readonly string[] },
  ): Promise<ServerProcess> {
    const { dataDir, port } = options;
    const words = ["serve", "--data-dir", dataDir, "--listen", `127.0.0.1:${port}`, "--opaque-workers", "1"];
    const child = new Deno.Command(Deno.execPath(), {
      args: [...DENO_RUN_ARGS, ...words, ...(options.flags ?? [])],
      env: { QPQ_LOG_FORMAT: "json" },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    const lines: string[] = [];
    const listening = Promise.withResolvers<void>();
    const ended = readLines(child.stderr, (line) => {
      lines.push(line);
      if (line.includes('"msg":"listening"')) listening.resolve();
    }).then(() => listening.reject(new Error(`The server ended:\n${lines.join("\n")}`)));
    await listening.promise.catch(async (error) => {
      await child.status;
      throw error;
    });
    listening.promise.catch(() => {});
    const accessToken = (await Deno.readTextFile(join(dataDir, "secrets", "auth-token"))).split("\n")[0]!;
    const fingerprint = await fingerprintIn(dataDir);
    return new ServerProcess(child, port, dataDir, accessToken, fingerprint, { lines, ended });
  }

  /** Everything it has logged. */
  get log(): string {
    return this.#lines.join("\n");
  }

  /** Ends it with a signal and waits for its end. Returns the exit code. */
  async end(signal: Deno.Signal): Promise<number> {
    try {
      this.#child.kill(signal);
    } catch {
      // It has ended.
    }
    const { code } = await this.#child.status;
    await this.#log;
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGKILL");
  }
}

/** Fingerprint of the certificate in a data folder, which a rotation may have changed. */
export async function fingerprintIn(dataDir: string): Promise<string> {
  const pem = await Deno.readTextFile(join(dataDir, "tls", "server.pem"));
  return fingerprintText(inspectCertificate(pem).leafSha256);
}

async function readLines(stream: ReadableStream<Uint8Array>, onLine: (line: string) => void): Promise<void> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) onLine(line);
  }
}

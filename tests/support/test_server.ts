/** A real server on loopback in this process: any port, a temporary data folder, ended with the test. */
import { join } from "node:path";
import type { Clock } from "../../mod/base/clock.ts";
import { diskFile } from "../../mod/config/disk_file.ts";
import { load } from "../../mod/config/load.ts";
import { type RunningServer, startServer } from "../../mod/server/start.ts";

/** What a test may choose. */
export interface TestServerOptions {
  /** Flags by name, as on the command line: `{ "limits-devices-max": "2" }`. */
  readonly flags?: Readonly<Record<string, string>>;
  readonly clock?: Clock;
  /** Called between the durable changes of administrative operations. */
  readonly step?: (name: string) => Promise<void>;
  /** Use this data folder and leave it there. Default: a temporary one. */
  readonly dataDir?: string;
}

/** A running server and what a client needs to reach it. */
export interface TestServer extends AsyncDisposable {
  readonly server: RunningServer;
  readonly hostname: string;
  readonly port: number;
  readonly dataDir: string;
  readonly accessToken: string;
  readonly caPem: string;
  readonly fingerprint: string;
  /** Stops it; the data folder stays until the test ends. */
  stop(): Promise<void>;
}

/** Starts one: `await using server = await startTestServer();` */
export async function startTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  const dataDir = options.dataDir ?? await Deno.makeTempDir({ prefix: "qpq-server-" });
  const flags = {
    "data-dir": dataDir,
    listen: "127.0.0.1:0",
    "metrics-enabled": "true",
    "metrics-listen": "127.0.0.1:0",
    "opaque-workers": "1",
    "drain-timeout": "2s",
    ...options.flags,
  };
  const loadAgain = () => load({ env: {}, flags, readFile: diskFile });
  const server = await startServer(loadAgain().settings, {
    load: loadAgain,
    ...(options.clock ? { clock: options.clock } : {}),
    ...(options.step ? { step: options.step } : {}),
  });
  const read = (...path: string[]) => Deno.readTextFile(join(dataDir, ...path));
  return {
    server,
    hostname: "127.0.0.1",
    port: server.address.port,
    dataDir,
    accessToken: (await read("secrets", "auth-token")).split("\n")[0]!,
    caPem: await read("tls", "ca.pem"),
    fingerprint: server.fingerprint,
    stop: () => server.stop(),
    async [Symbol.asyncDispose]() {
      await server.stop();
      if (options.dataDir === undefined) await Deno.remove(dataDir, { recursive: true });
    },
  };
}

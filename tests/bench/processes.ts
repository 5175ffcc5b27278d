/** Programs that measure, each in a process of its own; what it prints as JSON. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { MeasuredServer } from "../../ops/scaling/measured_server.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const PROGRAM = ["run", "--quiet", "--cached-only", "--no-check", "--allow-all"];

/** What `qpq-client bench --json` prints of a workload, as far as it is used here. */
export interface ClientRun {
  readonly perSecond: number;
  readonly latencyMs: { readonly p50: number; readonly p99: number };
}

/** `qpq-client bench` as its user runs it. With several workloads the result is that of the first. */
export async function runClient(server: MeasuredServer, words: readonly string[]): Promise<ClientRun> {
  const reach = ["--server", `127.0.0.1:${server.port}`, "--ca", join(server.dataDir, "tls", "ca.pem")];
  const token = ["--auth-token-file", join(server.dataDir, "secrets", "auth-token")];
  const all = ["client", ...reach, ...token, "--json", "bench", ...words];
  return await runScript(join(ROOT, "main.ts"), all) as ClientRun;
}

/** Runs a program; the object in its first line. */
export async function runScript(path: string, words: readonly string[]): Promise<{ perSecond: number }> {
  const args = [...PROGRAM, path, ...words];
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, stdin: "null" })
    .output();
  const text = new TextDecoder();
  if (!success) throw new Error(`${path} ${words.join(" ")} failed:\n${text.decode(stderr)}`);
  return JSON.parse(text.decode(stdout).split("\n")[0]!);
}

/** The program: argv → command → exit code. The only place with Deno.exit, Deno.env and OS signals. */
import { basename } from "node:path";
import { runCommandLine } from "./mod/cli/main.ts";
import type { Invocation, Terminal } from "./mod/cli/terminal.ts";

const encoder = new TextEncoder();

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = encoder.encode(text);
  for (let written = 0; written < bytes.length;) written += stream.writeSync(bytes.subarray(written));
}

function onInterrupt(callback: (signal: string) => void): void {
  let interrupted = false;
  const signals: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];
  for (const signal of signals) {
    Deno.addSignalListener(signal, () => {
      if (interrupted) Deno.exit(1);
      interrupted = true;
      callback(signal);
    });
  }
}

/** Run from source the commands are Deno's tasks, which npx or an installed Deno runs. */
function invocation(env: Readonly<Record<string, string>>): Invocation {
  if (Deno.build.standalone) return { server: "qpq-server", client: "qpq-server client" };
  const deno = env["npm_command"] === "exec" ? "npx --yes deno@2.9.6" : "deno";
  return { server: `${deno} task qpq`, client: `${deno} task client` };
}

const env = Deno.env.toObject();
const terminal: Terminal = {
  env,
  out: (text) => writeAll(Deno.stdout, text),
  error: (text) => writeAll(Deno.stderr, text),
  errorIsTerminal: Deno.stderr.isTerminal(),
  inputIsTerminal: Deno.stdin.isTerminal(),
  onInterrupt,
  invocation: invocation(env),
};
const programName = Deno.build.standalone ? basename(Deno.execPath()).replace(/\.exe$/, "") : "qpq-server";
Deno.exit(await runCommandLine(programName, { args: Deno.args, terminal }));

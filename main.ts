/** The program: argv → command → exit code. The only place with Deno.exit, Deno.env and OS signals. */
import { basename } from "node:path";
import { interrupts } from "./mod/cli/interrupts.ts";
import { CLIENT_NAME, runCommandLine } from "./mod/cli/main.ts";
import type { Invocation, Terminal, TerminalInput } from "./mod/cli/terminal.ts";

const encoder = new TextEncoder();

interface Output {
  writeSync(bytes: Uint8Array): number;
}

/** Nobody reads any more: `… | head -1`, a closed window. */
function isUnread(error: unknown): boolean {
  return error instanceof Deno.errors.BrokenPipe || (error as { code?: string }).code === "EIO";
}

/** False when nobody reads any more. */
function tryWrite(stream: Output, text: string): boolean {
  const bytes = encoder.encode(text);
  try {
    for (let written = 0; written < bytes.length;) written += stream.writeSync(bytes.subarray(written));
    return true;
  } catch (error) {
    if (!isUnread(error)) throw error;
    return false;
  }
}

/** A command that nobody listens to has nothing left to do. */
function writeOrExit(stream: Output, text: string): void {
  if (!tryWrite(stream, text)) Deno.exit(1);
}

/** A server runs on, whatever becomes of the place it was started from. */
function hint(text: string): void {
  try {
    tryWrite(Deno.stdout, text);
  } catch {
    // It was for a person who cannot be told.
  }
}

const input: TerminalInput = {
  isTerminal: Deno.stdin.isTerminal(),
  async read() {
    const buffer = new Uint8Array(16 << 10);
    const length = await Deno.stdin.read(buffer);
    return length === null ? null : buffer.subarray(0, length);
  },
  setMode: (mode) => Deno.stdin.setRaw(mode === "raw"),
};

function columns(): number {
  try {
    return Math.max(20, Deno.consoleSize().columns || 80); // 0: a terminal that does not know
  } catch {
    return 80;
  }
}

function onInterrupt(callback: (signal: string) => void): void {
  const listener = interrupts({ first: callback, again: () => Deno.exit(1) });
  const signals: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];
  for (const signal of signals) Deno.addSignalListener(signal, () => listener(signal));
}

function onHangup(callback: () => void): void {
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGHUP", callback);
}

/** Run from source the commands are Deno's tasks, which npx or an installed Deno runs. */
function invocation(programName: string, env: Readonly<Record<string, string>>): Invocation {
  if (Deno.build.standalone) {
    return { server: "qpq-server", client: programName === CLIENT_NAME ? CLIENT_NAME : "qpq-server client" };
  }
  const deno = env["npm_command"] === "exec" ? "npx --yes deno@2.9.6" : "deno";
  return { server: `${deno} task qpq`, client: `${deno} task client` };
}

const env = Deno.env.toObject();
const programName = Deno.build.standalone ? basename(Deno.execPath()).replace(/\.exe$/, "") : "qpq-server";
const terminal: Terminal = {
  env,
  out: (text) => writeOrExit(Deno.stdout, text),
  error: (text) => writeOrExit(Deno.stderr, text),
  hint,
  outIsTerminal: Deno.stdout.isTerminal(),
  errorIsTerminal: Deno.stderr.isTerminal(),
  input,
  columns,
  onInterrupt,
  onHangup,
  invocation: invocation(programName, env),
};
Deno.exit(await runCommandLine(programName, { args: Deno.args, terminal }));

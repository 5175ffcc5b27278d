/**
 * What commands of operators share: the flags, the way to the operation (the running server through its control
 * socket, else the data folder of a stopped one), progress, and saying which it was: a line on stderr, and `via` in
 * `--json`.
 */
import { type Command, Option } from "commander";
import { callControl, type Json, type JsonObject, NotRunningError } from "../admin/control.ts";
import type { Operation } from "../admin/operations.ts";
import { runStopped } from "../admin/operations_stopped.ts";
import { diskFile } from "../config/disk_file.ts";
import { dataDirOf, load, problemLine } from "../config/load.ts";
import { systemClock } from "../base/clock.ts";
import { deviceRevokedNotice } from "../server/notices.ts";
import { addOptionFlags, optionFlags } from "./option_flags.ts";
import { ExitCode, type Terminal } from "./terminal.ts";

/** Flags of a command, as commander names them. */
export type Flags = Readonly<Record<string, string | boolean | undefined>>;

/** A command for one operation. */
export interface AdminCommand {
  /** Its word and arguments: `log-level <filter>`. */
  readonly words: string;
  readonly description: string;
  readonly operation: Operation;
  /** With the lines of an example. */
  readonly help?: string;
  /** Further flags and arguments. */
  readonly declare?: (command: Command) => void;
  /** The operation's input. Throws UsageError. */
  readonly input?: (flags: Flags, args: readonly string[]) => JsonObject | Promise<JsonObject>;
  /** The result for people; ends with a newline. */
  readonly show: (result: JsonObject) => string;
  /** Reaches the operation in another way than the running server first, the data folder second. */
  readonly reach?: (call: AdminCall) => Promise<JsonObject>;
  /** The exit code; 0 by default. */
  readonly exitCode?: (result: JsonObject) => number;
}

/** A command as it was given. */
export interface AdminCall {
  readonly input: JsonObject;
  readonly flags: Flags;
  readonly terminal: Terminal;
}

/** Adds a command to `parent`. */
export function adminCommand(parent: Command, spec: AdminCommand, terminal: Terminal): Command {
  const command = parent.command(spec.words).description(spec.description);
  spec.declare?.(command);
  command.option("--json", "print the result as JSON");
  if (spec.help !== undefined) command.addHelpText("after", `\n${spec.help}`);
  addOptionFlags(command);
  // Only the two that find the server are of interest to most; the rest is for servers configured by flags.
  for (const option of command.options) if (isOfServer(option)) option.hideHelp();
  command.action(async (...given: unknown[]) => {
    const flags = given.at(-2) as Flags;
    const args = given.slice(0, -2).filter((arg) => arg !== undefined).map(String);
    const input = await spec.input?.(flags, args) ?? {};
    const call = { input, flags, terminal };
    const result = await (spec.reach?.(call) ?? reach(spec.operation, call));
    terminal.out(flags["json"] ? JSON.stringify(result) + "\n" : spec.show(result));
    const code = spec.exitCode?.(result) ?? 0;
    if (code !== 0) throw new ExitCode(code);
  });
  return command;
}

function isOfServer(option: Option): boolean {
  return option.long !== "--config" && option.long !== "--data-dir" && / \(default: |^File that holds /.test(
    option.description,
  );
}

/** The running server does it, or this process on the folder of a stopped one. */
export async function reach(operation: Operation, call: AdminCall): Promise<JsonObject> {
  const { input, flags, terminal } = call;
  const source = { env: terminal.env, flags: optionFlags(flags), readFile: diskFile };
  const dataDir = dataDirOf(source);
  using progress = new ProgressBar(terminal, operation.name);
  const onProgress = (share: number) => progress.show(share);
  try {
    const result = await callControl(dataDir, { name: operation.name, input, onProgress });
    if (!flags["json"]) progress.say(`done by the running server (${dataDir})`);
    return { via: "running", ...objectOf(result) };
  } catch (error) {
    if (!(error instanceof NotRunningError)) throw error;
    if (operation.whenStopped === "refused") throw new NotRunningError(`${error.message}: start it first`);
  }
  const { settings, warnings } = load({ ...source, purpose: "tool" });
  for (const warning of warnings) progress.say(`warning: ${problemLine(warning)}`);
  const result = await runStopped(operation, {
    settings,
    input,
    progress: onProgress,
    deviceRevokedNotice: (deviceId) => deviceRevokedNotice({ clock: systemClock, settings }, deviceId),
  });
  if (!flags["json"]) progress.say(`no server runs on ${dataDir}: worked on its data folder`);
  return { via: "stopped", ...result };
}

function objectOf(result: Json): JsonObject {
  return typeof result === "object" && result !== null && !Array.isArray(result) ? result as JsonObject : {};
}

const BAR_COLUMNS = 30;

/** One line on a terminal that is drawn over; nothing where stderr is none. */
export class ProgressBar implements Disposable {
  readonly #terminal: Terminal;
  readonly #what: string;
  #shown = "";

  constructor(terminal: Terminal, what: string) {
    this.#terminal = terminal;
    this.#what = what;
  }

  show(share: number): void {
    if (!this.#terminal.errorIsTerminal) return;
    const full = Math.round(Math.min(1, Math.max(0, share)) * BAR_COLUMNS);
    const bar = "#".repeat(full) + "-".repeat(BAR_COLUMNS - full);
    const line = `${this.#what} [${bar}] ${Math.floor(share * 100)} %`;
    if (line === this.#shown) return;
    this.#shown = line;
    this.#terminal.error(`\r${line}`);
  }

  /** A line of its own. */
  say(text: string): void {
    this.#clear();
    this.#terminal.error(`${text}\n`);
  }

  [Symbol.dispose](): void {
    this.#clear();
  }

  #clear(): void {
    if (this.#shown !== "") this.#terminal.error(`\r${" ".repeat(this.#shown.length)}\r`);
    this.#shown = "";
  }
}

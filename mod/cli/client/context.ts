/** What a client command works with, and the frame around each: flags, logs, errors in words. */
import type { Command } from "commander";
import { chooseLogFormat, configureLogs } from "../../base/log.ts";
import { messageOf } from "../../base/errors.ts";
import { shellWord } from "../shell_word.ts";
import { type Terminal, UsageError } from "../terminal.ts";
import { explained } from "./explain.ts";
import { type ClientFlags, defaultStateFolder } from "./flags.ts";
import { Output } from "./output.ts";
import { Prompter } from "./prompter.ts";

/** One run of one command. */
export interface Context {
  readonly terminal: Terminal;
  readonly flags: ClientFlags;
  readonly output: Output;
  readonly prompter: Prompter;
  readonly stateFolder: string;
  /** What a hint begins with: how this program is called, for this state. */
  readonly program: string;
  /** Gets something that a person is asked for, once in this run. */
  once(name: string, get: () => Promise<string>): Promise<string>;
}

/** Runs a command's work; whatever it throws comes out with what to do about it. */
export async function runCommand(
  terminal: Terminal,
  command: Command,
  work: (context: Context) => Promise<void>,
): Promise<void> {
  const flags: ClientFlags = command.optsWithGlobals();
  configureClientLogs(terminal, flags);
  const answers = new Map<string, Promise<string>>();
  const context: Context = {
    terminal,
    flags,
    output: new Output(terminal, { json: flags.json ?? false }),
    prompter: new Prompter(terminal),
    stateFolder: flags.state ?? defaultStateFolder(terminal.env),
    program: terminal.invocation.client +
      (flags.state === undefined ? "" : ` --state ${shellWord(flags.state)}`),
    once(name, get) {
      const answer = answers.get(name) ?? get();
      answers.set(name, answer);
      return answer;
    },
  };
  try {
    await work(context);
  } catch (error) {
    throw explained(error, context);
  }
}

/** An example below a command's help. */
export function example(terminal: Terminal, ...lines: readonly string[]): string {
  const shown = lines.map((line) => `  ${terminal.invocation.client} ${line}`);
  return `\n${lines.length === 1 ? "Example" : "Examples"}:\n${shown.join("\n")}`;
}

/** A client is silent unless asked: what it has to say it says itself. */
function configureClientLogs(terminal: Terminal, flags: ClientFlags): void {
  const filter = flags.log || terminal.env["QPQ_LOG"] || terminal.env["RUST_LOG"];
  if (!filter) return;
  const format = chooseLogFormat("auto", { terminal: terminal.errorIsTerminal, production: false });
  try {
    configureLogs({ filter, format });
  } catch (error) {
    throw new UsageError(`${messageOf(error)} (${flags.log ? "--log" : "QPQ_LOG"})`, { cause: error });
  }
}

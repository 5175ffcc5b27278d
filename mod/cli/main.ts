/** From the words of a command line to an exit code: 0 done, 1 failed, 2 wrong usage. */
import { Command, CommanderError } from "commander";
import { messageOf } from "../base/errors.ts";
import { VERSION } from "../base/version.ts";
import { ConfigError } from "../config/load.ts";
import { ExitCode } from "./admin_command.ts";
import { addExpiryAndLimits } from "./admin_running.ts";
import { addBackup } from "./backup.ts";
import { addClient } from "./client/main.ts";
import { addDevice } from "./device.ts";
import { addDoctor } from "./doctor.ts";
import { addDrain } from "./drain.ts";
import { addFederation } from "./federation.ts";
import { addHealth } from "./health.ts";
import { addInit } from "./init.ts";
import { addLogLevel } from "./log_level.ts";
import { addQueue } from "./queue.ts";
import { addReload } from "./reload.ts";
import { addRotate } from "./rotate.ts";
import { addServe } from "./serve.ts";
import { addStatus } from "./status.ts";
import { addStore } from "./store.ts";
import { type Terminal, UsageError } from "./terminal.ts";
import { unknownCommand } from "./unknown_command.ts";
import { addUser } from "./user.ts";

/** Name under which the executable is the client. */
export const CLIENT_NAME = "qpq-client";

/** Runs one command. `programName` is what the executable is called. Never throws. */
export async function runCommandLine(
  programName: string,
  options: { args: readonly string[]; terminal: Terminal },
): Promise<number> {
  const { terminal } = options;
  const program = programName === CLIENT_NAME ? clientProgram(terminal) : serverProgram(terminal);
  try {
    if (programName !== CLIENT_NAME) refuseUnknownCommand(program, options);
    await program.parseAsync([...options.args], { from: "user" });
    return 0;
  } catch (error) {
    return exitCode(error, terminal);
  }
}

function serverProgram(terminal: Terminal): Command {
  const program = newProgram("qpq-server", terminal)
    .description("Self-hosted delivery server for end-to-end encrypted messaging.");
  addServe(program, terminal);
  addInit(program, terminal);
  addStatus(program, terminal);
  addDoctor(program, terminal);
  addBackup(program, terminal);
  addHealth(program, terminal);
  addReload(program, terminal);
  addDrain(program, terminal);
  addLogLevel(program, terminal);
  addRotate(program, terminal);
  addUser(program, terminal);
  addDevice(program, terminal);
  addQueue(program, terminal);
  addFederation(program, terminal);
  addStore(program, terminal);
  addExpiryAndLimits(program, terminal);
  addClient(program.command("client"), terminal);
  return program;
}

function clientProgram(terminal: Terminal): Command {
  const program = newProgram(CLIENT_NAME, terminal);
  addClient(program, terminal);
  return program;
}

/** The default command would take a mistyped command word for an argument of its own. */
function refuseUnknownCommand(
  program: Command,
  { args: [word = "-"], terminal }: { args: readonly string[]; terminal: Terminal },
): void {
  const names = [...program.commands.map((command) => command.name()), "help"];
  if (word.startsWith("-") || names.includes(word)) return;
  throw unknownCommand(word, { names, program: terminal.invocation.server });
}

function newProgram(name: string, terminal: Terminal): Command {
  return new Command(name)
    .version(VERSION)
    .exitOverride()
    .configureOutput({ writeOut: (text) => terminal.out(text), writeErr: (text) => terminal.error(text) })
    .showHelpAfterError("(--help shows how)");
}

function exitCode(error: unknown, terminal: Terminal): number {
  if (error instanceof ExitCode) return error.code; // it has printed its result
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2; // it has said what was wrong
  terminal.error(`error: ${messageOf(error)}\n`);
  return error instanceof UsageError || error instanceof ConfigError ? 2 : 1;
}

/** From the words of a command line to an exit code: 0 done, 1 failed, 2 wrong usage. */
import { Command, CommanderError } from "commander";
import { messageOf } from "../base/errors.ts";
import { VERSION } from "../base/version.ts";
import { ConfigError } from "../config/load.ts";
import { ExitCode, type Terminal, UsageError } from "./terminal.ts";
import { unknownCommand } from "./unknown_command.ts";

/** Name under which the executable is the client. */
export const CLIENT_NAME = "qpq-client";

/** Adds a command to the program. */
type Add = (program: Command, terminal: Terminal) => void;

/**
 * Where the command of each first word is, in the order of the help. Loaded when it is asked for: a client or a health
 * check would spend most of its start on loading a server.
 */
const COMMANDS: Readonly<Record<string, () => Promise<Add>>> = {
  "serve": async () => (await import("./serve.ts")).addServe,
  "init": async () => (await import("./init.ts")).addInit,
  "status": async () => (await import("./status.ts")).addStatus,
  "doctor": async () => (await import("./doctor.ts")).addDoctor,
  "backup": async () => (await import("./backup.ts")).addBackup,
  "restored": async () => (await import("./backup.ts")).addRestored,
  "health": async () => (await import("./health.ts")).addHealth,
  "reload": async () => (await import("./reload.ts")).addReload,
  "drain": async () => (await import("./drain.ts")).addDrain,
  "log-level": async () => (await import("./log_level.ts")).addLogLevel,
  "rotate": async () => (await import("./rotate.ts")).addRotate,
  "user": async () => (await import("./user.ts")).addUser,
  "device": async () => (await import("./device.ts")).addDevice,
  "queue": async () => (await import("./queue.ts")).addQueue,
  "federation": async () => (await import("./federation.ts")).addFederation,
  "store": async () => (await import("./store.ts")).addStore,
  "expiry": async () => (await import("./admin_running.ts")).addExpiry,
  "limits": async () => (await import("./admin_running.ts")).addLimits,
  "client": async () => {
    const { addClient } = await import("./client/main.ts");
    return (program, terminal) => addClient(program.command("client"), terminal);
  },
};
/** What runs without a word. */
const DEFAULT_WORD = "serve";
/** Flags that are about the program when no word comes first. */
const ABOUT_ALL = ["-h", "--help", "-V", "--version"];

/** Runs one command. `programName` is what the executable is called. Never throws. */
export async function runCommandLine(
  programName: string,
  options: { args: readonly string[]; terminal: Terminal },
): Promise<number> {
  const { args, terminal } = options;
  try {
    const program = programName === CLIENT_NAME
      ? await clientProgram(terminal)
      : await serverProgram(options);
    await program.parseAsync([...args], { from: "user" });
    return 0;
  } catch (error) {
    return exitCode(error, terminal);
  }
}

/** The program with the command that `args` are about; with all where their list is asked for. */
async function serverProgram(
  { args, terminal }: { args: readonly string[]; terminal: Terminal },
): Promise<Command> {
  const [word = DEFAULT_WORD] = args;
  const names = Object.keys(COMMANDS);
  const isFlag = word.startsWith("-");
  // The default command would take a mistyped command word for an argument of its own.
  if (!isFlag && ![...names, "help"].includes(word)) {
    throw unknownCommand(word, { names: [...names, "help"], program: terminal.invocation.server });
  }
  const program = newProgram("qpq-server", terminal)
    .description("Self-hosted delivery server for end-to-end encrypted messaging.");
  const ofAll = word === "help" || isFlag && args.some((arg) => ABOUT_ALL.includes(arg));
  for (const name of ofAll ? names : [isFlag ? DEFAULT_WORD : word]) {
    (await COMMANDS[name]!())(program, terminal);
  }
  return program;
}

async function clientProgram(terminal: Terminal): Promise<Command> {
  const { addClient } = await import("./client/main.ts");
  const program = newProgram(CLIENT_NAME, terminal);
  addClient(program, terminal);
  return program;
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

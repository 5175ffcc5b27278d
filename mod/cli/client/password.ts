/** Where passwords come from: a file, the environment, or a person at a terminal. They are never an argument. */
import type { Terminal } from "../terminal.ts";
import { UsageError } from "../terminal.ts";
import { readTextFile } from "./files.ts";
import type { Prompter } from "./prompter.ts";

/** A password that is asked for. */
export interface PasswordRequest {
  /** Begins the question, e.g. `Password for alice`. */
  readonly question: string;
  /** From a flag. */
  readonly file: string | undefined;
  readonly fileFlag: string;
  readonly variable: string;
  /** A new one is asked for twice on a terminal. */
  readonly kind: "present" | "new";
}

/** The account's password. */
export function presentPassword(userName: string, flags: { passwordFile?: string }): PasswordRequest {
  return {
    question: `Password for ${userName}`,
    file: flags.passwordFile,
    fileFlag: "--password-file",
    variable: "QPQ_PASSWORD",
    kind: "present",
  };
}

/** Gets it from the file, else the variable, else the terminal. */
export async function askPassword(
  request: PasswordRequest,
  from: { terminal: Terminal; prompter: Prompter },
): Promise<string> {
  const { question, file, fileFlag, variable } = request;
  if (file !== undefined) return notEmpty(firstLine(await readTextFile(file)), `${fileFlag} ${file}`);
  const value = from.terminal.env[variable];
  if (value) return value;
  if (!from.prompter.canAsk) {
    throw new UsageError(
      `Cannot ask for the password without a terminal: give ${fileFlag} FILE or set ${variable}`,
    );
  }
  if (request.kind === "present") {
    return notEmpty(await from.prompter.secret(`${question}: `), "the terminal");
  }
  const typed = notEmpty(await from.prompter.secret(`${question}: `), "the terminal");
  const again = await from.prompter.secret(`${question}, again: `);
  if (typed !== again) throw new Error("The two passwords differ; nothing was changed");
  return typed;
}

function firstLine(text: string): string {
  return text.split(/\r?\n/, 1)[0]!;
}

function notEmpty(password: string, source: string): string {
  if (password === "") throw new Error(`The password from ${source} is empty; nothing was changed`);
  return password;
}

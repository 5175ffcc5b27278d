/** Where passwords come from: a file, the environment, or a person at a terminal. They are never an argument. */
import { type Terminal, UsageError } from "../terminal.ts";
import { readTextFile } from "./files.ts";
import type { Prompter } from "./prompter.ts";

/** A password that is asked for. */
export interface PasswordRequest {
  readonly noun: "password" | "passphrase";
  /** Begins the question, e.g. `Password for alice`. */
  readonly question: string;
  /** From a flag. */
  readonly file: string | undefined;
  readonly fileFlag: string;
  readonly variable: string;
  /** A new one is asked for twice on a terminal. */
  readonly kind: "present" | "new";
}

/** The account's password; `new` for one that is made now. */
export function passwordRequest(
  userName: string,
  options: { file: string | undefined; kind: "present" | "new" },
): PasswordRequest {
  return {
    noun: "password",
    question: `Password for ${userName}`,
    fileFlag: "--password-file",
    variable: "QPQ_PASSWORD",
    ...options,
  };
}

/** Gets it from the file, else the variable, else the terminal. */
export async function askPassword(
  request: PasswordRequest,
  from: { readonly terminal: Terminal; readonly prompter: Prompter },
): Promise<string> {
  const { noun, question, file, fileFlag, variable } = request;
  if (file !== undefined) return notEmpty(firstLine(await readTextFile(file)), `${noun} in ${file}`);
  const value = from.terminal.env[variable];
  if (value) return value;
  if (!from.prompter.canAsk) {
    throw new UsageError(
      `Cannot ask for the ${noun} without a terminal: give ${fileFlag} FILE or set ${variable}`,
    );
  }
  const typed = notEmpty(await from.prompter.secret(`${question}: `), noun);
  if (request.kind === "present") return typed;
  const again = await from.prompter.secret(`${question}, again: `);
  if (typed !== again) throw new Error(`The two ${noun}s differ; nothing was changed`);
  return typed;
}

function firstLine(text: string): string {
  return text.split(/\r?\n/, 1)[0]!;
}

function notEmpty(password: string, which: string): string {
  if (password === "") throw new Error(`The ${which} is empty; nothing was changed`);
  return password;
}

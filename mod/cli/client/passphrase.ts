/** `passphrase`: a state folder that is locked with one cannot be read by whoever copies it. */
import type { Command } from "commander";
import type { Terminal } from "../terminal.ts";
import { type Context, example, runCommand } from "./context.ts";
import { withClient } from "./open.ts";
import { askPassword, type PasswordRequest } from "./password.ts";

/** Adds the command. */
export function addPassphrase(client: Command, terminal: Terminal): void {
  client.command("passphrase")
    .description("lock the state folder with a passphrase (asked for from then on), change it, or remove it")
    .option("--remove", "keep the state's key readable for this user again")
    .option(
      "--new-passphrase-file <file>",
      "file with the new one; or QPQ_NEW_PASSPHRASE; else it is asked for",
    )
    .addHelpText("after", example(terminal, "passphrase", "passphrase --remove"))
    .action((options: PassphraseOptions, command: Command) =>
      runCommand(terminal, command, (context) => change(context, options))
    );
}

interface PassphraseOptions {
  readonly remove?: boolean;
  readonly newPassphraseFile?: string;
}

/** What opens the state: asked for when the state is locked, unless a flag or the environment says it. */
export async function statePassphrase(
  context: Context,
  state: "new" | "existing",
): Promise<(() => Promise<string>) | undefined> {
  const request: PasswordRequest = {
    noun: "passphrase",
    question: `Passphrase of ${context.stateFolder}`,
    file: context.flags.passphraseFile,
    fileFlag: "--passphrase-file",
    variable: "QPQ_PASSPHRASE",
    kind: "present",
  };
  // A new state is locked only for whoever says so.
  const isGiven = request.file !== undefined || context.terminal.env[request.variable];
  if (state === "new" && !isGiven) return undefined;
  return () => context.once("passphrase", () => askPassword(request, context));
}

async function change(context: Context, options: PassphraseOptions): Promise<void> {
  await withClient(context, async (client) => {
    if (options.remove) {
      await client.setPassphrase(undefined);
      context.output.done({ locked: false }, `${context.stateFolder} opens without a passphrase from now on`);
      return;
    }
    const passphrase = await askPassword({
      noun: "passphrase",
      question: `New passphrase for ${context.stateFolder}`,
      file: options.newPassphraseFile,
      fileFlag: "--new-passphrase-file",
      variable: "QPQ_NEW_PASSPHRASE",
      kind: "new",
    }, context);
    await client.setPassphrase(passphrase);
    context.output.done({ locked: true }, `${context.stateFolder} is locked with the new passphrase`);
  });
}

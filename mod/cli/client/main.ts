/** The client's commands: `qpq-client …`, `qpq-server client …`. One file for each first word. */
import type { Command } from "commander";
import type { Terminal } from "../terminal.ts";
import { unknownCommand } from "../unknown_command.ts";
import { addAccount } from "./account.ts";
import { addBench } from "./bench.ts";
import { addChat } from "./chat.ts";
import { addContacts } from "./contact.ts";
import { example, runCommand } from "./context.ts";
import { addDevices } from "./device.ts";
import { addFile } from "./file.ts";
import { addClientFlags } from "./flags.ts";
import { addGroup } from "./group.ts";
import { addMessages } from "./message.ts";
import { addPassphrase } from "./passphrase.ts";
import { ping } from "./ping.ts";

/** Makes `command` the client: its flags, its commands, `--ping`. */
export function addClient(command: Command, terminal: Terminal): void {
  command
    .description("Client for end-to-end encrypted messaging through a qpq server.")
    .configureHelp({ commandUsage: (shown) => usageLine(shown, { client: command, terminal }) })
    .option("--ping", "test the connection, like the command ping")
    .action((_options, self: Command) => withoutCommand(terminal, self));
  addClientFlags(command, terminal);
  addPing(command, terminal);
  addAccount(command, terminal);
  addDevices(command, terminal);
  addGroup(command, terminal);
  addMessages(command, terminal);
  addChat(command, terminal);
  addFile(command, terminal);
  addContacts(command, terminal);
  addPassphrase(command, terminal);
  addBench(command, terminal);
  // After the commands, which would inherit it: an unknown word then gets a better answer than "too many".
  command.allowExcessArguments();
  command.addHelpText(
    "after",
    example(
      terminal,
      "--server 127.0.0.1:7000 --auth-token-file data/secrets/auth-token register alice",
      'send bob "Hello Bob"',
      "recv --follow",
    ) + `\n\n${terminal.invocation.client} COMMAND --help shows more about a command.`,
  );
}

function addPing(client: Command, terminal: Terminal): void {
  client.command("ping")
    .description("test the connection to the server, its identity and the access token")
    .addHelpText("after", example(terminal, '--server 127.0.0.1:7000 --auth-token "$TOKEN" ping'))
    .action((_options, command: Command) => runCommand(terminal, command, ping));
}

/** No command word: `--ping` alone is one. */
async function withoutCommand(terminal: Terminal, command: Command): Promise<void> {
  const [word] = command.args;
  if (word === undefined && command.opts()["ping"]) return await runCommand(terminal, command, ping);
  if (word === undefined) return command.help({ error: true });
  const names = command.commands.map((each) => each.name());
  throw unknownCommand(word, { names, program: terminal.invocation.client });
}

/** How the command is really called here: `deno task client …`, `qpq-client …`. */
function usageLine(shown: Command, at: { client: Command; terminal: Terminal }): string {
  const words: string[] = [];
  for (let each: Command | null = shown; each && each !== at.client; each = each.parent) {
    words.unshift(each.name());
  }
  return [at.terminal.invocation.client, ...words, shown.usage()].join(" ");
}

/** `verify`, `block`, `unblock` and `blocks`: other people's accounts. */
import type { Command } from "commander";
import { AccountKeyChangedError, type Client, QpqError, type Verification } from "../../client/mod.ts";
import type { Terminal } from "../terminal.ts";
import { type Context, example, runCommand } from "./context.ts";
import { withClient } from "./open.ts";
import { oneLine } from "./output.ts";

/** Adds the commands. */
export function addContacts(client: Command, terminal: Terminal): void {
  client.command("verify").argument("<user>")
    .description("show the safety number with a user: both of you see the same, unless the server lies")
    .option("--trust", "you have compared it and it is right; also accepts a changed account key")
    .addHelpText("after", example(terminal, "verify bob", "verify bob --trust"))
    .action((user: string, options: { trust?: boolean }, command: Command) =>
      runCommand(terminal, command, (context) => verify(context, { user, trust: options.trust ?? false }))
    );
  client.command("block").argument("<user>").description("take nothing from a user any more")
    .addHelpText("after", example(terminal, "block mallory"))
    .action((user: string, _options, command: Command) =>
      runCommand(terminal, command, (context) => block(context, { user, blocked: true }))
    );
  client.command("unblock").argument("<user>").description("take messages of a user again")
    .addHelpText("after", example(terminal, "unblock mallory"))
    .action((user: string, _options, command: Command) =>
      runCommand(terminal, command, (context) => block(context, { user, blocked: false }))
    );
  client.command("blocks").description("list who is blocked")
    .addHelpText("after", example(terminal, "blocks"))
    .action((_options, command: Command) => runCommand(terminal, command, blocks));
}

async function verify(context: Context, { user, trust }: { user: string; trust: boolean }): Promise<void> {
  await withClient(context, async (client) => {
    const before = await lookUp(client, user);
    if (trust) {
      if (before.changed) await client.trust(user);
      await client.markVerified(user);
    }
    const now = trust ? await client.verify(user) : before;
    context.output.data({ ...now }, verificationText(context, now));
  });
}

/** Looking somebody up meets a changed key; that key's number is what is wanted here. */
async function lookUp(client: Client, user: string): Promise<Verification> {
  try {
    return await namedUser(user, client.verify(user));
  } catch (error) {
    if (!(error instanceof AccountKeyChangedError)) throw error;
    return await client.verify(user);
  }
}

function verificationText(
  { program }: Context,
  { userName, safetyNumber, verified, changed }: Verification,
): string {
  const groups = safetyNumber.split(/\s+/);
  const lines = [0, 4, 8].map((start) => "  " + groups.slice(start, start + 4).join(" "));
  const how = `${program} verify ${userName} --trust`;
  const state = changed
    ? `The account key of ${userName} HAS CHANGED: they registered again, or the server lies.\n` +
      `Compare this number with them over another channel. If it is the same there: ${how}`
    : verified
    ? "You have compared it; it is verified."
    : `Compare it with ${userName} over another channel. If it is the same there: ${how}`;
  return `Safety number with ${userName}:\n${
    lines.filter((line) => line.trim() !== "").join("\n")
  }\n${state}`;
}

/** Says that there is no such user, where the library can only say what it tried last. */
async function namedUser<Value>(user: string, work: Promise<Value>): Promise<Value> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof QpqError) || error.code !== "noKeyPackages") throw error;
    const text = `There is no user ${oneLine(user)}, or none who has logged in yet`;
    throw new Error(`${text}\n  Check the name; they have to log in once`, { cause: error });
  }
}

async function block(context: Context, { user, blocked }: { user: string; blocked: boolean }): Promise<void> {
  await withClient(context, async (client) => {
    await namedUser(user, blocked ? client.block(user) : client.unblock(user));
    const text = blocked
      ? `Nothing of ${oneLine(user)} reaches you any more`
      : `${oneLine(user)} can write to you again`;
    context.output.done({ userName: user, blocked }, text);
  });
}

async function blocks(context: Context): Promise<void> {
  await withClient(context, async (client) => {
    const blocked = await client.blocks();
    context.output.data({ blocks: blocked }, blocked.map((one) => one.userName).join("\n"));
    if (blocked.length === 0 && !context.output.json) context.output.talk("Nobody is blocked");
  });
}

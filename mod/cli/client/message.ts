/** `send` and `recv`. */
import type { Command } from "commander";
import { messageOf } from "../../base/errors.ts";
import { tryParseUserAddress } from "../../base/user_address.ts";
import { type Client, QpqError, type Sent } from "../../client/mod.ts";
import { type Terminal, UsageError } from "../terminal.ts";
import { type Context, example, runCommand } from "./context.ts";
import { eventLine, eventObject, isMessage } from "./events.ts";
import { withClient, withUpkeep } from "./open.ts";
import { oneLine } from "./output.ts";

/** Adds the commands. */
export function addMessages(client: Command, terminal: Terminal): void {
  client.command("send").argument(
    "<to>",
    "group, or user (@user when a group has the same name); user@domain on another server",
  )
    .argument("<text...>", "- reads it from stdin; -- before a text that begins with -")
    .description("send a message; done when the server has it on disk")
    .addHelpText(
      "after",
      example(
        terminal,
        'send bob "Hello Bob"',
        'send carol@b.example "Hello Carol"',
        "send family - < letter.txt",
      ),
    )
    .action((to: string, words: string[], _options, command: Command) =>
      runCommand(terminal, command, (context) => send(context, { to, words }))
    );
  client.command("recv").description("show what has come and was not shown yet")
    .option("--follow", "go on as messages come; Ctrl-C ends it")
    .option("--events", "with --json: also what is no message (somebody was added, a key has changed …)")
    .addHelpText("after", example(terminal, "recv", "recv --follow --json"))
    .action((options: ReceiveFlags, command: Command) =>
      runCommand(terminal, command, (context) => receive(context, options))
    );
}

interface ReceiveFlags {
  readonly follow?: boolean;
  readonly events?: boolean;
}

async function send(
  context: Context,
  { to, words }: { to: string; words: readonly string[] },
): Promise<void> {
  const text = words.length === 1 && words[0] === "-" ? await readAll(context) : words.join(" ");
  if (text === "") throw new UsageError("There is nothing to send: the text is empty");
  await withClient(context, (client) =>
    withUpkeep(client, async () => {
      const sent = await sendText(client, { to, text });
      tellSent(context, { to, sent });
    }));
}

/** Sends a text; when it could not be sent but is kept, the error says so. */
export async function sendText(client: Client, { to, text }: { to: string; text: string }): Promise<Sent> {
  const waiting = client.unsent;
  try {
    return await named(to, client.send(to, text));
  } catch (error) {
    if (client.unsent <= waiting) throw error;
    throw new Error(
      `${
        messageOf(error)
      }\n  The message is kept and goes out when the server is next reached: do not send it again`,
      { cause: error },
    );
  }
}

/** Says who did not get it. Throws when nobody did. */
export function tellSent(
  { output }: Context,
  { to, sent, more = {} }: { to: string; sent: Sent; more?: Record<string, unknown> },
): void {
  const { groupId, messageId, devices, failures } = sent;
  const failed = failures.map(({ user, deviceId, reason }) => ({ user, deviceId, reason }));
  const at = new Date(sent.acceptedAt).toISOString();
  output.done({ to, groupId, messageId, at, devices, failures: failed, ...more }, "");
  for (const text of failureTexts(sent)) output.talk(text);
  if (devices === 0 && failures.length > 0) throw new Error(`Nobody got the message to ${oneLine(to)}`);
}

const REASONS = {
  queueFull: "has a full queue; it is tried again later",
  unknownDevice: "was revoked or deleted",
  blocked: "blocks you",
  unknownDomain: "is on a server that yours does not exchange messages with",
} as const;

/** Who did not get a message, in words. */
export function failureTexts({ failures }: Sent): string[] {
  return failures.map(({ user, deviceId, reason }) =>
    reason === "blocked" || reason === "unknownDomain"
      ? `Not delivered: ${oneLine(user)} ${REASONS[reason]}`
      : `Not delivered to a device of ${oneLine(user)} (${deviceId.slice(0, 8)}): it ${REASONS[reason]}`
  );
}

/** Says that a target is nothing we know, where the library can only say what it tried last. */
export async function named<Value>(to: string, work: Promise<Value>): Promise<Value> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof QpqError)) throw error;
    const user = to.replace(/^@/, "");
    if (error.code === "userNameInvalid" && tryParseUserAddress(user) === undefined) {
      throw new Error(`There is no group ${oneLine(to)} here (group list shows them)`, { cause: error });
    }
    if (error.code !== "noKeyPackages") throw error;
    throw new Error(
      `There is no group ${oneLine(to)} here, and no user of that name who has logged in yet`,
      { cause: error },
    );
  }
}

async function receive(context: Context, flags: ReceiveFlags): Promise<void> {
  const { output, terminal } = context;
  const stop = new AbortController();
  if (flags.follow) terminal.onInterrupt(() => stop.abort());
  await withClient(context, async (client) => {
    const events = client.receive({
      follow: flags.follow ?? false,
      signal: stop.signal,
      onConnection: (state, error) => {
        if (state === "lost") output.talk(`Connection lost, trying again: ${oneLine(messageOf(error))}`);
        else output.talk("Connected; Ctrl-C ends");
      },
    });
    // What was printed is forgotten when the next is asked for: so an interrupt ends the loop there, not in its middle.
    for await (const event of events) {
      const line = eventLine(event, { program: context.program });
      if (isMessage(event) || (output.json && flags.events)) output.data(eventObject(event), line);
      else output.talk(line);
    }
  });
}

/** All of stdin, as text without its last line break. */
async function readAll({ terminal }: Context): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for (let bytes = await terminal.input.read(); bytes; bytes = await terminal.input.read()) {
    text += decoder.decode(bytes, { stream: true });
  }
  return (text + decoder.decode()).replace(/\r?\n$/, "");
}

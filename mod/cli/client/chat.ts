/**
 * `chat`: lines that are typed go out, what comes in appears above them. Without a terminal each line of stdin is a
 * message, and what comes is printed as recv prints it.
 */
import type { Command } from "commander";
import { messageOf } from "../../base/errors.ts";
import { foreignDomain, tryParseUserAddress, userAddressText } from "../../base/user_address.ts";
import { type Client, type ClientEvent, QpqError, type Verification } from "../../client/mod.ts";
import type { Terminal } from "../terminal.ts";
import { LineScreen, type Screen, TerminalScreen } from "./chat_screen.ts";
import { type Context, example, runCommand } from "./context.ts";
import { eventLine } from "./events.ts";
import { checkFile, fileOf, getWithProgress, sendWithProgress } from "./file.ts";
import { failureTexts, named, sendText } from "./message.ts";
import { withClient } from "./open.ts";
import { oneLine, timeText } from "./output.ts";

const HELP = "/members shows who is here, /file PATH sends a file, /get ID fetches one, /quit or Ctrl-C ends";

/** Adds the command. */
export function addChat(client: Command, terminal: Terminal): void {
  client.command("chat").argument("<with>", "group, or user")
    .description("talk: what you type goes out, what comes appears above it")
    .addHelpText("after", example(terminal, "chat bob") + `\n\nWhile it runs: ${HELP}.`)
    .action((to: string, _options, command: Command) =>
      runCommand(terminal, command, (context) => chat(context, to))
    );
}

async function chat(context: Context, to: string): Promise<void> {
  const { terminal, output } = context;
  const stop = new AbortController();
  await withClient(context, async (client) => {
    await client.upkeep();
    const title = await titleOf(client, { to, context });
    terminal.onInterrupt(() => stop.abort()); // before, Ctrl-C simply ends a program that waits for its server
    const interactive = terminal.input.isTerminal && terminal.outIsTerminal && !output.json;
    using screen: Screen = interactive ? new TerminalScreen(terminal) : new LineScreen(context);
    const conversation = new Conversation({ client, context, screen, to, stop });
    if (interactive) screen.say(`${title}\n${HELP}`);
    await conversation.run();
    if (screen.failed && !interactive) throw new Error("Not everything was sent, see above");
  });
}

/** Who is talked to. Asks the server for a user who is not known, so that a wrong name is told at once. */
async function titleOf(client: Client, { to, context }: { to: string; context: Context }): Promise<string> {
  const group = groupOf(client, to);
  if (group && !group.direct) return `${oneLine(group.name)}: ${group.members.map(oneLine).join(", ")}`;
  const user = to.replace(/^@/, "");
  let found: Verification;
  try {
    found = await named(to, client.verify(user));
  } catch (error) {
    // Whoever is known can be written to meanwhile.
    if (!group || !(error instanceof QpqError) || error.code !== "peerUnavailable") throw error;
    return `${oneLine(group.name)} (their server cannot be reached now: what you write goes out when it can)`;
  }
  const { userName, verified } = found;
  const hint = verified ? "verified" : `not verified: ${context.program} verify ${userName}`;
  return `${userName} (${hint})`;
}

function groupOf(client: Client, to: string) {
  const user = tryParseUserAddress(to.replace(/^@/, ""));
  const own = client.whoami()?.domain ?? "";
  const name = user && userAddressText({ ...user, domain: foreignDomain(user.domain, own) });
  const groups = client.groups().filter((group) => group.status === "active");
  const named = to.startsWith("@")
    ? undefined
    : groups.find((group) => group.id === to || (group.name === to && !group.direct));
  return named ?? groups.find((group) => group.direct && group.name === name);
}

/** One run of `chat`. */
class Conversation {
  readonly #client: Client;
  readonly #context: Context;
  readonly #screen: Screen;
  readonly #to: string;
  readonly #stop: AbortController;
  #lost = false;
  /** What was typed is done in its order. */
  #doing: Promise<void> = Promise.resolve();

  constructor(
    deps: { client: Client; context: Context; screen: Screen; to: string; stop: AbortController },
  ) {
    this.#client = deps.client;
    this.#context = deps.context;
    this.#screen = deps.screen;
    this.#to = deps.to;
    this.#stop = deps.stop;
  }

  async run(): Promise<void> {
    const receiving = this.#receive().finally(() => this.#stop.abort());
    try {
      for await (const line of this.#screen.lines(this.#stop.signal)) {
        if (line === "/quit") break;
        if (line.trim() !== "") this.#doing = this.#doing.then(() => this.#take(line));
      }
      await this.#doing;
    } finally {
      this.#stop.abort();
      await receiving;
    }
  }

  async #receive(): Promise<void> {
    const onConnection = (state: "connected" | "lost") => {
      if (state === "lost" && !this.#lost) this.#screen.say("Connection lost; trying again");
      if (state === "connected" && this.#lost) this.#screen.say("Connected again");
      this.#lost = state === "lost";
    };
    for await (
      const event of this.#client.receive({ follow: true, signal: this.#stop.signal, onConnection })
    ) {
      this.#show(event);
    }
  }

  #show(event: ClientEvent): void {
    const groupId = groupOf(this.#client, this.#to)?.id;
    this.#screen.show(event, eventLine(event, { program: this.#context.program, chat: { groupId } }));
  }

  /** Sends a line, or does what it says. A failure is said and the chat goes on. */
  async #take(line: string): Promise<void> {
    try {
      const [word, rest] = commandOf(line);
      if (word === "/help") this.#screen.say(HELP);
      else if (word === "/members") this.#members();
      else if (word === "/file") await this.#sendFile(rest);
      else if (word === "/get") await this.#getFile(rest);
      else await this.#send(line.replace(/^\/\//, "/"));
    } catch (error) {
      this.#screen.say(`! ${messageOf(error)}`);
      this.#screen.failed = true;
    }
  }

  async #send(text: string): Promise<void> {
    if (text.startsWith("/") && /^\/\w+$/.test(text)) throw new Error(`There is no ${text} here: ${HELP}`);
    if (this.#lost) this.#screen.say("This goes out when the server is reached again");
    const sent = await sendText(this.#client, { to: this.#to, text });
    this.#screen.sent(`${timeText(sent.acceptedAt)} ${this.#client.whoami()!.userName}: `, text);
    for (const failure of failureTexts(sent)) this.#screen.say(failure);
  }

  #members(): void {
    const group = groupOf(this.#client, this.#to);
    this.#screen.say(
      group ? group.members.map(oneLine).join(", ") : "The conversation begins with the first message",
    );
  }

  async #sendFile(path: string): Promise<void> {
    if (path === "") throw new Error("Say which file: /file PATH");
    await checkFile(path);
    this.#screen.say(`Sending ${oneLine(path)}`);
    const { fileId } = await sendWithProgress(this.#context, {
      client: this.#client,
      to: this.#to,
      path,
    });
    this.#screen.say(`Sent ${oneLine(path)} (file ${fileId})`);
  }

  async #getFile(id: string): Promise<void> {
    const file = fileOf(this.#client.files(), id);
    const path = await getWithProgress(this.#context, { client: this.#client, file, out: "." });
    this.#screen.say(`Fetched ${path}`);
  }
}

/** `/file a b` → `/file` and `a b`; a plain line has no word. */
function commandOf(line: string): [string, string] {
  const match = /^(\/(?:help|members|file|get))(?:\s+(.*))?$/s.exec(line.trim());
  return match ? [match[1]!, (match[2] ?? "").trim()] : ["", line];
}

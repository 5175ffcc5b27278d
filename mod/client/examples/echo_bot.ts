/**
 * A bot that answers every message with the same words, in whatever group it is added to. Run it with
 *
 *   deno run -A mod/client/examples/echo_bot.ts localhost:7000 FINGERPRINT data/secrets/auth-token ./example
 */
import { Client } from "../mod.ts";
import { clientOptions, type ExampleArguments, runExample } from "./example_server.ts";

/** Registers `echo` (once) and answers until `signal` aborts. It reconnects by itself. */
export async function echoBot(example: ExampleArguments, signal?: AbortSignal): Promise<void> {
  await using bot = await Client.open(clientOptions(example, "echo"));
  if (!bot.whoami()) await bot.register({ userName: "echo", password: "a long password of the bot" });
  const onConnection = (state: string) => example.say(`echo is ${state}`);
  for await (const event of bot.receive({ follow: true, onConnection, ...(signal ? { signal } : {}) })) {
    if (event.kind !== "text" || event.own) continue;
    await bot.send(event.groupId, event.text);
    example.say(`echo answered ${event.from}`);
  }
}

if (import.meta.main) await runExample((example) => echoBot(example));

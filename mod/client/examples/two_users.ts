/**
 * Two users exchange messages. Run it against a server of yours:
 *
 *   deno run -A mod/client/examples/two_users.ts localhost:7000 FINGERPRINT data/secrets/auth-token ./example
 */
import { Client } from "../mod.ts";
import { clientOptions, type ExampleArguments, runExample } from "./example_server.ts";

/** Ann and Ben register, talk, and see each other's safety number. */
export async function twoUsers(example: ExampleArguments): Promise<void> {
  await using ann = await Client.open(clientOptions(example, "ann"));
  await using ben = await Client.open(clientOptions(example, "ben"));
  await ann.register({ userName: "ann", password: "a long password of ann" });
  await ben.register({ userName: "ben", password: "a long password of ben" });

  await ann.send("ben", "Hello Ben!");
  for await (const event of ben.receive()) {
    if (event.kind === "text") example.say(`ben got from ${event.from}: ${event.text}`);
  }
  await ben.send("ann", "Hello Ann!");
  for await (const event of ann.receive()) {
    if (event.kind === "text") example.say(`ann got from ${event.from}: ${event.text}`);
  }

  const [seenByAnn, seenByBen] = [await ann.verify("ben"), await ben.verify("ann")];
  example.say(`same safety number: ${seenByAnn.safetyNumber === seenByBen.safetyNumber}`);
}

if (import.meta.main) await runExample(twoUsers);

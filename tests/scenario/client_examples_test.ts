/** The examples of the client library run, and say what they promise. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { echoBot } from "../../mod/client/examples/echo_bot.ts";
import type { ExampleArguments } from "../../mod/client/examples/example_server.ts";
import { shareFile } from "../../mod/client/examples/share_file.ts";
import { twoUsers } from "../../mod/client/examples/two_users.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { openClient, PASSWORD } from "../support/test_user.ts";

function argumentsFor(server: TestServer, folder: string): ExampleArguments & { lines: string[] } {
  const lines: string[] = [];
  const { fingerprint, accessToken } = server;
  const address = `${server.hostname}:${server.port}`;
  return { server: address, fingerprint, accessToken, folder, say: (line) => lines.push(line), lines };
}

Deno.test("examples: two users talk", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const example = argumentsFor(server, folder.path);
  await twoUsers(example);
  assert.deepEqual(example.lines, [
    "ben got from ann: Hello Ben!",
    "ann got from ben: Hello Ann!",
    "same safety number: true",
  ]);
});

Deno.test("examples: a file is shared", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const example = argumentsFor(server, folder.path);
  await shareFile(example);
  assert.deepEqual(example.lines, ["kim has sent 60016 bytes", "lou has saved sunset.jpg of kim: the same"]);
});

Deno.test("examples: a bot echoes", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const ready = Promise.withResolvers<void>();
  const lines: string[] = [];
  const say = (line: string) => {
    lines.push(line);
    ready.resolve();
  };
  const stop = new AbortController();
  const bot = echoBot({ ...argumentsFor(server, folder.path), say }, stop.signal);
  await ready.promise; // it listens
  await using user = await openClient(server, join(folder.path, "user"));
  await user.register({ userName: "user", password: PASSWORD });
  await user.send("echo", "anybody there?");
  for await (const event of user.receive({ follow: true })) {
    if (event.kind !== "text") continue;
    assert.equal(`${event.from}: ${event.text}`, "echo: anybody there?");
    break;
  }
  stop.abort();
  await bot;
  assert.equal(lines[0], "echo is connected");
});

/**
 * The whole way over real QUIC and the SQLCipher store: two accounts with three devices, a group, messages
 * both ways, an offline device, a file, a server that restarts in the middle, a member who is removed.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { randomBytes } from "../../mod/base/bytes.ts";
import type { Client, FileEvent } from "../../mod/client/mod.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { drain, openClient, PASSWORD, texts } from "../support/test_user.ts";

/** Runs what each device does by itself until nothing is left to do: new devices are added to groups. */
async function settle(...clients: Client[]): Promise<void> {
  for (const client of [...clients, ...clients]) await client.upkeep();
}

/** Alice's telephone and laptop, and Bob; Alice's laptop came later. */
async function threeDevices(server: TestServer, folder: string) {
  const phone = await openClient(server, join(folder, "phone"));
  const laptop = await openClient(server, join(folder, "laptop"));
  const bob = await openClient(server, join(folder, "bob"));
  await phone.register({ userName: "alice", password: PASSWORD, deviceName: "phone" });
  await bob.register({ userName: "bob", password: PASSWORD });
  return { phone, laptop, bob };
}

Deno.test("two accounts with three devices talk in a group, offline, over a restart, until one is removed", async () => {
  await using folder = await tempFolder();
  const dataDir = await Deno.makeTempDir({ dir: folder.path });
  let server = await startTestServer({ dataDir });
  let { phone, laptop, bob } = await threeDevices(server, folder.path);

  // A group; the laptop comes later and is taken in by the phone.
  await phone.createGroup("friends", { users: ["bob"] });
  await phone.send("friends", "before the laptop");
  await laptop.login({ userName: "alice", password: PASSWORD, deviceName: "laptop" });
  await settle(phone, laptop);
  assert.deepEqual(phone.members("friends").map((one) => [one.userName, one.devices.length]), [
    ["alice", 2],
    ["bob", 1],
  ]);
  assert.deepEqual(await texts(laptop), []); // no history

  // Both ways; the account's other device sees what is sent.
  assert.deepEqual(await texts(bob), ["alice: before the laptop"]);
  await bob.send("friends", "hello both");
  await phone.send("friends", "hello bob");
  assert.deepEqual(await texts(phone), ["bob: hello both"]);
  assert.deepEqual(await texts(laptop), ["bob: hello both", "alice: hello bob"]);

  // Bob is offline: everything waits in order. The server restarts in the middle.
  await bob.close();
  for (let i = 1; i <= 10; i++) await phone.send("friends", `while you were away ${i}`);
  await Promise.all([phone.close(), laptop.close()]);
  await server.stop();
  server = await startTestServer({ dataDir });
  phone = await openClient(server, join(folder.path, "phone"));
  laptop = await openClient(server, join(folder.path, "laptop"));
  bob = await openClient(server, join(folder.path, "bob"));
  await laptop.send("friends", "after the restart");
  assert.deepEqual(await texts(bob), [
    "alice: hello bob",
    ...Array.from({ length: 10 }, (_, i) => `alice: while you were away ${i + 1}`),
    "alice: after the restart",
  ]);

  // A file.
  const bytes = randomBytes(700_000);
  await bob.sendFile("friends", { bytes, name: "holiday.jpg", mediaType: "image/jpeg" });
  const event = (await drain(phone)).find((one): one is FileEvent => one.kind === "file")!;
  assert.equal(event.file.name, "holiday.jpg");
  assert.deepEqual(
    await Deno.readFile(await phone.getFile(event.fileId, folder.path)),
    new Uint8Array(bytes),
  );

  // Bob is removed and cannot read on.
  await phone.removeMember("friends", "bob");
  await phone.send("friends", "without bob");
  const last = await drain(bob);
  assert.deepEqual(last.map((one) => one.kind), ["removedFromGroup"]);
  assert.equal(bob.groups()[0]!.status, "removed");
  await assert.rejects(bob.send("friends", "still here?"), { name: "MlsError", reason: "removed" });
  assert.deepEqual((await texts(laptop)).at(-1), "alice: without bob");
  await Promise.all([phone.close(), laptop.close(), bob.close()]);
  await server.stop();
});

Deno.test("send() to a user makes a conversation that both sides share", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  await using alice = await openClient(server, join(folder.path, "alice"));
  await using bob = await openClient(server, join(folder.path, "bob"));
  await alice.register({ userName: "alice", password: PASSWORD });
  await bob.register({ userName: "bob", password: PASSWORD });
  await alice.send("bob", "one");
  await alice.send("bob", "two");
  assert.deepEqual(await texts(bob), ["alice: one", "alice: two"]);
  await bob.send("alice", "three");
  assert.deepEqual(await texts(alice), ["bob: three"]);
  assert.deepEqual(bob.groups().map(({ name, direct }) => ({ name, direct })), [{
    name: "alice",
    direct: true,
  }]);
});

Deno.test("receive() follows: messages come as they are sent, until the signal", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  await using alice = await openClient(server, join(folder.path, "alice"));
  await using bob = await openClient(server, join(folder.path, "bob"));
  await alice.register({ userName: "alice", password: PASSWORD });
  await bob.register({ userName: "bob", password: PASSWORD });
  const stop = new AbortController();
  const heard: string[] = [];
  const listening = (async () => {
    for await (const event of bob.receive({ follow: true, signal: stop.signal })) {
      if (event.kind !== "text") continue;
      heard.push(event.text);
      if (event.text === "ping") await bob.send("alice", "pong");
      if (event.text === "bye") stop.abort();
    }
  })();
  await alice.send("bob", "ping");
  const answers: string[] = [];
  for await (const event of alice.receive({ follow: true })) {
    if (event.kind !== "text") continue;
    answers.push(event.text);
    break;
  }
  await alice.send("bob", "bye");
  await listening;
  assert.deepEqual({ heard, answers }, { heard: ["ping", "bye"], answers: ["pong"] });
});

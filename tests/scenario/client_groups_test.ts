/**
 * Groups under pressure: commits at the same time, leaving, missing a part, large suites, blocked senders.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { MLS_SUITE_XWING } from "../../mod/base/mls_suites.ts";
import type { Client } from "../../mod/client/mod.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { drain, openClient, PASSWORD, texts } from "../support/test_user.ts";

/** One registered client for each name. */
async function users(server: TestServer, folder: string, ...names: string[]): Promise<Client[]> {
  const clients: Client[] = [];
  for (const userName of names) {
    const client = await openClient(server, join(folder, userName));
    await client.register({ userName, password: PASSWORD });
    clients.push(client);
  }
  return clients;
}

const closeAll = (clients: readonly Client[]) => Promise.all(clients.map((client) => client.close()));
const names = (client: Client, group: string) => client.members(group).map((one) => one.userName).sort();

Deno.test("two members who commit at the same time both succeed, one after the other", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const all = await users(server, folder.path, "alice", "bob", "carol", "dave", "erin");
  const [alice, bob, carol, dave, erin] = all as [Client, Client, Client, Client, Client];
  await alice.createGroup("team", { users: ["bob", "carol"] });
  await drain(bob);
  await drain(carol);
  await Promise.all([
    alice.addMember("team", "dave"),
    bob.addMember("team", "erin"),
    carol.addMember("team", "dave"),
  ]);
  for (const client of all) await drain(client);
  for (const client of all) {
    assert.deepEqual(names(client, "team"), ["alice", "bob", "carol", "dave", "erin"]);
  }
  await erin.send("team", "all here");
  for (const client of [alice, bob, carol, dave]) assert.deepEqual(await texts(client), ["erin: all here"]);
  await closeAll(all);
});

Deno.test("both sides of a conversation may begin it at once", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const all = await users(server, folder.path, "alice", "bob");
  const [alice, bob] = all as [Client, Client];
  await Promise.all([alice.send("bob", "a1"), bob.send("alice", "b1")]);
  assert.deepEqual(await texts(alice), ["bob: b1"]);
  assert.deepEqual(await texts(bob), ["alice: a1"]);
  const [fromAlice, fromBob] = [await alice.send("bob", "a2"), await bob.send("alice", "b2")];
  assert.equal(fromAlice.groupId, fromBob.groupId);
  await closeAll(all);
});

Deno.test("leaveGroup() is committed by another member, and nothing more is received", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const all = await users(server, folder.path, "alice", "bob", "carol");
  const [alice, bob, carol] = all as [Client, Client, Client];
  await alice.createGroup("team", { users: ["bob", "carol"] });
  await drain(bob);
  await drain(carol);
  await carol.leaveGroup("team");
  await bob.send("team", "carol is gone"); // commits the request first
  assert.deepEqual((await drain(carol)).map((one) => one.kind), ["removedFromGroup"]);
  assert.deepEqual(await texts(alice), ["bob: carol is gone"]);
  assert.deepEqual(names(alice, "team"), ["alice", "bob"]);
  await carol.forgetGroup("team");
  assert.deepEqual(carol.groups(), []);
  await closeAll(all);
});

Deno.test("a member whose queue lost a commit is told, and taken in again", async () => {
  await using server = await startTestServer({ flags: { "limits-queue-depth-max": "12" } });
  await using folder = await tempFolder();
  const all = await users(server, folder.path, "alice", "bob", "carol");
  const [alice, bob] = all as [Client, Client, Client];
  await alice.createGroup("team", { users: ["bob"] });
  await drain(bob);
  // One sender may hold a quarter of a queue: then Bob's is full for Alice, and her next commit passes him
  // by.
  for (let i = 0; i < 3; i++) await alice.send("team", `${i}`);
  const changed = await alice.addMember("team", "carol");
  assert.equal(changed.unreached.length, 1);
  await drain(bob);
  await alice.send("team", "after the commit");
  const missed = await drain(bob);
  assert.deepEqual(missed.map((one) => one.kind), ["missedCommit"]);
  assert.equal(bob.groups()[0]!.status, "broken");
  await assert.rejects(bob.send("team", "?"), /part of its history was lost/);
  await alice.readdMember("team", "bob");
  await alice.send("team", "back again");
  assert.deepEqual(await texts(bob), ["alice: back again"]);
  await bob.send("team", "thank you");
  assert.deepEqual(await texts(alice), ["bob: thank you"]);
  await closeAll(all);
});

Deno.test("a message that found a full queue is sent again later", async () => {
  await using server = await startTestServer({ flags: { "limits-queue-depth-max": "12" } });
  await using folder = await tempFolder();
  const clock = new FakeClock({ now: Date.now() });
  await using alice = await openClient(server, join(folder.path, "alice"), { clock });
  await alice.register({ userName: "alice", password: PASSWORD });
  const [bob] = await users(server, folder.path, "bob") as [Client];
  for (let i = 1; i <= 2; i++) await alice.send("bob", `${i}`); // with the Welcome, all that Alice may have there
  const sent = await alice.send("bob", "3");
  assert.deepEqual(sent.failures.map(({ user, reason }) => ({ user, reason })), [
    { user: "bob", reason: "queueFull" },
  ]);
  const heard = await drain(bob);
  assert.deepEqual(heard.filter((event) => event.kind === "lost").map((event) => event.count), [1]);
  await alice.upkeep();
  assert.deepEqual(await texts(bob), []); // it is not time yet
  await clock.advance(20_000);
  await alice.upkeep();
  assert.deepEqual(await texts(bob), ["alice: 3"]);
  await bob.close();
});

Deno.test("recreateGroup() makes a group of the same members under a new name", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const all = await users(server, folder.path, "alice", "bob");
  const [alice, bob] = all as [Client, Client];
  await alice.createGroup("team", { users: ["bob"] });
  await alice.recreateGroup("team");
  await alice.send("team (2)", "fresh start");
  assert.deepEqual(await texts(bob), ["alice: fresh start"]);
  await closeAll(all);
});

Deno.test("a group with the post-quantum suite works alike", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const all = await users(server, folder.path, "alice", "bob");
  const [alice, bob] = all as [Client, Client];
  await alice.createGroup("later", { users: ["bob"], suite: MLS_SUITE_XWING });
  await alice.send("later", "hybrid");
  assert.deepEqual(await texts(bob), ["alice: hybrid"]);
  assert.equal(bob.groups()[0]!.suite, MLS_SUITE_XWING);
  await closeAll(all);
});

Deno.test("block() keeps a user's messages away until unblock()", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const all = await users(server, folder.path, "alice", "bob");
  const [alice, bob] = all as [Client, Client];
  await alice.send("bob", "hello");
  await drain(bob);
  await bob.block("alice");
  assert.deepEqual((await bob.blocks()).map((one) => one.userName), ["alice"]);
  const sent = await alice.send("bob", "can you hear me?");
  assert.deepEqual(sent.failures.map((one) => one.reason), ["blocked"]);
  await bob.unblock("alice");
  await alice.send("bob", "and now?");
  assert.deepEqual(await texts(bob), ["alice: and now?"]);
  await closeAll(all);
});

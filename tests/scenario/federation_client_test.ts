/**
 * The client library over three real servers that relay to each other: groups across them, files, members who are
 * offline, servers that go and come back, commits of two servers at once.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { randomBytes } from "../../mod/base/bytes.ts";
import { QpqError } from "../../mod/base/errors.ts";
import type { Client, ClientEvent } from "../../mod/client/mod.ts";
import { FederationWorld } from "../support/federation_world.ts";
import { type TempFolder, tempFolder } from "../support/temp_folder.ts";
import { drain, openClient, PASSWORD } from "../support/test_user.ts";

const DOMAINS = { alice: "a.test", bob: "b.test", ben: "b.test", carol: "c.test" } as const;
type User = keyof typeof DOMAINS;

/** Two servers use engine `deno`, one the other. */
const ANOTHER_ENGINE = { "c.test": { "federation-engine": "quiche" } };

/** Three servers, and people on them. */
class People implements AsyncDisposable {
  readonly #open = new Set<Client>();

  private constructor(readonly world: FederationWorld, readonly folder: TempFolder) {}

  static async start(): Promise<People> {
    return new People(
      await FederationWorld.start(["a.test", "b.test", "c.test"], { flagsOf: ANOTHER_ENGINE }),
      await tempFolder(),
    );
  }

  /** Opens a client again, at its server's present address. */
  async open(user: User): Promise<Client> {
    const client = await openClient(this.world.at(DOMAINS[user]), join(this.folder.path, user));
    this.#open.add(client);
    return client;
  }

  async register(...users: User[]): Promise<Client[]> {
    const clients: Client[] = [];
    for (const user of users) {
      const client = await this.open(user);
      await client.register({ userName: user, password: PASSWORD });
      clients.push(client);
    }
    return clients;
  }

  async close(client: Client): Promise<void> {
    this.#open.delete(client);
    await client.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#open) await client.close();
    await this.world[Symbol.asyncDispose]();
    await this.folder[Symbol.asyncDispose]();
  }
}

/** Follows until a wanted event was shown; returns all that were. */
async function until(client: Client, isWanted: (event: ClientEvent) => boolean): Promise<ClientEvent[]> {
  const stop = new AbortController();
  const events: ClientEvent[] = [];
  for await (const event of client.receive({ follow: true, signal: stop.signal })) {
    events.push(event);
    if (isWanted(event)) stop.abort();
  }
  return events;
}

const kind = (wanted: ClientEvent["kind"]) => (event: ClientEvent) => event.kind === wanted;
const text = (wanted: string) => (event: ClientEvent) => event.kind === "text" && event.text === wanted;
const names = (client: Client, group: string) => client.members(group).map((one) => one.userName).sort();

/** A group of alice, bob and carol, in which all have arrived. */
async function team(people: People): Promise<[Client, Client, Client]> {
  const [alice, bob, carol] = await people.register("alice", "bob", "carol") as [Client, Client, Client];
  await alice.createGroup("team", { users: ["bob@b.test", "carol@c.test"] });
  await until(bob, kind("joined"));
  await until(carol, kind("joined"));
  return [alice, bob, carol];
}

Deno.test("a group spans three servers: everybody writes, one is added and one removed", async () => {
  await using people = await People.start();
  const [alice, bob, carol] = await team(people);
  const [ben] = await people.register("ben") as [Client];
  await carol.send("team", "hello from c");
  const [heard] = (await until(alice, text("hello from c"))).slice(-1);
  assert.ok(heard?.kind === "text" && heard.from === "carol@c.test");
  await until(bob, text("hello from c"));
  await bob.addMember("team", "ben");
  for (const client of [ben, alice, carol]) {
    await until(client, client === ben ? kind("joined") : kind("membersChanged"));
    assert.equal(names(client, "team").length, 4);
  }
  assert.deepEqual(names(carol, "team"), ["alice@a.test", "ben@b.test", "bob@b.test", "carol"]);
  await carol.removeMember("team", "bob@b.test");
  await until(bob, kind("removedFromGroup"));
  await until(alice, kind("membersChanged"));
  await alice.send("team", "without bob");
  for (const client of [carol, ben]) await until(client, text("without bob"));
  assert.deepEqual((await drain(bob)).filter(kind("text")), []);
  const [seenByAlice, seenByCarol] = [await alice.verify("carol@c.test"), await carol.verify("alice@a.test")];
  assert.equal(seenByAlice.safetyNumber, seenByCarol.safetyNumber);
});

Deno.test("send() to user@domain, a file to another server, and a block", async () => {
  await using people = await People.start();
  const [alice, bob] = await people.register("alice", "bob") as [Client, Client];
  await alice.send("bob@b.test", "hello");
  await until(bob, text("hello"));
  const bytes = randomBytes(300_000);
  await bob.sendFile("alice@a.test", { bytes, name: "photo.jpg" });
  const file = (await until(alice, kind("file"))).at(-1);
  assert.ok(file?.kind === "file" && file.from === "bob@b.test");
  const path = await alice.getFile(file.fileId, people.folder.path);
  assert.ok((await Deno.readFile(path)).every((byte, index) => byte === bytes[index]));
  await alice.block("bob@b.test");
  assert.deepEqual((await alice.blocks()).map((one) => one.userName), ["bob@b.test"]);
  await bob.send("alice@a.test", "blocked");
  const failed = (await until(bob, kind("deliveryFailed"))).at(-1);
  assert.ok(failed?.kind === "deliveryFailed" && failed.reason === "blocked");
  assert.deepEqual(failed.users, ["alice@a.test"]);
});

Deno.test("a member who was offline, and one whose server was, catch up", async () => {
  await using people = await People.start();
  const [alice, bob, carol] = await team(people);
  await people.close(bob);
  await people.close(carol);
  await people.world.stop("c.test");
  await alice.send("team", "while you were away");
  const bobAgain = await people.open("bob");
  await until(bobAgain, text("while you were away"));
  await people.world.restart("c.test");
  const carolAgain = await people.open("carol");
  await until(carolAgain, text("while you were away"));
  await carolAgain.send("team", "back");
  for (const client of [alice, bobAgain]) await until(client, text("back"));
});

Deno.test("members of two servers who commit at once both succeed", async () => {
  await using people = await People.start();
  const [alice, bob, carol] = await team(people);
  await people.register("ben");
  await Promise.all([
    bob.addMember("team", "ben"),
    carol.send("team", "meanwhile"),
    alice.removeMember("team", "carol@c.test"),
  ]);
  await until(carol, kind("removedFromGroup"));
  await alice.send("team", "done");
  await until(bob, text("done"));
  await alice.upkeep();
  assert.deepEqual(names(bob, "team"), ["alice@a.test", "ben", "bob"]);
  assert.deepEqual(names(alice, "team"), ["alice", "ben@b.test", "bob@b.test"]);
});

Deno.test("while the hub is down messages go on and a commit waits; it is made when the hub is back", async () => {
  await using people = await People.start();
  const [alice, bob, carol] = await team(people);
  await people.register("ben");
  await people.close(alice);
  await people.world.stop("a.test");
  await assert.rejects(
    bob.addMember("team", "ben"),
    (error) => error instanceof QpqError && error.code === "peerUnavailable",
  );
  assert.equal(bob.unsent, 1);
  await bob.send("team", "the hub is down");
  await until(carol, text("the hub is down"));
  await people.world.restart("a.test");
  const stop = new AbortController();
  const following = Array.fromAsync(bob.receive({ follow: true, signal: stop.signal }));
  await until(carol, kind("membersChanged"));
  stop.abort();
  await following;
  assert.equal(bob.unsent, 0);
  const aliceAgain = await people.open("alice");
  await until(aliceAgain, kind("membersChanged"));
  assert.deepEqual(names(aliceAgain, "team"), ["alice", "ben@b.test", "bob@b.test", "carol@c.test"]);
});

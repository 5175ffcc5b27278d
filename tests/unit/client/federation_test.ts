/** The client library among servers of several domains (in memory): addresses, groups, orders, servers that lie. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fromHex } from "../../../mod/base/bytes.ts";
import { QpqError } from "../../../mod/base/errors.ts";
import { AccountKeyChangedError, type Client, type ClientEvent, MlsError } from "../../../mod/client/mod.ts";
import { generateKeyPair } from "../../../mod/client/account_keys.ts";
import { DeliveryFailure } from "../../../mod/protocol/qpq_pb.ts";
import { FakeFederation, type FakeServer } from "../../support/fake_federation.ts";
import { tempFolder } from "../../support/temp_folder.ts";
import { drain, texts } from "../../support/test_user.ts";

/** alice on a.test, bob and ben on b.test, carol on c.test. */
class World implements AsyncDisposable {
  readonly net = new FakeFederation();
  readonly a: FakeServer = this.net.server("a.test");
  readonly b: FakeServer = this.net.server("b.test");
  readonly c: FakeServer = this.net.server("c.test");
  readonly #clients: Client[] = [];

  private constructor(readonly folder: Awaited<ReturnType<typeof tempFolder>>) {}

  static async open(): Promise<World> {
    return new World(await tempFolder());
  }

  stateOf(name: string): string {
    return join(this.folder.path, name);
  }

  async client(server: FakeServer, name: string): Promise<Client> {
    const client = await server.client(name, this.stateOf(name));
    this.#clients.push(client);
    return client;
  }

  async reopen(server: FakeServer, name: string): Promise<Client> {
    const client = await server.reopen(this.stateOf(name));
    this.#clients.push(client);
    return client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) await client.close();
    await this.folder[Symbol.asyncDispose]();
  }
}

const names = (client: Client, group: string) => client.members(group).map((one) => one.userName).sort();
const kinds = (events: readonly ClientEvent[]) => events.map((event) => event.kind);
const idOf = (client: Client) => client.whoami()!.deviceId;
const hasCode = (code: string) => (error: unknown) => error instanceof QpqError && error.code === code;

Deno.test("send() to user@domain makes a conversation across servers", async () => {
  await using world = await World.open();
  const [alice, bob] = [await world.client(world.a, "alice"), await world.client(world.b, "bob")];
  assert.equal(alice.whoami()!.address, "alice@a.test");
  const sent = await alice.send("Bob@B.test", "hello");
  assert.deepEqual(sent.failures, []);
  assert.equal(sent.devices, 1);
  assert.deepEqual(await texts(bob), ["alice@a.test: hello"]);
  await bob.send("alice@a.test", "hello back");
  assert.deepEqual(await texts(alice), ["bob@b.test: hello back"]);
  assert.deepEqual(alice.groups().map((group) => group.name), ["bob@b.test"]);
  const [seenByAlice, seenByBob] = [await alice.verify("bob@b.test"), await bob.verify("alice@a.test")];
  assert.equal(seenByAlice.safetyNumber, seenByBob.safetyNumber);
  assert.equal(seenByAlice.userName, "bob@b.test");
});

Deno.test("the own domain in an address means this server", async () => {
  await using world = await World.open();
  const [bob, ben] = [await world.client(world.b, "bob"), await world.client(world.b, "ben")];
  await bob.send("ben@b.test", "one");
  await bob.send("ben", "two");
  assert.deepEqual(await texts(ben), ["bob: one", "bob: two"]);
  assert.equal(bob.groups().length, 1);
  await assert.rejects(bob.send("bob@b.test", "me"), /no conversation with oneself/);
});

Deno.test("a group spans servers: everybody writes, members go, and all see the same members", async () => {
  await using world = await World.open();
  const [alice, bob, ben, carol] = [
    await world.client(world.a, "alice"),
    await world.client(world.b, "bob"),
    await world.client(world.b, "ben"),
    await world.client(world.c, "carol"),
  ];
  await alice.createGroup("team", { users: ["bob@b.test", "carol@c.test"] });
  assert.deepEqual(kinds(await drain(bob)), ["joined"]);
  await drain(carol);
  await bob.addMember("team", "ben");
  for (const client of [alice, carol, ben]) await drain(client);
  assert.deepEqual(names(alice, "team"), ["alice", "ben@b.test", "bob@b.test", "carol@c.test"]);
  assert.deepEqual(names(bob, "team"), ["alice@a.test", "ben", "bob", "carol@c.test"]);
  await carol.send("team", "from c");
  for (const client of [alice, bob, ben]) assert.deepEqual(await texts(client), ["carol@c.test: from c"]);
  await carol.removeMember("team", "bob@b.test");
  assert.ok(kinds(await drain(bob)).includes("removedFromGroup"));
  await alice.send("team", "without bob");
  for (const client of [ben, carol]) assert.deepEqual(await texts(client), ["alice@a.test: without bob"]);
  assert.deepEqual(await texts(bob), []);
});

Deno.test("members of two servers who commit at once both succeed, also while the winner is under way", async () => {
  await using world = await World.open();
  const [alice, bob, carol] = [
    await world.client(world.a, "alice"),
    await world.client(world.b, "bob"),
    await world.client(world.c, "carol"),
  ];
  await world.client(world.a, "dave");
  await world.client(world.b, "erin");
  await alice.createGroup("team", { users: ["bob@b.test", "carol@c.test"] });
  await drain(bob);
  await drain(carol);
  world.net.hold("a.test", "b.test");
  await alice.addMember("team", "dave");
  let late = 0;
  world.a.onWrongEpoch = () => void (++late === 2 && world.net.release("a.test", "b.test"));
  const alive = setInterval(() => {}, 1_000); // the client's own timers do not keep a process without a network alive
  await bob.addMember("team", "erin").finally(() => clearInterval(alive));
  assert.equal(late, 2);
  await drain(alice);
  await drain(carol);
  const all = ["alice@a.test", "bob@b.test", "carol", "dave@a.test", "erin@b.test"];
  assert.deepEqual(names(carol, "team"), all);
  assert.equal(names(alice, "team").length, 5);
});

Deno.test("messages of a later epoch wait, over a restart, for commits that come in any order", async () => {
  await using world = await World.open();
  const [alice, bob, carol] = [
    await world.client(world.a, "alice"),
    await world.client(world.b, "bob"),
    await world.client(world.c, "carol"),
  ];
  await world.client(world.a, "dave");
  await world.client(world.a, "dora");
  await alice.createGroup("team", { users: ["bob@b.test", "carol@c.test"] });
  await drain(bob);
  await drain(carol);
  world.net.hold("a.test", "c.test");
  await alice.addMember("team", "dave");
  await alice.addMember("team", "dora");
  await drain(bob);
  await bob.send("team", "in the new epoch");
  assert.deepEqual(await drain(carol), []);
  assert.equal(carol.groups()[0]!.waiting, 1);
  await carol.close();
  world.net.release("a.test", "c.test", (held) => held.reverse());
  const again = await world.reopen(world.c, "carol");
  const events = await drain(again);
  assert.deepEqual(kinds(events).sort(), ["membersChanged", "membersChanged", "text"]);
  assert.equal(kinds(events).at(-1), "text");
  assert.deepEqual([again.groups()[0]!.waiting, again.groups()[0]!.status], [0, "active"]);
});

Deno.test("a message that overtakes the Welcome to its group is shown after it", async () => {
  await using world = await World.open();
  const [alice, bob, carol] = [
    await world.client(world.a, "alice"),
    await world.client(world.b, "bob"),
    await world.client(world.c, "carol"),
  ];
  world.net.hold("a.test", "c.test");
  await alice.createGroup("team", { users: ["bob@b.test", "carol@c.test"] });
  await drain(bob);
  await bob.send("team", "welcome");
  assert.deepEqual(await drain(carol), []);
  world.net.release("a.test", "c.test");
  assert.deepEqual(kinds(await drain(carol)), ["joined", "text"]);
});

Deno.test("a commit waits while the group's hub cannot be reached; messages do not", async () => {
  await using world = await World.open();
  const [alice, bob, carol] = [
    await world.client(world.a, "alice"),
    await world.client(world.b, "bob"),
    await world.client(world.c, "carol"),
  ];
  await world.client(world.b, "ben");
  await alice.createGroup("team", { users: ["bob@b.test", "carol@c.test"] });
  await drain(bob);
  await drain(carol);
  world.a.isDown = true;
  await assert.rejects(bob.addMember("team", "ben"), hasCode("peerUnavailable"));
  await assert.rejects(bob.removeMember("team", "carol@c.test"), hasCode("peerUnavailable"));
  assert.equal(bob.unsent, 1, "only one change of a group waits");
  await bob.send("team", "meanwhile");
  assert.deepEqual(await texts(carol), ["bob@b.test: meanwhile"]);
  world.a.isDown = false;
  await bob.removeMember("team", "carol@c.test");
  await drain(alice);
  assert.deepEqual(names(alice, "team"), ["alice", "ben@b.test", "bob@b.test"]);
});

Deno.test("a change that waited for the hub and was overtaken is told", async () => {
  await using world = await World.open();
  const [alice, bob] = [await world.client(world.a, "alice"), await world.client(world.b, "bob")];
  await world.client(world.a, "dave");
  await world.client(world.b, "ben");
  await alice.createGroup("team", { users: ["bob@b.test"] });
  await drain(bob);
  world.a.isDown = true;
  await assert.rejects(bob.addMember("team", "ben"), hasCode("peerUnavailable"));
  await alice.addMember("team", "dave");
  world.a.isDown = false;
  await bob.removeMember("team", "dave@a.test");
  assert.deepEqual(kinds(await drain(bob)).sort(), ["changeDropped", "membersChanged"]);
  assert.deepEqual(names(bob, "team"), ["alice@a.test", "bob"]);
});

Deno.test("a message that comes from another server than its sender's is refused", async () => {
  await using world = await World.open();
  const [alice, bob] = [await world.client(world.a, "alice"), await world.client(world.b, "bob")];
  await alice.send("bob@b.test", "hello");
  await drain(bob);
  world.net.hold("a.test", "b.test");
  await alice.send("bob@b.test", "true");
  // c.test got hold of it and relays it as its own.
  const device = world.b.accounts[0]!.devices[0]!;
  const before = device.queue.length;
  world.net.release("a.test", "b.test");
  const [entry] = device.queue.splice(before);
  world.b.deliver(idOf(bob), { ...entry, entryId: fromHex("99".repeat(16)), senderDomain: "c.test" });
  const [warning] = await drain(bob);
  assert.deepEqual([warning?.kind, "reason" in warning! && warning.reason], ["unreadable", "wrongServer"]);
  world.b.deliver(idOf(bob), entry!);
  assert.deepEqual(await texts(bob), ["alice@a.test: true"]);
});

Deno.test("no server answers for the account of another", async () => {
  await using world = await World.open();
  const [alice, bob] = [await world.client(world.a, "alice"), await world.client(world.b, "bob")];
  await alice.send("bob@b.test", "hello");
  const victim = world.b.accounts[0]!;
  world.c.accounts.push({ ...victim, key: await generateKeyPair() });
  await assert.rejects(alice.send("bob@c.test", "who?"), /Refused the answer of c.test/);
  assert.equal((await alice.verify("bob@b.test")).changed, false);
  world.c.accounts.push({ ...world.a.accounts[0]!, userName: "mallory" });
  await assert.rejects(alice.send("mallory@c.test", "me?"), /Refused the answer of c.test/);
  await drain(bob);
});

Deno.test("a name of another server that looks like an address is refused", async () => {
  await using world = await World.open();
  const [alice, carol] = [await world.client(world.a, "alice"), await world.client(world.c, "carol")];
  await world.client(world.b, "bob");
  await carol.createGroup("team", { users: ["alice@a.test", "bob@b.test"] });
  const account = world.b.accounts[0]!;
  world.b.accounts[0] = { ...account, userName: "bob@a.test" };
  await drain(alice);
  const stranger = `account-${account.accountId.slice(0, 8)}`;
  assert.deepEqual(names(alice, "team"), [stranger, "alice", "carol@c.test"]);
});

Deno.test("a changed account key of another server's user is announced with the address", async () => {
  await using world = await World.open();
  const alice = await world.client(world.a, "alice");
  await world.client(world.b, "bob");
  await alice.send("bob@b.test", "hello");
  world.b.accounts[0] = { ...world.b.accounts[0]!, key: await generateKeyPair() };
  await assert.rejects(
    alice.addMember((await alice.createGroup("team")).groupId, "bob@b.test"),
    (error) => error instanceof AccountKeyChangedError && error.userName === "bob@b.test",
  );
});

Deno.test("what could not be delivered becomes an event that names user, group and reason", async () => {
  await using world = await World.open();
  const [alice, bob] = [await world.client(world.a, "alice"), await world.client(world.b, "bob")];
  await alice.createGroup("team", { users: ["bob@b.test"] });
  const { messageId } = await alice.send("team", "hello");
  world.a.notify(idOf(alice), {
    case: "deliveryFailed",
    value: {
      messageId: fromHex(messageId),
      domain: "b.test",
      deviceIds: [fromHex(idOf(bob))],
      reason: DeliveryFailure.EXPIRED,
    },
  });
  const [event] = await drain(alice);
  assert.ok(event?.kind === "deliveryFailed");
  assert.deepEqual([event.users, event.group, event.reason], [["bob@b.test"], "team", "expired"]);
});

Deno.test("an unknown domain is told, at once for a claim and by status for a message", async () => {
  await using world = await World.open();
  const alice = await world.client(world.a, "alice");
  await world.client(world.b, "bob");
  await assert.rejects(alice.send("zoe@z.test", "hello"), hasCode("unknownDomain"));
  await alice.createGroup("team", { users: ["bob@b.test"] });
  world.net.servers.delete("b.test");
  const { failures } = await alice.send("team", "hello");
  assert.deepEqual(failures.map(({ user, reason, domain }) => [user, reason, domain]), [
    ["bob@b.test", "unknownDomain", "b.test"],
  ]);
});

Deno.test("a group of a server without a domain spans servers once its members' leaves name the new domain", async () => {
  await using world = await World.open();
  world.a.domain = "";
  const [alice, dave] = [await world.client(world.a, "alice"), await world.client(world.a, "dave")];
  const bob = await world.client(world.b, "bob");
  await alice.createGroup("team", { users: ["dave"] });
  await drain(dave);
  await alice.close();
  await dave.close();
  world.a.domain = "a.test";
  const renewed = await world.reopen(world.a, "alice");
  await assert.rejects(
    renewed.addMember("team", "bob@b.test"),
    (error) => error instanceof MlsError && error.reason === "domainMissing" && /dave/.test(error.message),
  );
  const other = await world.reopen(world.a, "dave");
  await drain(other);
  await renewed.addMember("team", "bob@b.test");
  await drain(bob);
  assert.deepEqual(names(bob, "team"), ["alice@a.test", "bob", "dave@a.test"]);
  await world.client(world.b, "ben");
  await bob.addMember("team", "ben"); // the guard is at a.test, as bob was told with his Welcome
  await drain(renewed);
  assert.deepEqual(names(renewed, "team"), ["alice", "ben@b.test", "bob@b.test", "dave"]);
});

Deno.test("KeyPackages are renewed when the server has got a domain", async () => {
  await using world = await World.open();
  world.a.domain = "";
  const dave = await world.client(world.a, "dave");
  const device = world.a.accounts[0]!.devices[0]!;
  const count = device.packages.length;
  await dave.close();
  world.a.domain = "a.test";
  await world.reopen(world.a, "dave");
  assert.equal(device.packages.length, 2 * count - 2, "the last resorts are replaced");
  const again = await world.reopen(world.a, "dave").catch(() => undefined);
  assert.equal(again, undefined, "the folder is in use");
  assert.equal(device.packages.length, 2 * count - 2);
});

Deno.test("a server that cannot be asked for a sender's device holds nothing up", async () => {
  await using world = await World.open();
  const [alice, bob, carol] = [
    await world.client(world.a, "alice"),
    await world.client(world.b, "bob"),
    await world.client(world.c, "carol"),
  ];
  await alice.createGroup("team", { users: ["bob@b.test", "carol@c.test"] });
  world.c.isDown = true; // bob has never heard of carol
  assert.ok(kinds(await drain(bob)).includes("joined"));
  await carol.send("team", "hello from c");
  await alice.send("team", "hello from a");
  assert.deepEqual(await texts(bob), ["alice@a.test: hello from a"]);
  world.c.isDown = false;
  assert.deepEqual(await texts(bob), ["carol@c.test: hello from c"]);
});

/** Messages between servers over real QUIC: relayed, retried, refused, given up. */
import assert from "node:assert/strict";
import { hex, randomBytes, utf8Text } from "../../mod/base/bytes.ts";
import { DeliveryFailure, RecipientStatus } from "../../mod/protocol/qpq_pb.ts";
import { failureOf, receive, send, textsOf } from "../support/federation_messages.ts";
import { FederationWorld } from "../support/federation_world.ts";
import { newAccount } from "../support/test_client.ts";
import { UdpRelay } from "../support/udp_relay.ts";

const { OK, RELAYING, UNKNOWN_DOMAIN } = RecipientStatus;

Deno.test("a message is relayed, and its sender is vouched for by the sender's server", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const { statuses } = await send(alice, [{ domain: "b.example", devices: [bob.deviceId] }], {
    text: "hello",
    here: [alice.deviceId],
  });
  assert.deepEqual(statuses, [OK, RELAYING]);
  const [entry] = await receive(bob, 1);
  assert.deepEqual([utf8Text(entry!.payload), entry!.senderDomain], ["hello", "a.example"]);
  assert.deepEqual(entry!.senderAccountId, alice.accountId);
  const [own] = await receive(alice, 1);
  assert.equal(own!.senderDomain, "");
});

Deno.test("what is for an offline server waits on disk, and arrives once and in order", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const devices = [bob.deviceId];
  await send(alice, [{ domain: "b.example", devices }], { text: "0" });
  await receive(bob, 1);
  await world.stop("b.example");
  const texts = Array.from({ length: 300 }, (_, i) => `${i + 1}`);
  for (const text of texts) await send(alice, [{ domain: "b.example", devices }], { text });
  await world.stop("a.example");
  await world.restart("a.example");
  await world.restart("b.example");
  await using again = await bob.again(world.at("b.example"));
  await world.federationAt("a.example").retry(null, "now");
  const entries = await receive(again, 300, 1n);
  assert.deepEqual(textsOf(entries), texts);
  await world.outboxesHold("a.example", {});
});

Deno.test("a recipient that is unknown or blocks is told to the sender; an unknown domain at once", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  await bob.connection.call("block", { accountId: alice.accountId });
  const messageId = randomBytes(16);
  const { statuses } = await send(alice, [
    { domain: "b.example", devices: [bob.deviceId] },
    { domain: "c.example", devices: [randomBytes(16)] },
  ], { text: "x", messageId });
  assert.deepEqual(statuses, [RELAYING, UNKNOWN_DOMAIN]);
  const failed = failureOf((await receive(alice, 1))[0]!);
  assert.deepEqual(
    [hex(failed.messageId), failed.domain, failed.deviceIds, failed.reason],
    [hex(messageId), "b.example", [bob.deviceId], DeliveryFailure.BLOCKED],
  );
});

Deno.test("several recipients that fail for several reasons give a notice for each reason", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  await bob.connection.call("block", { accountId: alice.accountId });
  const nobody = randomBytes(16);
  await send(alice, [{ domain: "b.example", devices: [nobody, bob.deviceId, nobody] }], { text: "x" });
  const failed = (await receive(alice, 2)).map(failureOf);
  assert.deepEqual(
    failed.map(({ reason, deviceIds }) => [reason, deviceIds]),
    [[DeliveryFailure.UNKNOWN_DEVICE, [nobody]], [DeliveryFailure.BLOCKED, [bob.deviceId]]],
  );
});

Deno.test("a partitioned peer does not delay another, and gets its messages when it is back", async () => {
  const relays: UdpRelay[] = [];
  await using world = await FederationWorld.start(["a.example", "b.example", "c.example"], {
    addressFor: (from, to, real) => {
      if (from !== "a.example" || to !== "c.example") return real;
      const relay = new UdpRelay(real.port);
      relays.push(relay);
      return { hostname: "127.0.0.1", port: relay.port };
    },
  });
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  await using carol = await newAccount(world.at("c.example"), "carol");
  const both = [{ domain: "b.example", devices: [bob.deviceId] }, {
    domain: "c.example",
    devices: [carol.deviceId],
  }];
  await send(alice, both, { text: "0" });
  await Promise.all([receive(bob, 1), receive(carol, 1)]);
  for (const relay of relays) relay.cut();
  for (const text of ["1", "2", "3"]) await send(alice, both, { text });
  assert.deepEqual(textsOf(await receive(bob, 3, 1n)), ["1", "2", "3"]);
  await world.outboxesHold("a.example", { "c.example": 3 });
  await world.introduce(); // a way that is not cut
  await world.stop("c.example");
  await world.restart("c.example");
  await using again = await carol.again(world.at("c.example"));
  await world.federationAt("a.example").retry("c.example", "now");
  assert.deepEqual(textsOf(await receive(again, 3, 1n)), ["1", "2", "3"]);
  for (const relay of relays) await relay[Symbol.asyncDispose]();
});

Deno.test("a message whose answer is lost on the link is sent again and delivered once", async () => {
  let relay: UdpRelay | undefined;
  await using world = await FederationWorld.start(["a.example", "b.example"], {
    addressFor: (from, _, real) => {
      if (from !== "a.example") return real;
      relay ??= new UdpRelay(real.port);
      return { hostname: "127.0.0.1", port: relay.port };
    },
  });
  await using _ = relay!;
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const to = [{ domain: "b.example", devices: [bob.deviceId] }];
  const { store } = world.at("b.example").server.context;
  const enqueue = store.enqueue.bind(store);
  const replayed: boolean[] = [];
  store.enqueue = async (message) => {
    const result = await enqueue(message);
    // It is on disk, and nothing that says so leaves any more.
    if (replayed.length === 0) relay!.muteServer();
    replayed.push(result.status === "accepted" && result.replayed);
    return result;
  };
  await send(alice, to, { text: "once" });
  assert.deepEqual(textsOf(await receive(bob, 1)), ["once"]);
  await world.outboxesHold("a.example", { "b.example": 1 });
  // The link is given up with what was on its way on it; a new one is heard again.
  await world.federationAt("a.example").retry(null, "now");
  relay!.unmuteServer();
  await send(alice, to, { text: "next" });
  assert.deepEqual(textsOf(await receive(bob, 1, 1n)), ["next"]);
  await world.outboxesHold("a.example", {});
  assert.deepEqual(replayed, [false, true, false]);
});

Deno.test("a message whose settling fails is sent again and delivered once", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const to = [{ domain: "b.example", devices: [bob.deviceId] }];
  const { store } = world.at("a.example").server.context;
  // The answer comes, and what it says is lost before it is on disk: as if it had never come.
  const settle = store.settleOutbox.bind(store);
  let lost = 0;
  store.settleOutbox = (settled) => lost++ === 0 ? Promise.reject(new Error("lost")) : settle(settled);
  await send(alice, to, { text: "once" });
  await receive(bob, 1);
  await world.federationAt("a.example").retry(null, "now");
  store.settleOutbox = (settled) => settle(settled);
  await send(alice, to, { text: "next" });
  assert.deepEqual(textsOf(await receive(bob, 1, 1n)), ["next"]);
  assert.ok(lost > 0);
});

Deno.test("a recipient whose queue is full is told to the sender, and the others get the message", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"], {
    flagsOf: { "b.example": { "limits-queue-depth-max": "4" } },
  });
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  await using carol = await newAccount(world.at("b.example"), "carol");
  // Their own messages are exempt from the share of a sender: the queue itself is full.
  const own = [{ domain: "b.example", devices: [bob.deviceId] }];
  for (const text of ["1", "2", "3", "4"]) await send(bob, own, { text });
  const messageId = randomBytes(16);
  const both = [{ domain: "b.example", devices: [bob.deviceId, carol.deviceId] }];
  await send(alice, both, { text: "to both", messageId });
  assert.deepEqual(textsOf(await receive(carol, 1)), ["to both"]);
  const failed = failureOf((await receive(alice, 1))[0]!);
  assert.deepEqual(
    [hex(failed.messageId), failed.domain, failed.deviceIds, failed.reason],
    [hex(messageId), "b.example", [bob.deviceId], DeliveryFailure.QUEUE_FULL],
  );
  await world.outboxesHold("a.example", {});
  assert.deepEqual(textsOf(await receive(bob, 4)), ["1", "2", "3", "4"]);
  // The next one gets through when there is room.
  await bob.connection.call("ack", { through: 4n });
  await send(alice, both, { text: "again" });
  assert.deepEqual(textsOf(await receive(bob, 1, 4n)), ["again"]);
});

Deno.test("a full outbox is told to the sender, and the message goes to the others", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"], {
    flags: { "federation-outbox-depth-max": "2" },
  });
  await using alice = await newAccount(world.at("a.example"), "alice");
  await world.stop("b.example");
  const statuses = [];
  for (const text of ["1", "2", "3"]) {
    const reply = await send(alice, [{ domain: "b.example", devices: [randomBytes(16)] }], {
      text,
      here: [alice.deviceId],
    });
    statuses.push(reply.statuses);
  }
  assert.deepEqual(statuses, [[OK, RELAYING], [OK, RELAYING], [OK, RecipientStatus.QUEUE_FULL]]);
});

Deno.test("the own domain means this server", async () => {
  await using world = await FederationWorld.start(["a.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  const own = [{ domain: "a.example", devices: [alice.deviceId] }];
  const { statuses } = await send(alice, own, { text: "to myself" });
  assert.deepEqual(statuses, [OK]);
  assert.deepEqual(textsOf(await receive(alice, 1)), ["to myself"]);
  const account = await alice.connection.call("getAccount", {
    accountId: alice.accountId,
    domain: "a.example",
  });
  assert.equal(account.userName, "alice");
});

Deno.test("the same over the engine with mutual TLS", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"], {
    flags: { "federation-engine": "quiche" },
  });
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const texts = ["1", "2", "3"];
  for (const text of texts) await send(alice, [{ domain: "b.example", devices: [bob.deviceId] }], { text });
  const entries = await receive(bob, 3);
  assert.deepEqual([textsOf(entries), entries[0]!.senderDomain], [texts, "a.example"]);
});

Deno.test("servers of both engines reach each other, whichever of them dials", async () => {
  const domains = ["a.example", "b.example", "c.example"];
  await using world = await FederationWorld.start(domains, {
    flagsOf: { "c.example": { "federation-engine": "quiche" } },
  });
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  await using carol = await newAccount(world.at("c.example"), "carol");
  const people = [alice, bob, carol];
  for (const [from, sender] of people.entries()) {
    const others = people.flatMap(({ deviceId }, to) =>
      to === from ? [] : [{ domain: domains[to]!, devices: [deviceId] }]
    );
    await send(sender, others, { text: domains[from]! });
  }
  for (const [to, person] of people.entries()) {
    const texts = textsOf(await receive(person, 2)).sort();
    assert.deepEqual(texts, domains.filter((_, from) => from !== to));
  }
  const { body } = await world.at("c.example").server.context.metrics.expose();
  assert.doesNotMatch(body, /qpq_federation_refused_total\{reason="[a-z_]+"\} [1-9]/);
});

Deno.test("a peer that sends more than it may is put off, and nothing of it is lost or out of order", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"], {
    flags: { "federation-peer-messages-per-second": "30", "limits-request-rate": "10000" },
  });
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const texts = Array.from({ length: 340 }, (_, i) => `${i}`);
  const release = world.holdOutboxes("a.example");
  for (const text of texts) await send(alice, [{ domain: "b.example", devices: [bob.deviceId] }], { text });
  release();
  assert.deepEqual(textsOf(await receive(bob, texts.length)), texts);
  const { body } = await world.at("b.example").server.context.metrics.expose();
  assert.match(body, /qpq_rate_limit_hits_total\{limit="peerRequests"\} [1-9]/);
});

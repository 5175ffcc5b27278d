/** Commits of groups that span servers: the hub judges them, whoever sends. */
import assert from "node:assert/strict";
import { randomBytes, utf8 } from "../../mod/base/bytes.ts";
import { RecipientStatus } from "../../mod/protocol/qpq_pb.ts";
import { type GuardInit, receive, TestGroup, textsOf } from "../support/federation_messages.ts";
import { FederationWorld } from "../support/federation_world.ts";
import { newAccount, type TestClient } from "../support/test_client.ts";

const { OK, RELAYING } = RecipientStatus;

/** Sends a commit, and a Welcome beside it, to alice at a and bob at b. */
async function submit(
  from: TestClient,
  { payload, guard }: { payload: Uint8Array; guard: GuardInit },
  to: { here: Uint8Array[]; domain: string; there: Uint8Array[]; hub: string; messageId?: Uint8Array },
) {
  const remote = [{ domain: to.domain, recipients: to.there }];
  return await from.connection.call("enqueue", {
    messageId: to.messageId ?? randomBytes(16),
    parts: [{ payload, recipients: to.here, remote }, { payload: utf8("welcome"), remote }],
    guard: { ...guard, hub: to.hub },
  });
}

Deno.test("a commit from another server is judged by the hub, in the same order for all", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const group = new TestGroup();
  const fromHub = { here: [alice.deviceId], domain: "b.example", there: [bob.deviceId], hub: "" };
  const toHub = { here: [bob.deviceId], domain: "a.example", there: [alice.deviceId], hub: "a.example" };
  const first = await submit(alice, await group.commit(0), fromHub);
  assert.deepEqual(first.statuses, [OK, RELAYING, RELAYING]);
  const second = await submit(bob, await group.commit(1), toHub);
  assert.deepEqual(second.statuses, [OK, OK, OK]);
  await assert.rejects(submit(bob, await group.commit(1), toHub), {
    code: "wrongEpoch",
    details: { currentEpoch: 2 },
  });
  await assert.rejects(submit(alice, await group.commit(0), { ...fromHub, hub: "a.example" }), {
    code: "wrongEpoch",
  });
  // What was refused went nowhere, the Welcome neither.
  assert.equal((await receive(alice, 3)).length, 3);
  assert.equal((await receive(bob, 3)).length, 3);
});

Deno.test("of two commits at once one wins, wherever they come from", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example", "c.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  await using carol = await newAccount(world.at("c.example"), "carol");
  const group = new TestGroup();
  const at = (here: TestClient) => ({
    here: [here.deviceId],
    domain: "a.example",
    there: [alice.deviceId],
    hub: "a.example",
  });
  for (let epoch = 0; epoch < 3; epoch++) {
    const results = await Promise.allSettled([
      submit(bob, await group.commit(epoch), at(bob)),
      submit(carol, await group.commit(epoch), at(carol)),
    ]);
    const lost = results.filter((result) => result.status === "rejected");
    assert.equal(lost.length, 1);
    const { code, details } = lost[0]!.reason;
    assert.deepEqual([code, details.currentEpoch], ["wrongEpoch", epoch + 1]);
  }
});

Deno.test("a commit whose answer was lost is sent again under its id: the hub replays, the rest goes on", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const group = new TestGroup();
  const commit = await group.commit(0);
  const messageId = randomBytes(16);
  const to = {
    here: [bob.deviceId],
    domain: "a.example",
    there: [alice.deviceId],
    hub: "a.example",
    messageId,
  };
  // The hub accepts, and the sender's server fails before it has done its own part.
  const { store } = world.at("b.example").server.context;
  const enqueue = store.enqueue.bind(store);
  store.enqueue = () => Promise.reject(new Error("killed"));
  await assert.rejects(submit(bob, commit, to), { code: "internal" });
  store.enqueue = (message) => enqueue(message);
  const { statuses, replayed } = await submit(bob, commit, to);
  assert.deepEqual([statuses, replayed], [[OK, OK, OK], false]);
  assert.equal((await receive(alice, 2)).length, 2);
  assert.deepEqual((await submit(bob, commit, to)).replayed, true);
  assert.equal((await bob.connection.call("fetch", {})).entries.length, 1);
  assert.equal((await alice.connection.call("fetch", {})).entries.length, 2);
});

Deno.test("without its hub a commit is refused with retry-after, and messages still go", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example", "c.example"]);
  await using bob = await newAccount(world.at("b.example"), "bob");
  await using carol = await newAccount(world.at("c.example"), "carol");
  await world.stop("a.example");
  const to = { here: [bob.deviceId], domain: "c.example", there: [carol.deviceId], hub: "a.example" };
  const failed = await submit(bob, await new TestGroup().commit(0), to).then(() => null, (error) => error);
  assert.equal(failed.code, "peerUnavailable");
  assert.ok(failed.details.retryAfterMs > 0);
  assert.equal((await bob.connection.call("fetch", {})).entries.length, 0);
  await bob.connection.call("enqueue", {
    messageId: randomBytes(16),
    parts: [{ payload: utf8("hi"), remote: [{ domain: "c.example", recipients: [carol.deviceId] }] }],
  });
  assert.deepEqual(textsOf(await receive(carol, 1)), ["hi"]);
  const nowhere = submit(bob, await new TestGroup().commit(0), { ...to, hub: "d.example" });
  await assert.rejects(nowhere, { code: "unknownDomain" });
});

import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { type AccountId, type DeviceId, randomId } from "../../../mod/base/ids.ts";
import type { RelayedRequest, RemoteRequest } from "../../../mod/delivery/queues.ts";
import { DeliveryWorld, LIMITS } from "../../support/delivery_world.ts";

const WINDOW = { after: 0, entriesMax: 0, bytesMax: 0 };
const DOMAIN = "peer.example";

function remote(fields: Partial<RemoteRequest> = {}): RemoteRequest {
  return { domain: DOMAIN, recipients: [[randomId<DeviceId>()]], body: randomBytes(50), ...fields };
}

function from(world: DeliveryWorld, to: DeviceId, fields: Partial<RelayedRequest> = {}): RelayedRequest {
  const sender = { senderAccount: randomId<AccountId>(), senderDevice: randomId<DeviceId>() };
  return { ...world.request([to]), ...sender, ...fields };
}

Deno.test("enqueue() accepts a part for other servers only, and counts its recipients", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  const request = { ...world.request([]), remote: [remote()] };
  const result = await world.delivery.enqueue(bob, request);
  assert.deepEqual([result.recipients, result.remote], [[], ["relaying"]]);
  const [entry] = await world.store.outboxAfter({ domain: DOMAIN, after: 0, entriesMax: 1, bytesMax: 1000 });
  assert.equal(entry?.recipients, 1);
  const many = [remote({ recipients: [new Array(LIMITS.recipientsMax + 1).fill(randomId<DeviceId>())] })];
  const refused = world.delivery.enqueue(bob, { ...world.request([]), remote: many });
  await assert.rejects(refused, { code: "malformedRequest" });
});

Deno.test("enqueue() compares the recipients on other servers, not how they are sent", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  const first = { ...world.request([bob.deviceId]), remote: [remote()] };
  await world.delivery.enqueue(bob, first);
  const again = { ...first, remote: [{ ...first.remote[0]!, body: randomBytes(60) }] };
  const replay = await world.delivery.enqueue(bob, again);
  assert.deepEqual([replay.replayed, replay.remote], [true, ["relaying"]]);
  for (const other of [[], [remote()], [{ ...first.remote[0]!, domain: "other.example" }]]) {
    await assert.rejects(world.delivery.enqueue(bob, { ...first, remote: other }), { code: "idConflict" });
  }
});

Deno.test("enqueue() keeps what has no body out of the outbox", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  const parts = [remote({ domain: "unknown.example", body: null }), remote()];
  const result = await world.delivery.enqueue(bob, { ...world.request([]), remote: parts });
  assert.deepEqual(result.remote, ["relaying"]);
  assert.deepEqual((await world.store.outboxes()).map((sums) => sums.domain), [DOMAIN]);
});

Deno.test("enqueueFrom() delivers with the domain, and once however much time is left", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  const request = from(world, bob.deviceId, { ttlMs: 50_000 });
  assert.equal((await world.delivery.enqueueFrom(DOMAIN, request)).replayed, false);
  assert.equal((await world.delivery.enqueueFrom(DOMAIN, { ...request, ttlMs: 40_000 })).replayed, true);
  const forged = { ...request, senderAccount: randomId<AccountId>() };
  await assert.rejects(world.delivery.enqueueFrom(DOMAIN, forged), { code: "idConflict" });
  const { entries: [entry, ...others] } = await world.delivery.fetch(bob, WINDOW);
  assert.deepEqual(others, []);
  assert.deepEqual([entry?.senderDomain, entry?.senderAccount], [DOMAIN, request.senderAccount]);
});

Deno.test("enqueueFrom() holds an origin to the limits for what is relayed", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  const request = from(world, bob.deviceId);
  await world.delivery.enqueueFrom(DOMAIN, request);
  world.clock.advance(LIMITS.enqueue.idempotencyMs + 1000);
  assert.equal((await world.delivery.enqueueFrom(DOMAIN, request)).replayed, true);
});

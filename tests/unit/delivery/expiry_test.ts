import assert from "node:assert/strict";
import { Blobs } from "../../../mod/delivery/blobs.ts";
import { Expiry } from "../../../mod/delivery/expiry.ts";
import { BlobFiles } from "../../../mod/store/blob_files.ts";
import { DeliveryWorld, LIMITS } from "../../support/delivery_world.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const TIMES = {
  idempotencyMs: DAY,
  relayedIdempotencyMs: 4 * DAY,
  guardIdleMs: DAY,
  sessionIdleMs: 30 * DAY,
  sessionMs: 365 * DAY,
  deviceIdleMs: 180 * DAY,
};
const WINDOW = { after: 0, entriesMax: 0, bytesMax: 0 };

async function expiryOf(world: DeliveryWorld): Promise<Expiry> {
  const files = await BlobFiles.open(world.dataDir);
  const limits = {
    blobBytesMax: 1000,
    blobQuotaBytes: 1000,
    ttlDefaultMs: DAY,
    ttlMaxMs: DAY,
    uploadsMax: 4,
  };
  const blobs = new Blobs({ store: world.store, files, clock: world.clock, limits });
  return new Expiry({ store: world.store, blobs, clock: world.clock, times: TIMES });
}

Deno.test("Expiry deletes messages past their time and counts them as dropped", async () => {
  await using world = await DeliveryWorld.open();
  using expiry = await expiryOf(world);
  const bob = await world.caller("bob");
  await expiry.start();
  await world.delivery.enqueue(bob, world.request([bob.deviceId]));
  await world.clock.advance(LIMITS.ttlDefaultMs);
  await expiry.round();
  const { entries, cursor } = await world.delivery.fetch(bob, WINDOW);
  assert.deepEqual([entries, cursor.droppedCount, cursor.droppedThrough], [[], 1, 1]);
  assert.equal((await world.store.counts()).queueEntries, 0);
});

Deno.test("Expiry runs by itself every minute", async () => {
  await using world = await DeliveryWorld.open();
  using expiry = await expiryOf(world);
  const bob = await world.caller("bob");
  await expiry.start();
  await world.delivery.enqueue(bob, world.request([bob.deviceId], { ttlMs: 1000 }));
  await world.clock.advance(60_000);
  while ((await world.store.counts()).queueEntries > 0) await world.clock.settle();
});

Deno.test("Expiry deletes nothing once the clock has jumped, until resumed", async () => {
  await using world = await DeliveryWorld.open();
  using expiry = await expiryOf(world);
  const bob = await world.caller("bob");
  await expiry.start();
  await world.delivery.enqueue(bob, world.request([bob.deviceId]));
  world.clock.jumpWall(2 * HOUR);
  assert.equal(await expiry.round(), 0);
  assert.match(expiry.pausedBecause!, /moved by 2 h/);
  expiry.resume();
  assert.equal(await expiry.round(), 1);
});

Deno.test("Expiry waits for the operator when the clock is a day off from the last run", async () => {
  await using world = await DeliveryWorld.open();
  {
    using first = await expiryOf(world);
    await first.start();
    assert.equal(first.pausedBecause, null);
  }
  world.clock.jumpWall(-2 * DAY);
  using second = await expiryOf(world);
  await second.start();
  assert.match(second.pausedBecause!, /differs by -48 h/);
});

Deno.test("Expiry that waits for the operator still waits after another start", async () => {
  await using world = await DeliveryWorld.open();
  {
    using first = await expiryOf(world);
    await first.start();
  }
  world.clock.jumpWall(400 * DAY);
  {
    using second = await expiryOf(world);
    await second.start();
    await second.writeMark();
    await second.round();
  }
  using third = await expiryOf(world);
  await third.start();
  assert.match(third.pausedBecause!, /differs by 9600 h/);
  third.resume();
  await third.round();
  using fourth = await expiryOf(world);
  await fourth.start();
  assert.equal(fourth.pausedBecause, null);
});

Deno.test("Expiry.writeMark() leaves no mark of a clock that jumped while the server ran", async () => {
  await using world = await DeliveryWorld.open();
  {
    using first = await expiryOf(world);
    await first.start();
    world.clock.jumpWall(400 * DAY);
    await first.writeMark();
    assert.match(first.pausedBecause!, /moved by 9600 h/);
  }
  using second = await expiryOf(world);
  await second.start();
  assert.match(second.pausedBecause!, /differs by 9600 h/);
});

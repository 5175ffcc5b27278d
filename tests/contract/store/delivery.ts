/** Contract of QueueStore: fetchAfter, ack, cursor, expireEntries, onEnqueued. */
import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { type DeviceId, randomId } from "../../../mod/base/ids.ts";
import type { FreshEntries } from "../../../mod/store/store.ts";
import { type ContractTest, DAY_MS, HOUR_MS, type Person, plain, WIDE_LIMITS, type World } from "./world.ts";

async function sendMany(world: World, people: { sender: Person; to: Person }, count: number): Promise<void> {
  const limits = { ...WIDE_LIMITS, senderShare: 1 };
  for (let sent = 0; sent < count; sent++) await world.send(people.sender, [people.to], { limits });
}

const NOTHING_FRESH: FreshEntries = {
  entries: [],
  cursor: { ackedThrough: 0, nextSeq: 1, droppedThrough: 0, droppedCount: 0 },
};

/** Registers the tests. */
export function deliveryContract(test: ContractTest): void {
  test("fetchAfter() gives entries above a number, in order, within entriesMax", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    await sendMany(world, people, 5);
    const fetch = async (after: number, entriesMax: number) => {
      const request = { deviceId: people.to.deviceId, after, entriesMax, bytesMax: 1e6, now: world.now };
      const result = await world.store.fetchAfter(request);
      return [result?.entries.map((entry) => entry.seq), result?.more];
    };
    assert.deepEqual(await fetch(0, 10), [[1, 2, 3, 4, 5], false]);
    assert.deepEqual(await fetch(0, 5), [[1, 2, 3, 4, 5], false]);
    assert.deepEqual(await fetch(0, 2), [[1, 2], true]);
    assert.deepEqual(await fetch(2, 2), [[3, 4], true]);
    assert.deepEqual(await fetch(4, 2), [[5], false]);
    assert.deepEqual(await fetch(5, 2), [[], false]);
    assert.deepEqual(await fetch(99, 2), [[], false]);
    assert.deepEqual(await fetch(0, 10), [[1, 2, 3, 4, 5], false]);
  });

  test("fetchAfter() gives as many as fit into bytesMax, but at least one", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    await sendMany(world, people, 4);
    const fetch = async (bytesMax: number) => {
      const request = { deviceId: people.to.deviceId, after: 0, entriesMax: 10, bytesMax, now: world.now };
      const result = await world.store.fetchAfter(request);
      return [result?.entries.length, result?.more];
    };
    assert.deepEqual(await fetch(1), [1, true]);
    assert.deepEqual(await fetch(299), [2, true]);
    assert.deepEqual(await fetch(300), [3, true]);
    assert.deepEqual(await fetch(400), [4, false]);
  });

  test("fetchAfter() tells where the queue stands, and null for no device", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    await sendMany(world, people, 3);
    await world.store.ack(people.to.deviceId, 1);
    const request = { deviceId: people.to.deviceId, after: 0, entriesMax: 1, bytesMax: 1e6, now: world.now };
    const result = await world.store.fetchAfter(request);
    assert.deepEqual(result?.cursor, { ackedThrough: 1, nextSeq: 4, droppedThrough: 0, droppedCount: 0 });
    assert.deepEqual(result?.entries.map((entry) => entry.seq), [2]);
    assert.equal(await world.store.fetchAfter({ ...request, deviceId: randomId<DeviceId>() }), null);
    assert.equal(await world.store.cursor(randomId<DeviceId>()), null);
  });

  test("ack() deletes through a number, for this device only, and is idempotent", async (world) => {
    const [sender, first, second] = [await world.person(), await world.person(), await world.person()];
    for (let sent = 0; sent < 3; sent++) await world.send(sender, [first, second]);
    const cursor = { ackedThrough: 2, nextSeq: 4, droppedThrough: 0, droppedCount: 0 };
    assert.deepEqual(await world.store.ack(first.deviceId, 2), { status: "acked", deleted: 2, cursor });
    assert.deepEqual(await world.store.ack(first.deviceId, 2), { status: "acked", deleted: 0, cursor });
    assert.deepEqual(await world.store.ack(first.deviceId, 1), { status: "acked", deleted: 0, cursor });
    assert.deepEqual(await world.seqs(first), [3]);
    assert.deepEqual(await world.seqs(second), [1, 2, 3]);
  });

  test("ack() at or beyond the next number is an error, and the last number is not", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    const { deviceId } = people.to;
    assert.deepEqual(await world.store.ack(deviceId, 1), { status: "beyondEnd" });
    assert.equal((await world.store.ack(deviceId, 0)).status, "acked");
    await sendMany(world, people, 2);
    assert.deepEqual(await world.store.ack(deviceId, 3), { status: "beyondEnd" });
    assert.deepEqual(await world.seqs(people.to), [1, 2]);
    assert.equal((await world.store.ack(deviceId, 2)).status, "acked");
    assert.deepEqual(await world.store.ack(randomId<DeviceId>(), 0), { status: "noDevice" });
  });

  test("numbers go on after everything was acknowledged", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    await sendMany(world, people, 3);
    await world.store.ack(people.to.deviceId, 3);
    await world.reopen();
    await sendMany(world, people, 1);
    assert.deepEqual(await world.seqs(people.to), [4]);
  });

  test("fetchAfter() leaves expired entries out before they are deleted", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    await world.send(people.sender, [people.to], { expiresAt: world.now + HOUR_MS });
    await world.send(people.sender, [people.to]);
    world.now += 2 * HOUR_MS;
    assert.deepEqual(await world.seqs(people.to), [2]);
  });

  test("expireEntries() deletes expired entries, counts them as dropped and leaves a hole", async (world) => {
    const [sender, first, second] = [await world.person(), await world.person(), await world.person()];
    await world.send(sender, [first]);
    await world.send(sender, [first, second], { expiresAt: world.now + HOUR_MS });
    await world.send(sender, [first]);
    assert.equal(await world.store.expireEntries(world.now, 100), 0);
    world.now += 2 * HOUR_MS;
    assert.equal(await world.store.expireEntries(world.now, 100), 2);
    assert.equal(await world.store.expireEntries(world.now, 100), 0);
    assert.deepEqual(await world.seqs(first), [1, 3]);
    assert.deepEqual(await world.cursor(first), {
      ...{ ackedThrough: 0, nextSeq: 4, droppedThrough: 2, droppedCount: 1 },
    });
    assert.deepEqual(await world.cursor(second), {
      ...{ ackedThrough: 0, nextSeq: 2, droppedThrough: 1, droppedCount: 1 },
    });
    assert.equal((await world.store.counts()).queueEntries, 2);
  });

  test("expireEntries() stops at the limit, in the middle of a message too", async (world) => {
    const sender = await world.person();
    const people = await Promise.all(Array.from({ length: 5 }, () => world.person()));
    const expiresAt = world.now + HOUR_MS;
    await world.send(sender, people, { expiresAt });
    await world.send(sender, people.slice(0, 2), { expiresAt });
    world.now += 2 * HOUR_MS;
    const steps = [];
    for (let round = 0; round < 4; round++) steps.push(await world.store.expireEntries(world.now, 3));
    assert.deepEqual(steps, [3, 3, 1, 0]);
    assert.deepEqual(
      await world.store.counts().then(({ queueEntries, queueBytes }) => [queueEntries, queueBytes]),
      [
        ...[0, 0],
      ],
    );
  });

  test("expireEntries() passes over what was acknowledged", async (world) => {
    const [sender, first, second] = [await world.person(), await world.person(), await world.person()];
    await world.send(sender, [first, second], { expiresAt: world.now + HOUR_MS });
    await world.store.ack(first.deviceId, 1);
    world.now += DAY_MS;
    assert.equal(await world.store.expireEntries(world.now, 10), 1);
    assert.equal((await world.cursor(first)).droppedCount, 0);
    assert.equal((await world.cursor(second)).droppedCount, 1);
  });

  test("onEnqueued() names the devices after they can fetch, until it is ended", async (world) => {
    const [sender, first, second] = [await world.person(), await world.person(), await world.person()];
    const told: DeviceId[] = [];
    const ready = Promise.withResolvers<number>();
    const end = world.store.onEnqueued((devices) => {
      told.push(...devices);
      if (devices.includes(first.deviceId)) {
        world.entries(first).then((entries) => ready.resolve(entries.length), ready.reject);
      }
    });
    await world.send(sender, [first, second]);
    assert.equal(await ready.promise, 1);
    assert.deepEqual(new Set(told), new Set([first.deviceId, second.deviceId]));
    end();
    await world.send(sender, [first]);
    await world.store.cursor(first.deviceId);
    assert.equal(told.length, 2);
  });

  test("onEnqueued() gives fresh entries as they can be fetched, all of them or none", async (world) => {
    const [sender, other, to] = [await world.person(), await world.person(), await world.person()];
    const told: FreshEntries[] = [];
    world.store.onEnqueued((_devices, fresh) => told.push(fresh(to.deviceId) ?? NOTHING_FRESH));
    const twoParts = world.message(other, [to]);
    await Promise.all([
      world.send(sender, [to]),
      world.store.enqueue({
        ...twoParts,
        parts: [...twoParts.parts, { payload: randomBytes(7), recipients: [to.deviceId] }],
      }),
      world.send(sender, [to, other]),
      // Not every recipient gets it: what came with it has to be fetched.
      world.send(other, [to], {
        parts: [{ payload: randomBytes(3), recipients: [to.deviceId, randomId<DeviceId>()] }],
      }),
    ]);
    await world.send(other, [to]);
    await world.store.cursor(to.deviceId);
    const stored = await world.entries(to);
    assert.equal(stored.length, 6);
    for (const { entries, cursor } of told) {
      for (const entry of entries) assert.deepEqual(plain(entry), plain(stored[entry.seq - 1]!));
      const last = entries.at(-1);
      if (last) {
        assert.deepEqual(cursor, {
          ackedThrough: 0,
          nextSeq: last.seq + 1,
          droppedThrough: 0,
          droppedCount: 0,
        });
      }
    }
  });

  test("onEnqueued() tells of notices and not of refused or repeated messages", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const message = world.message(sender, [person]);
    await world.store.enqueue(message);
    const told: DeviceId[] = [];
    world.store.onEnqueued((devices) => told.push(...devices));
    await world.store.enqueue(message);
    await world.store.enqueue({ ...message, requestSha256: randomBytes(32) });
    await world.send(sender, [person], { limits: { ...WIDE_LIMITS, queueDepthMax: 1 } });
    await world.store.ack(person.deviceId, 1);
    assert.deepEqual(told, []);
    const second = await world.device(person);
    await world.store.cursor(second.deviceId);
    assert.deepEqual(told, [person.deviceId]);
  });
}

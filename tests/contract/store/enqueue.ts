/** Contract of QueueStore.enqueue: statuses, bounds, quotas, order. */
import assert from "node:assert/strict";
import { equal, randomBytes } from "../../../mod/base/bytes.ts";
import { type DeviceId, randomId } from "../../../mod/base/ids.ts";
import { type ContractTest, DAY_MS, HOUR_MS, plain, WIDE_LIMITS } from "./world.ts";

/** Registers the tests. */
export function enqueueContract(test: ContractTest): void {
  test("enqueue() gives each recipient an entry with the sender, the payload and the times", async (world) => {
    const [sender, first, second] = [await world.person(), await world.person(), await world.person()];
    const message = world.message(sender, [first, second]);
    assert.deepEqual(await world.store.enqueue(message), {
      ...{ status: "accepted", replayed: false, recipients: ["ok", "ok"], remote: [] },
      ...{ acceptedAt: message.now, expiresAt: message.expiresAt },
    });
    for (const person of [first, second]) {
      assert.deepEqual(plain(await world.entries(person)), [{
        ...{ seq: 1, kind: "message", entryId: message.entryId, payload: message.parts[0]!.payload },
        ...{ senderAccount: sender.accountId, senderDevice: sender.deviceId, senderDomain: null },
        ...{ acceptedAt: message.now, expiresAt: message.expiresAt },
      }]);
    }
    assert.deepEqual(await world.entries(sender), []);
  });

  test("enqueue() gives statuses in the order of parts and recipients", async (world) => {
    const [sender, first, second] = [await world.person(), await world.person(), await world.person()];
    await world.store.block(second.accountId, sender.accountId, 10);
    const parts = [
      { payload: randomBytes(10), recipients: [randomId<DeviceId>(), first.deviceId] },
      { payload: randomBytes(20), recipients: [second.deviceId, first.deviceId, randomId<DeviceId>()] },
    ];
    const result = await world.send(sender, [], { parts });
    assert.deepEqual(result.recipients, ["unknownDevice", "ok", "blocked", "ok", "unknownDevice"]);
    const payloads = plain(await world.entries(first)).map((entry) => entry.payload);
    assert.deepEqual(payloads, parts.map((part) => part.payload));
    assert.equal((await world.store.counts()).queueEntries, 2);
  });

  test("enqueue() gives a device named twice one entry for each part", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const recipients = [person.deviceId, person.deviceId];
    const parts = [{ payload: randomBytes(10), recipients }, { payload: randomBytes(20), recipients }];
    const result = await world.send(sender, [], { parts });
    assert.deepEqual(result.recipients, ["ok", "ok", "ok", "ok"]);
    assert.deepEqual((await world.entries(person)).map((entry) => entry.payload.length), [10, 20]);
  });

  test("enqueue() accepts empty payloads and a message without recipients", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    await world.send(sender, [], { parts: [{ payload: new Uint8Array(), recipients: [person.deviceId] }] });
    assert.deepEqual(plain(await world.entries(person)).map((entry) => entry.payload), [new Uint8Array()]);
    assert.deepEqual((await world.send(sender, [])).recipients, []);
    assert.equal((await world.store.counts()).queueEntries, 1);
  });

  test("enqueue() stores payloads of megabytes, seen from a larger buffer, and leaves the buffer", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const buffer = new Uint8Array(3_000_000);
    for (let at = 0; at < buffer.length; at += 65_536) {
      crypto.getRandomValues(buffer.subarray(at, at + 65_536));
    }
    const payload = buffer.subarray(1000, 2_001_000);
    const expected = payload.slice();
    await world.send(sender, [], { parts: [{ payload, recipients: [person.deviceId] }] });
    assert.ok(equal(payload, expected));
    const [entry] = await world.entries(person);
    assert.ok(equal(entry!.payload, expected));
  });

  test("enqueue() numbers consecutively, whoever calls at once", async (world) => {
    const person = await world.person();
    const senders = await Promise.all(Array.from({ length: 5 }, () => world.person()));
    await Promise.all(Array.from({ length: 200 }, (_, index) => world.send(senders[index % 5]!, [person])));
    assert.deepEqual(await world.seqs(person), Array.from({ length: 200 }, (_, index) => index + 1));
    assert.equal((await world.cursor(person)).nextSeq, 201);
  });

  test("enqueue() keeps the order of calls", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const messages = Array.from({ length: 100 }, () => world.message(sender, [person]));
    await Promise.all(messages.map((message) => world.store.enqueue(message)));
    const received = (await world.entries(person)).map((entry) => entry.entryId);
    assert.deepEqual(received, messages.map((message) => message.entryId));
  });

  test("enqueue() refuses a queue beyond its depth and marks it, and the others get theirs", async (world) => {
    const [sender, full, empty] = [await world.person(), await world.person(), await world.person()];
    const limits = { ...WIDE_LIMITS, queueDepthMax: 2, senderShare: 1 };
    await world.send(sender, [full], { limits });
    await world.send(sender, [full], { limits });
    const result = await world.send(sender, [full, empty], { limits });
    assert.deepEqual(result.recipients, ["queueFull", "ok"]);
    assert.deepEqual(await world.seqs(full), [1, 2]);
    assert.deepEqual(await world.cursor(full), {
      ...{ ackedThrough: 0, nextSeq: 3, droppedThrough: 2, droppedCount: 1 },
    });
    await world.store.ack(full.deviceId, 1);
    assert.deepEqual((await world.send(sender, [full], { limits })).recipients, ["ok"]);
    assert.deepEqual(await world.seqs(full), [2, 3]);
  });

  test("enqueue() refuses a queue beyond its bytes", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const limits = { ...WIDE_LIMITS, queueBytesMax: 250, senderShare: 1 };
    const statuses = [];
    for (let round = 0; round < 3; round++) {
      statuses.push(...(await world.send(sender, [person], { limits })).recipients);
    }
    assert.deepEqual(statuses, ["ok", "ok", "queueFull"]);
    await world.store.ack(person.deviceId, 2);
    assert.deepEqual((await world.send(sender, [person], { limits })).recipients, ["ok"]);
  });

  test("enqueue() holds a sender to a share of the depth; other senders and own devices have room", async (world) => {
    const person = await world.person();
    const own = await world.device(person);
    await world.store.ack(person.deviceId, 1);
    const [greedy, modest] = [await world.person(), await world.person()];
    const greedyToo = await world.device(greedy);
    const limits = { ...WIDE_LIMITS, queueDepthMax: 8 };
    const status = async (sender: typeof person) =>
      (await world.send(sender, [person], { limits })).recipients[0];
    assert.deepEqual([await status(greedy), await status(greedyToo), await status(greedy)], [
      ...["ok", "ok", "queueFull"],
    ]);
    assert.equal(await status(modest), "ok");
    for (let round = 0; round < 5; round++) assert.equal(await status(own), "ok");
    assert.equal(await status(own), "queueFull");
    await world.store.ack(person.deviceId, 3);
    assert.equal(await status(greedy), "ok");
  });

  test("enqueue() holds a sender to a share of the bytes", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const limits = { ...WIDE_LIMITS, queueBytesMax: 1000 };
    const statuses = [];
    for (let round = 0; round < 3; round++) {
      statuses.push(...(await world.send(sender, [person], { limits })).recipients);
    }
    assert.deepEqual(statuses, ["ok", "ok", "queueFull"]);
  });

  test("notices pass over full queues and are counted", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const limits = { ...WIDE_LIMITS, queueDepthMax: 1, senderShare: 1 };
    await world.send(sender, [person], { limits });
    await world.device(person);
    assert.deepEqual((await world.entries(person)).map((entry) => entry.kind), ["message", "notice"]);
    assert.deepEqual((await world.send(sender, [person], { limits })).recipients, ["queueFull"]);
    assert.equal((await world.store.counts()).queueEntries, 2);
  });

  test("enqueue() refuses beyond the day's bytes times recipients, until the next UTC day", async (world) => {
    const [sender, first, second] = [await world.person(), await world.person(), await world.person()];
    const limits = { ...WIDE_LIMITS, senderBytesPerDay: 450 };
    const refused = { status: "quotaExceeded", retryAfterMs: 12 * HOUR_MS };
    await world.send(sender, [first, second], { limits });
    await world.send(sender, [first, second], { limits });
    const message = world.message(sender, [first], { limits });
    assert.deepEqual(await world.store.enqueue(message), refused);
    assert.deepEqual(await world.seqs(first), [1, 2]);
    assert.equal((await world.send(first, [sender], { limits })).status, "accepted");
    const small = [{ payload: randomBytes(50), recipients: [first.deviceId] }];
    assert.equal((await world.send(sender, [], { limits, parts: small })).status, "accepted");
    world.now += 12 * HOUR_MS;
    assert.equal((await world.store.enqueue({ ...message, now: world.now })).status, "accepted");
  });

  test("the quota is one for all devices of an account", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const other = await world.device(sender);
    const limits = { ...WIDE_LIMITS, senderBytesPerDay: 150 };
    await world.send(sender, [person], { limits });
    const message = world.message(other, [person], { limits });
    assert.equal((await world.store.enqueue(message)).status, "quotaExceeded");
  });

  test("enqueue() from a deleted account or a revoked device puts nothing into queues", async (world) => {
    const [gone, revoked, person] = [await world.person(), await world.person(), await world.person()];
    await world.store.deleteAccount(gone.accountId, world.now);
    await world.store.revokeDevice(revoked.accountId, revoked.deviceId, world.notice(), world.now);
    await world.store.enqueue(world.message(gone, [person])).catch(() => {});
    await world.store.enqueue(world.message(revoked, [person])).catch(() => {});
    assert.deepEqual(await world.entries(person), []);
  });

  test("a payload outlives all but its last entry", async (world) => {
    const [sender, first, second] = [await world.person(), await world.person(), await world.person()];
    await world.send(sender, [first, second]);
    await world.store.ack(first.deviceId, 1);
    assert.equal((await world.entries(second))[0]?.payload.length, 100);
    await world.store.revokeDevice(first.accountId, first.deviceId, world.notice(), world.now + DAY_MS);
    assert.equal((await world.entries(second))[0]?.payload.length, 100);
    assert.equal((await world.store.counts()).queueBytes, 100);
  });
}

/** Contract of AdminStore: the fullest queues, and emptying one. */
import assert from "node:assert/strict";
import { randomId } from "../../../mod/base/ids.ts";
import type { DeviceId } from "../../../mod/base/ids.ts";
import { HOUR_MS } from "../store/world.ts";
import type { AdminTest } from "./backend.ts";

/** Registers the tests. */
export function queuesAdminContract(test: AdminTest): void {
  test("topQueues() gives the fullest first, none that is empty", async (world) => {
    const people = [await world.person(), await world.person(), await world.person(), await world.person()];
    const [sender, one, two, three] = [people[0]!, people[1]!, people[2]!, people[3]!];
    await world.send(sender, [one, two]);
    world.now += HOUR_MS;
    await world.send(sender, [two, three]);
    await world.send(sender, [two]);
    await world.store.ack(three.deviceId, 1);
    await world.store.ack(two.deviceId, 1);
    await world.send(sender, [two]);
    const top = await world.store.topQueues(10);
    assert.deepEqual(
      top.map(({ userName, entries, bytes, oldestAcceptedAt }) => {
        return { userName, entries, bytes, oldestAcceptedAt };
      }),
      [
        { userName: two.userName, entries: 3, bytes: 300, oldestAcceptedAt: world.now },
        { userName: one.userName, entries: 1, bytes: 100, oldestAcceptedAt: world.now - HOUR_MS },
      ],
    );
    assert.equal(top[0]!.deviceId, two.deviceId);
    assert.equal(top[0]!.accountId, two.accountId);
    assert.equal((await world.store.topQueues(1)).length, 1);
  });

  test("purgeQueue() deletes everything that waits, says so in the cursor, and leaves others theirs", async (world) => {
    const [sender, one, two] = [await world.person(), await world.person(), await world.person()];
    for (let i = 0; i < 3; i++) await world.send(sender, [one, two]);
    await world.store.ack(one.deviceId, 1);
    assert.equal(await world.store.purgeQueue(one.deviceId), 2);
    const cursor = { ackedThrough: 1, nextSeq: 4, droppedThrough: 3, droppedCount: 2 };
    assert.deepEqual(await world.cursor(one), cursor);
    assert.equal(await world.store.purgeQueue(one.deviceId), 0);
    assert.deepEqual(await world.cursor(one), cursor);
    await world.send(sender, [one]);
    await world.reopen();
    assert.deepEqual(await world.seqs(one), [4]);
    assert.deepEqual(await world.seqs(two), [1, 2, 3]);
    assert.equal((await world.store.counts()).queueEntries, 4);
    assert.deepEqual(await world.store.checkIntegrity(() => {}), []);
  });

  test("purgeQueue() of an unknown or revoked device is null", async (world) => {
    const person = await world.person();
    await world.store.revokeDevice(person.accountId, person.deviceId, world.notice(), world.now);
    assert.equal(await world.store.purgeQueue(person.deviceId), null);
    assert.equal(await world.store.purgeQueue(randomId<DeviceId>()), null);
  });
}

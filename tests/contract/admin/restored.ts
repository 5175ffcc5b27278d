/** Contract of AdminStore.markRestored: nothing that was consumed before comes back. */
import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import type { GroupId } from "../../../mod/base/ids.ts";
import { plain } from "../store/world.ts";
import type { AdminTest } from "./backend.ts";

/** Registers the tests. */
export function restoredContract(test: AdminTest): void {
  test("markRestored() makes a new incarnation, which stays", async (world) => {
    const { incarnation: before, realmId } = world.store;
    const after = await world.store.markRestored();
    assert.equal(after.length, 16);
    assert.notDeepEqual(plain(after), plain(before));
    assert.deepEqual(plain(world.store.incarnation), plain(after));
    await world.reopen();
    assert.deepEqual(plain(world.store.incarnation), plain(after));
    assert.equal(world.store.realmId, realmId);
  });

  test("markRestored() drops KeyPackages and sessions; a KeyPackage cannot be uploaded again", async (world) => {
    const person = await world.signed(await world.person());
    const packages = [...world.keyPackages(2), ...world.keyPackages(1, { lastResort: true })];
    await world.upload(person, packages);
    await world.store.markRestored();
    assert.deepEqual(await world.claim(person), []);
    assert.equal((await world.store.counts()).keyPackages, 0);
    assert.equal(await world.store.findSession(person.sessionId), null);
    const again = await world.upload(person, packages);
    assert.deepEqual(again.status === "stored" && again.stored, [false, false, false]);
    const fresh = await world.upload(person, world.keyPackages(1));
    assert.deepEqual(fresh.status === "stored" && fresh.stored, [true]);
    assert.equal((await world.claim(person)).length, 1);
  });

  test("markRestored() forgets guards and message ids, and keeps accounts, devices and queues", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const groupId = randomBytes(16).toHex() as GroupId;
    const tokens = { tokenSha256: randomBytes(32), nextTokenSha256: randomBytes(32) };
    const guarded = world.message(sender, [person], {
      ...{ guard: { groupId, epoch: 3, ...tokens }, commitsTo: [groupId] },
    });
    assert.equal((await world.store.enqueue(guarded)).status, "accepted");
    await world.store.markRestored();
    await world.reopen();
    const again = await world.store.enqueue(guarded);
    assert.equal(again.status === "accepted" && again.replayed, false);
    assert.deepEqual(await world.seqs(person), [1, 2]);
    assert.equal((await world.store.listDevices(person.accountId)).length, 1);
    assert.deepEqual(await world.store.checkIntegrity(() => {}), []);
  });
}

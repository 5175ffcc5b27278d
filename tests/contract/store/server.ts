/** Contract of ServerStore, and of opening and closing. */
import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { QpqError } from "../../../mod/base/errors.ts";
import { type ContractTest, plain } from "./world.ts";

/** Registers the tests. */
export function serverContract(test: ContractTest): void {
  test("incarnation and realmId are made with the store and stay", async (world) => {
    const { incarnation, realmId } = world.store;
    assert.equal(incarnation.length, 16);
    assert.ok(realmId.length > 0);
    await world.reopen();
    assert.deepEqual(plain(world.store.incarnation), plain(incarnation));
    assert.equal(world.store.realmId, realmId);
  });

  test("initOpaqueSetup() adds the first setup only", async (world) => {
    const newSetup = () => ({ suiteId: 1, secret: randomBytes(128), createdAt: world.now });
    assert.deepEqual(await world.store.opaqueSetups(), []);
    const setups = [newSetup(), newSetup()];
    const results = await Promise.all(setups.map((setup) => world.store.initOpaqueSetup(setup)));
    assert.deepEqual(results.map((result) => result.added), [true, false]);
    const [stored, ...others] = plain(await world.store.opaqueSetups());
    assert.equal(others.length, 0);
    assert.deepEqual(stored, { ...setups[0], setupId: stored!.setupId, retiredAt: null });
    assert.ok(Number.isSafeInteger(stored!.setupId) && stored!.setupId > 0);
    for (const result of results) assert.deepEqual(plain(result.setups), [stored]);
    await world.reopen();
    assert.deepEqual(plain(await world.store.opaqueSetups()), [stored]);
  });

  test("writeMark() returns the former mark, also after reopening", async (world) => {
    assert.equal(await world.store.writeMark(1000), null);
    assert.equal(await world.store.writeMark(2000), 1000);
    await world.reopen();
    assert.equal(await world.store.writeMark(3000), 2000);
  });

  test("diskBytes() tells of the store's files", async (world) => {
    await world.person();
    assert.ok(await world.store.diskBytes() > 100);
  });

  test("close() finishes what was accepted, and refuses what comes after", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const sent = Array.from({ length: 50 }, () => world.send(sender, [person]));
    const closed = world.store.close();
    await assert.rejects(
      world.store.cursor(person.deviceId),
      (error) => error instanceof QpqError && error.code === "storeUnavailable",
    );
    assert.equal((await Promise.all(sent)).length, 50);
    await closed;
    await world.store.close();
    await world.reopen();
    assert.equal((await world.seqs(person)).length, 50);
  });

  test("everything is there after closing and opening again", async (world) => {
    const person = await world.signed(await world.person());
    const sender = await world.person();
    const message = world.message(sender, [person]);
    await world.store.enqueue(message);
    await world.upload(person, world.keyPackages(2));
    await world.store.block(person.accountId, sender.accountId, 10);
    const look = async () =>
      plain([
        await world.store.findAccountByName(person.userName),
        await world.store.findSession(person.sessionId),
        await world.store.listDevices(person.accountId),
        await world.store.countKeyPackages(person.deviceId, world.now),
        await world.store.listBlocks(person.accountId),
        await world.entries(person),
        await world.cursor(person),
        await world.store.counts(),
      ]);
    const before = await look();
    await world.reopen();
    assert.deepEqual(await look(), before);
    const again = await world.store.enqueue(message);
    assert.equal(again.status === "accepted" && again.replayed, true);
  });
}

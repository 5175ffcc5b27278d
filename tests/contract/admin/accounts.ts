/** Contract of AdminStore: lists of accounts and blobs, OPAQUE setups. */
import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import type { BlobHash } from "../../../mod/base/ids.ts";
import { DAY_MS, HOUR_MS, newCredential, plain, type World } from "../store/world.ts";
import type { AdminTest } from "./backend.ts";

const newSetup = (world: World) => ({ suiteId: 1, secret: randomBytes(128), createdAt: world.now });

/** Two setups; two accounts under the first, one under the second. */
async function twoSetups(world: World) {
  await world.store.initOpaqueSetup(newSetup(world));
  const people = [await world.person(), await world.person()];
  const second = await world.store.addOpaqueSetup(newSetup(world));
  people.push(await world.person({ credential: newCredential({ setupId: second.setupId }) }));
  return { people, second };
}

const retire = (world: World, setupId: number, force: boolean) => {
  return world.store.retireOpaqueSetup({ setupId, force, namesMax: 1, now: world.now });
};

/** Registers the tests. */
export function accountsAdminContract(test: AdminTest): void {
  test("listAccounts() gives pages in the order of names, with what the accounts have", async (world) => {
    const [bob, alice, gone] = [
      await world.person({ userName: "bob" }),
      await world.person({ userName: "alice" }),
      await world.person({ userName: "alf" }),
    ];
    world.now += HOUR_MS;
    const laptop = await world.device(alice);
    await world.send(bob, [alice, laptop]);
    await world.store.setAccountEnabled(bob.accountId, false);
    await world.store.deleteAccount(gone.accountId, world.now);
    const first = await world.store.listAccounts({ afterName: "", limit: 1 });
    assert.deepEqual(first, [{
      accountId: alice.accountId,
      userName: "alice",
      createdAt: world.now - HOUR_MS,
      enabled: true,
      devices: 2,
      queueEntries: 3,
      lastSeenAt: world.now,
      setupId: 1,
    }]);
    const [second, ...more] = await world.store.listAccounts({ afterName: "alice", limit: 10 });
    assert.deepEqual(more, []);
    assert.equal(second?.userName, "bob");
    assert.equal(second?.enabled, false);
    await world.store.revokeDevice(bob.accountId, bob.deviceId, world.notice(), world.now);
    const [revoked] = await world.store.listAccounts({ afterName: "alice", limit: 10 });
    assert.deepEqual([revoked?.devices, revoked?.lastSeenAt], [0, null]);
  });

  test("addOpaqueSetup() gives the next id and keeps the former ones", async (world) => {
    const first = (await world.store.initOpaqueSetup(newSetup(world))).setups[0]!;
    const fields = newSetup(world);
    const second = await world.store.addOpaqueSetup(fields);
    assert.deepEqual(plain(second), { ...fields, setupId: first.setupId + 1, retiredAt: null });
    await world.reopen();
    assert.deepEqual(plain(await world.store.opaqueSetups()), plain([first, second]));
  });

  test("accountsBySetup() counts through registration, migration, reset and deletion", async (world) => {
    assert.deepEqual(await world.store.accountsBySetup(), []);
    const { people, second } = await twoSetups(world);
    const { setupId } = second;
    const counts = async () => (await world.store.accountsBySetup()).map(({ accounts }) => accounts);
    assert.deepEqual(await world.store.accountsBySetup(), [{ setupId: 1, accounts: 2 }, {
      setupId,
      accounts: 1,
    }]);
    const change = { credential: newCredential({ setupId }), keepSession: null };
    await world.store.changeCredential({ accountId: people[0]!.accountId, ...change });
    assert.deepEqual(await counts(), [1, 2]);
    await world.store.changeCredential({ accountId: people[0]!.accountId, ...change });
    assert.deepEqual(await counts(), [1, 2]);
    const invitationSha256 = randomBytes(32);
    const forAccount = people[1]!.accountId;
    const terms = { createdBy: null, forAccount, expiresAt: world.now + DAY_MS, maxOpen: 1, now: world.now };
    assert.equal(await world.store.createInvitation({ sha256: invitationSha256, ...terms }), true);
    const { userName } = people[1]!;
    await world.store.createAccount(
      world.newAccount({ userName, invitationSha256, credential: change.credential }),
    );
    assert.deepEqual(await counts(), [0, 3]);
    await world.store.deleteAccount(people[2]!.accountId, world.now);
    assert.deepEqual(await counts(), [0, 2]);
    await world.reopen();
    assert.deepEqual(await counts(), [0, 2]);
    assert.deepEqual(await world.store.checkIntegrity(() => {}), []);
  });

  test("retireOpaqueSetup() refuses the newest and unknown ones, and those in use unless forced", async (world) => {
    const { people, second } = await twoSetups(world);
    assert.deepEqual(await retire(world, second.setupId, true), { status: "newest" });
    assert.deepEqual(await retire(world, 77, true), { status: "unknown" });
    const names = [people[0]!.userName];
    assert.deepEqual(await retire(world, 1, false), { status: "inUse", accounts: 2, names });
    assert.equal((await world.store.opaqueSetups())[0]!.retiredAt, null);
    assert.deepEqual(await retire(world, 1, true), { status: "retired", lockedOut: 2, names });
    assert.equal((await world.store.opaqueSetups())[0]!.retiredAt, world.now);
    world.now += DAY_MS;
    await retire(world, 1, true);
    await world.reopen();
    assert.equal((await world.store.opaqueSetups())[0]!.retiredAt, world.now - DAY_MS);
  });

  test("retireOpaqueSetup() retires a setup that no account needs", async (world) => {
    const { people, second } = await twoSetups(world);
    const credential = newCredential({ setupId: second.setupId });
    for (const { accountId } of people) {
      await world.store.changeCredential({ accountId, credential, keepSession: null });
    }
    assert.deepEqual(await retire(world, 1, false), { status: "retired", lockedOut: 0, names: [] });
  });

  test("listBlobs() gives pages of the blobs that have a reference, each once", async (world) => {
    const [alice, bob] = [await world.person(), await world.person()];
    const hashes = ["cc", "0a", "7f"].map((byte) => byte.repeat(32) as BlobHash);
    for (const [index, hash] of hashes.entries()) {
      for (const { accountId: owner } of [alice, bob]) {
        await world.store.putBlobReference({
          ...{ hash, owner, bytes: 10 + index, expiresAt: world.now + DAY_MS, quotaBytes: 1000 },
          ...{ dryRun: false, now: world.now },
        });
      }
    }
    for (const { accountId } of [alice, bob]) await world.store.deleteBlobReference(hashes[2]!, accountId);
    await world.store.deleteBlobReference(hashes[0]!, bob.accountId);
    const first = await world.store.listBlobs({ after: null, limit: 1 });
    assert.deepEqual(first, [{ hash: hashes[1], bytes: 11 }]);
    assert.deepEqual(await world.store.listBlobs({ after: hashes[1]!, limit: 9 }), [{
      hash: hashes[0],
      bytes: 10,
    }]);
  });
}

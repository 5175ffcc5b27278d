/** Contract of KeyPackageStore. */
import assert from "node:assert/strict";
import { randomId } from "../../../mod/base/ids.ts";
import { type ContractTest, DAY_MS, plain } from "./world.ts";

/** Registers the tests. */
export function keyPackageContract(test: ContractTest): void {
  test("uploadKeyPackages() counts by suite, the last resort apart", async (world) => {
    const person = await world.person();
    const lastResort = world.keyPackages(1, { lastResort: true, notAfter: world.now + 90 * DAY_MS });
    const result = await world.upload(person, [
      ...world.keyPackages(3),
      ...lastResort,
      ...world.keyPackages(2, { suite: 7 }),
    ]);
    const counts = [
      { suite: 1, count: 3, lastResortNotAfter: world.now + 90 * DAY_MS },
      { suite: 7, count: 2, lastResortNotAfter: null },
    ];
    assert.deepEqual(result, { status: "stored", stored: Array(6).fill(true), counts });
    assert.deepEqual(await world.store.countKeyPackages(person.deviceId, world.now), counts);
    assert.deepEqual(await world.store.countKeyPackages(randomId(), world.now), []);
  });

  test("uploadKeyPackages() stores a ref once, even when it was claimed or named twice", async (world) => {
    const person = await world.signed(await world.person());
    const [keyPackage] = world.keyPackages(1);
    const first = await world.upload(person, [keyPackage!, keyPackage!]);
    assert.deepEqual(first.status === "stored" && first.stored, [true, false]);
    assert.equal((await world.claim(person)).length, 1);
    const other = await world.person();
    const second = await world.upload(other, [keyPackage!, ...world.keyPackages(1)]);
    assert.deepEqual(second.status === "stored" && second.stored, [false, true]);
    assert.deepEqual(await world.claim(person), []);
  });

  test("uploadKeyPackages() is all or nothing at the maximum of a suite", async (world) => {
    const person = await world.person();
    await world.upload(person, world.keyPackages(3), 4);
    const tooMany = [...world.keyPackages(1, { suite: 2 }), ...world.keyPackages(2)];
    assert.deepEqual(await world.upload(person, tooMany, 4), { status: "full" });
    const counts = await world.store.countKeyPackages(person.deviceId, world.now);
    assert.deepEqual(counts, [{ suite: 1, count: 3, lastResortNotAfter: null }]);
    const fitting = [...tooMany.slice(0, 2), ...world.keyPackages(1, { lastResort: true })];
    const stored = await world.upload(person, fitting, 4);
    assert.deepEqual(stored.status === "stored" && stored.stored, [true, true, true]);
  });

  test("uploadKeyPackages() does not count expired packages nor those seen before", async (world) => {
    const person = await world.person();
    const old = world.keyPackages(2, { notAfter: world.now + DAY_MS });
    const lasting = world.keyPackages(2);
    await world.upload(person, [...old, ...lasting], 4);
    assert.equal((await world.upload(person, lasting, 4)).status, "stored");
    world.now += 2 * DAY_MS;
    const result = await world.upload(person, world.keyPackages(2), 4);
    assert.equal(result.status, "stored");
    const counts = await world.store.countKeyPackages(person.deviceId, world.now);
    assert.deepEqual(counts, [{ suite: 1, count: 4, lastResortNotAfter: null }]);
  });

  test("uploadKeyPackages() refuses unknown and revoked devices", async (world) => {
    const person = await world.person();
    const packages = world.keyPackages(1);
    const upload = {
      deviceId: randomId() as typeof person.deviceId,
      packages,
      perSuiteMax: 10,
      now: world.now,
    };
    assert.deepEqual(await world.store.uploadKeyPackages(upload), { status: "noDevice" });
    await world.store.revokeDevice(person.accountId, person.deviceId, world.notice(), world.now);
    assert.deepEqual(await world.upload(person, packages), { status: "noDevice" });
  });

  test("claimKeyPackages() takes one package of each signed device", async (world) => {
    const first = await world.signed(await world.person());
    const second = await world.signed(await world.device(first));
    const unsigned = await world.device(first);
    const stranger = await world.signed(await world.person());
    const packages = new Map<string, Uint8Array>();
    for (const person of [first, second, unsigned, stranger]) {
      const [keyPackage] = world.keyPackages(1);
      packages.set(person.deviceId, keyPackage!.bytes);
      await world.upload(person, [keyPackage!]);
    }
    const claimed = plain(await world.claim(first));
    const expected = [first, second].map(({ deviceId }) => {
      return { deviceId, bytes: packages.get(deviceId)!, lastResort: false };
    });
    const byDevice = (a: { deviceId: string }, b: { deviceId: string }) => a.deviceId < b.deviceId ? -1 : 1;
    assert.deepEqual(claimed.sort(byDevice), expected.sort(byDevice));
    assert.deepEqual(await world.claim(first), []);
    assert.equal((await world.claim(stranger)).length, 1);
  });

  test("claimKeyPackages() can be narrowed to devices and takes from the asked suite only", async (world) => {
    const first = await world.signed(await world.person());
    const second = await world.signed(await world.device(first));
    for (const person of [first, second]) {
      await world.upload(person, [...world.keyPackages(1), ...world.keyPackages(1, { suite: 2 })]);
    }
    const claimed = await world.claim(first, { devices: [second.deviceId, randomId()], suite: 2 });
    assert.deepEqual(claimed.map((one) => one.deviceId), [second.deviceId]);
    const counts = await world.store.countKeyPackages(second.deviceId, world.now);
    assert.deepEqual(counts, [{ suite: 1, count: 1, lastResortNotAfter: null }]);
    assert.equal((await world.store.countKeyPackages(first.deviceId, world.now)).length, 2);
    assert.deepEqual(await world.claim(first, { devices: [] }), []);
  });

  test("claimKeyPackages() never gives a package out twice under concurrent claims", async (world) => {
    const person = await world.signed(await world.person());
    await world.upload(person, world.keyPackages(30));
    const claims = await Promise.all(Array.from({ length: 50 }, () => world.claim(person)));
    const given = claims.flat().map((one) => one.bytes.toHex());
    assert.equal(given.length, 30);
    assert.equal(new Set(given).size, 30);
  });

  test("claimKeyPackages() answers with the last resort when the supply is out, and keeps it", async (world) => {
    const person = await world.signed(await world.person());
    const [lastResort] = world.keyPackages(1, { lastResort: true });
    await world.upload(person, [lastResort!, ...world.keyPackages(1)]);
    assert.deepEqual((await world.claim(person)).map((one) => one.lastResort), [false]);
    for (let round = 0; round < 2; round++) {
      const { deviceId } = person;
      assert.deepEqual(plain(await world.claim(person)), [{
        deviceId,
        bytes: lastResort!.bytes,
        lastResort: true,
      }]);
    }
  });

  test("claimKeyPackages() with lastResortOnly leaves the supply", async (world) => {
    const person = await world.signed(await world.person());
    await world.upload(person, world.keyPackages(2));
    assert.deepEqual(await world.claim(person, { lastResortOnly: true }), []);
    await world.upload(person, world.keyPackages(1, { lastResort: true }));
    assert.equal((await world.claim(person, { lastResortOnly: true }))[0]?.lastResort, true);
    assert.equal((await world.store.countKeyPackages(person.deviceId, world.now))[0]?.count, 2);
  });

  test("uploadKeyPackages() replaces the former last resort", async (world) => {
    const person = await world.signed(await world.person());
    await world.upload(person, world.keyPackages(1, { lastResort: true }));
    const [newer] = world.keyPackages(1, { lastResort: true });
    await world.upload(person, [newer!]);
    assert.deepEqual(plain(await world.claim(person))[0]?.bytes, newer!.bytes);
    assert.equal((await world.store.counts()).keyPackages, 1);
  });

  test("claimKeyPackages() gives no expired package", async (world) => {
    const person = await world.signed(await world.person());
    const notAfter = world.now + DAY_MS;
    await world.upload(person, [
      ...world.keyPackages(2, { notAfter }),
      ...world.keyPackages(1, { notAfter, lastResort: true }),
    ]);
    world.now += 2 * DAY_MS;
    assert.deepEqual(await world.claim(person), []);
    assert.deepEqual(await world.store.countKeyPackages(person.deviceId, world.now), []);
  });

  test("claimKeyPackages() gives the low notice once until the supply is refilled", async (world) => {
    const person = await world.signed(await world.person());
    await world.upload(person, world.keyPackages(4));
    const notices: string[] = [];
    const claim = async () => {
      const lowNotice = world.notice();
      notices.push(lowNotice.entryId);
      await world.claim(person, { lowBelow: 3, lowNotice });
    };
    const received = async () => (await world.entries(person)).map((entry) => entry.entryId);
    await claim();
    assert.deepEqual(await received(), []);
    await claim();
    await claim();
    assert.deepEqual(await received(), [notices[1]]);
    await world.upload(person, world.keyPackages(4));
    await claim();
    await claim();
    await claim();
    await claim();
    assert.deepEqual(await received(), [notices[1], notices[5]]);
  });

  test("claimKeyPackages() puts the low notice into the queue of the device concerned only", async (world) => {
    const low = await world.signed(await world.person());
    const supplied = await world.signed(await world.device(low));
    await world.store.ack(low.deviceId, (await world.cursor(low)).nextSeq - 1);
    await world.upload(low, world.keyPackages(2));
    await world.upload(supplied, world.keyPackages(9));
    await world.claim(low, { lowBelow: 3 });
    assert.deepEqual((await world.entries(low)).map((entry) => entry.kind), ["notice"]);
    assert.deepEqual(await world.entries(supplied), []);
  });

  test("expireKeyPackages() deletes packages and seen refs past their end, at most limit", async (world) => {
    const person = await world.signed(await world.person());
    const old = world.keyPackages(3, { notAfter: world.now + DAY_MS });
    await world.upload(person, [...old, ...world.keyPackages(1)]);
    assert.equal(await world.store.expireKeyPackages(world.now, 100), 0);
    world.now += 2 * DAY_MS;
    let deleted = 0;
    for (;;) {
      const step = await world.store.expireKeyPackages(world.now, 2);
      assert.ok(step <= 2);
      if (step === 0) break;
      deleted += step;
    }
    assert.ok(deleted >= 3);
    assert.equal((await world.store.counts()).keyPackages, 1);
    const again = await world.upload(person, old);
    assert.deepEqual(again.status === "stored" && again.stored, [true, true, true]);
  });
}

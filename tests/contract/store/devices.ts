/** Contract of SessionStore. */
import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { randomId } from "../../../mod/base/ids.ts";
import { type ContractTest, DAY_MS, HOUR_MS, plain } from "./world.ts";

/** Registers the tests. */
export function deviceContract(test: ContractTest): void {
  test("createSession() makes a device with an empty queue", async (world) => {
    const account = world.newAccount();
    await world.store.createAccount(account);
    const session = world.newSession(account.accountId);
    assert.deepEqual(await world.store.createSession(session), {
      status: "created",
      newDevice: true,
      deviceSigned: false,
    });
    const { sessionId, accountId, deviceId, deviceKey, deviceName, now } = session;
    assert.deepEqual(plain(await world.store.listDevices(accountId)), [
      {
        deviceId,
        accountId,
        deviceKey,
        name: deviceName,
        accountSignature: null,
        createdAt: now,
        lastSeenAt: now,
      },
    ]);
    assert.deepEqual(plain(await world.store.findSession(sessionId)), {
      ...{ sessionId, accountId, deviceId, deviceKey, createdAt: now, lastSeenAt: now },
      ...{ ended: false, deviceRevoked: false, deviceSigned: false, accountEnabled: true },
    });
    const cursor = await world.store.cursor(deviceId);
    assert.deepEqual(cursor, { ackedThrough: 0, nextSeq: 1, droppedThrough: 0, droppedCount: 0 });
  });

  test("createSession() of a known device renames it, keeps its signature and ends older sessions", async (world) => {
    const person = await world.signed(await world.person());
    const { deviceId, deviceKey } = person;
    const session = world.newSession(person.accountId, { deviceId, deviceKey, deviceName: "desk" });
    assert.deepEqual(await world.store.createSession(session), {
      status: "created",
      newDevice: false,
      deviceSigned: true,
    });
    const [device, ...others] = await world.store.listDevices(person.accountId);
    assert.equal(others.length, 0);
    assert.equal(device?.name, "desk");
    assert.notEqual(device?.accountSignature, null);
    assert.equal((await world.store.findSession(person.sessionId))?.ended, true);
    assert.equal((await world.store.findSession(session.sessionId))?.ended, false);
  });

  test("createSession() forgets all but the last ended sessions of the device", async (world) => {
    const first = await world.person();
    const { accountId, deviceId, deviceKey } = first;
    const other = await world.device(first, { now: world.now - 1000 });
    const sessions = Array.from(
      { length: 6 },
      (_, index) => world.newSession(accountId, { deviceId, deviceKey, now: world.now + index + 1 }),
    );
    for (const session of sessions) {
      assert.equal((await world.store.createSession(session)).status, "created");
    }
    const ended = [first, ...sessions, other].map(async ({ sessionId }) =>
      (await world.store.findSession(sessionId))?.ended
    );
    assert.deepEqual(await Promise.all(ended), [
      ...[undefined, undefined, true, true, true, true],
      ...[false, false],
    ]);
  });

  test("createSession() notifies the account's other devices of a new one, not of a known one", async (world) => {
    const first = await world.person();
    const notice = world.notice();
    const second = await world.device(first, { deviceAddedNotice: notice });
    const [entry, ...others] = await world.entries(first);
    assert.equal(others.length, 0);
    assert.deepEqual(plain(entry), {
      ...{ seq: 1, kind: "notice", senderAccount: null, senderDevice: null, senderDomain: null },
      ...{ entryId: notice.entryId, payload: notice.payload },
      ...{ acceptedAt: world.now, expiresAt: notice.expiresAt },
    });
    assert.deepEqual(await world.entries(second), []);
    await world.device(first, { deviceId: second.deviceId, deviceKey: second.deviceKey });
    assert.equal((await world.entries(first)).length, 1);
  });

  test("createSession() refuses more than devicesMax new devices", async (world) => {
    const first = await world.person();
    const second = await world.device(first, { devicesMax: 2 });
    const third = world.newSession(first.accountId, { devicesMax: 2 });
    assert.deepEqual(await world.store.createSession(third), { status: "tooManyDevices" });
    assert.equal((await world.store.listDevices(first.accountId)).length, 2);
    assert.equal(await world.store.findSession(third.sessionId), null);
    await world.device(first, { deviceId: second.deviceId, deviceKey: second.deviceKey, devicesMax: 2 });
    await world.store.revokeDevice(first.accountId, second.deviceId, world.notice(), world.now);
    assert.equal((await world.store.createSession(third)).status, "created");
  });

  test("createSession() holds devicesMax against many at once", async (world) => {
    const first = await world.person();
    const sessions = Array.from({ length: 10 }, () => world.newSession(first.accountId, { devicesMax: 4 }));
    const results = await Promise.all(sessions.map((session) => world.store.createSession(session)));
    assert.equal(results.filter((result) => result.status === "created").length, 3);
    assert.equal((await world.store.listDevices(first.accountId)).length, 4);
  });

  test("createSession() refuses another account's device, another key, and a revoked device", async (world) => {
    const [person, stranger] = [await world.person(), await world.person()];
    const { deviceId, deviceKey } = person;
    const conflict = { status: "deviceConflict" };
    const foreign = world.newSession(stranger.accountId, { deviceId, deviceKey });
    assert.deepEqual(await world.store.createSession(foreign), conflict);
    const otherKey = world.newSession(person.accountId, { deviceId });
    assert.deepEqual(await world.store.createSession(otherKey), conflict);
    await world.store.revokeDevice(person.accountId, deviceId, world.notice(), world.now);
    const revoked = world.newSession(person.accountId, { deviceId, deviceKey });
    assert.deepEqual(await world.store.createSession(revoked), conflict);
  });

  test("createSession() refuses an unknown account", async (world) => {
    assert.deepEqual(await world.store.createSession(world.newSession(randomId())), { status: "noAccount" });
  });

  test("touchSession() marks session and device as seen", async (world) => {
    const person = await world.person();
    const later = world.now + HOUR_MS;
    await world.store.touchSession(person.sessionId, later);
    await world.store.touchSession(randomId(), later);
    assert.equal((await world.store.findSession(person.sessionId))?.lastSeenAt, later);
    assert.equal((await world.store.listDevices(person.accountId))[0]?.lastSeenAt, later);
  });

  test("endSession() ends one session and is idempotent", async (world) => {
    const [person, other] = [await world.person(), await world.person()];
    await world.store.endSession(person.sessionId);
    await world.store.endSession(person.sessionId);
    await world.store.endSession(randomId());
    assert.equal((await world.store.findSession(person.sessionId))?.ended, true);
    assert.equal((await world.store.findSession(other.sessionId))?.ended, false);
    assert.equal((await world.store.listDevices(person.accountId)).length, 1);
  });

  test("expireSessions() ends idle and old sessions, at most limit", async (world) => {
    const idle = await world.person();
    const old = await world.person();
    world.now += DAY_MS;
    await world.store.touchSession(old.sessionId, world.now);
    const fresh = await world.person();
    const ended = async () =>
      await Promise.all([idle, old, fresh].map(async (person) => {
        return (await world.store.findSession(person.sessionId))?.ended;
      }));
    const hourAgo = world.now - HOUR_MS;
    assert.equal(await world.store.expireSessions(hourAgo, 0, 10), 1);
    assert.deepEqual(await ended(), [true, false, false]);
    assert.equal(await world.store.expireSessions(0, hourAgo, 10), 1);
    assert.deepEqual(await ended(), [true, true, false]);
    assert.equal(await world.store.expireSessions(hourAgo, hourAgo, 10), 0);
    const others = [await world.person(), await world.person()];
    world.now += DAY_MS;
    assert.equal(await world.store.expireSessions(world.now, 0, 2), 2);
    assert.equal(await world.store.expireSessions(world.now, 0, 2), 1);
    assert.equal((await world.store.findSession(others[1]!.sessionId))?.ended, true);
  });

  test("findDevices() finds by the beginning of an id, across accounts, without revoked ones", async (world) => {
    const first = await world.signed(await world.person());
    const second = await world.device(first);
    const stranger = await world.person();
    await world.send(stranger, [first]);
    const find = (prefix: string, limit = 10) => world.store.findDevices({ prefix, limit });
    const [found, ...others] = await find(first.deviceId);
    assert.equal(others.length, 0);
    assert.equal(found!.accountId, first.accountId);
    assert.equal(found!.userName, (await world.store.findAccount(first.accountId))!.userName);
    assert.equal(found!.signed, true);
    assert.ok(found!.entries > 0 && found!.bytes > 0);
    const all = [first, second, stranger].map(({ deviceId }) => deviceId).sort();
    assert.deepEqual((await find("")).map(({ deviceId }) => deviceId), all);
    assert.deepEqual((await find("", 2)).map(({ deviceId }) => deviceId), all.slice(0, 2));
    const odd = stranger.deviceId.slice(0, 7);
    assert.deepEqual(
      (await find(odd)).map(({ deviceId }) => deviceId),
      all.filter((id) => id.startsWith(odd)),
    );
    await world.store.revokeDevice(first.accountId, first.deviceId, world.notice(), world.now);
    assert.deepEqual(await find(first.deviceId), []);
  });

  test("listDevices() names the devices that are not revoked, oldest first", async (world) => {
    const first = await world.person();
    world.now += 1;
    const second = await world.device(first);
    world.now += 1;
    const third = await world.device(first);
    await world.person();
    const ids = async () => (await world.store.listDevices(first.accountId)).map((device) => device.deviceId);
    assert.deepEqual(await ids(), [first.deviceId, second.deviceId, third.deviceId]);
    await world.store.revokeDevice(first.accountId, second.deviceId, world.notice(), world.now);
    assert.deepEqual(await ids(), [first.deviceId, third.deviceId]);
    assert.deepEqual(await world.store.listDevices(randomId()), []);
  });

  test("signDevice() stores the signature for the account's own devices only", async (world) => {
    const [person, stranger] = [await world.person(), await world.person()];
    const signature = randomBytes(64);
    assert.equal(await world.store.signDevice(stranger.accountId, person.deviceId, signature), false);
    assert.equal(await world.store.signDevice(person.accountId, randomId(), signature), false);
    assert.equal(await world.store.signDevice(person.accountId, person.deviceId, signature), true);
    const [device] = await world.store.listDevices(person.accountId);
    assert.deepEqual(plain(device?.accountSignature), signature);
    assert.equal((await world.store.findSession(person.sessionId))?.deviceSigned, true);
  });

  test("revokeDevice() drops queue, KeyPackages and sessions, and keeps id and key", async (world) => {
    const person = await world.signed(await world.person());
    const other = await world.device(person);
    await world.send(other, [person]);
    await world.upload(person, world.keyPackages(2));
    const notice = world.notice();
    const { accountId, deviceId } = person;
    assert.equal(await world.store.revokeDevice(accountId, deviceId, notice, world.now), true);
    assert.equal(await world.store.cursor(deviceId), null);
    assert.deepEqual(await world.store.countKeyPackages(deviceId, world.now), []);
    assert.deepEqual(await world.claim(person), []);
    const session = plain(await world.store.findSession(person.sessionId));
    assert.equal(session?.deviceRevoked, true);
    assert.deepEqual(session?.deviceKey, person.deviceKey);
    assert.deepEqual((await world.send(other, [person])).recipients, ["unknownDevice"]);
    const entries = await world.entries(other);
    assert.equal(entries.at(-1)?.entryId, notice.entryId);
    assert.equal(await world.store.revokeDevice(accountId, deviceId, notice, world.now), false);
    assert.equal((await world.entries(other)).length, entries.length);
  });

  test("revokeDevice() refuses another account's device", async (world) => {
    const [person, stranger] = [await world.person(), await world.person()];
    const notice = world.notice();
    assert.equal(
      await world.store.revokeDevice(stranger.accountId, person.deviceId, notice, world.now),
      false,
    );
    assert.equal(
      await world.store.revokeDevice(stranger.accountId, randomId(), notice, world.now),
      false,
    );
    assert.deepEqual(await world.entries(stranger), []);
    assert.equal((await world.store.listDevices(person.accountId)).length, 1);
  });

  test("expireDevices() forgets idle devices with all they have, at most limit", async (world) => {
    const [idle, lazy] = [await world.person(), await world.person()];
    world.now += DAY_MS;
    const fresh = await world.person();
    await world.send(fresh, [idle, lazy]);
    await world.upload(idle, world.keyPackages(2));
    const hourAgo = world.now - HOUR_MS;
    const first = await world.store.expireDevices(hourAgo, 1);
    const second = await world.store.expireDevices(hourAgo, 5);
    assert.deepEqual(new Set([...first, ...second]), new Set([idle.deviceId, lazy.deviceId]));
    assert.equal(first.length, 1);
    assert.deepEqual(await world.store.expireDevices(hourAgo, 5), []);
    assert.equal(await world.store.findSession(idle.sessionId), null);
    assert.equal(await world.store.cursor(idle.deviceId), null);
    assert.deepEqual(await world.store.countKeyPackages(idle.deviceId, world.now), []);
    assert.deepEqual(await world.seqs(fresh), []);
    const again = await world.device(idle, { deviceId: idle.deviceId });
    assert.deepEqual(await world.entries(again), []);
    assert.equal((await world.cursor(again)).nextSeq, 1);
  });

  test("expireDevices() forgets revoked devices too", async (world) => {
    const person = await world.person();
    await world.store.revokeDevice(person.accountId, person.deviceId, world.notice(), world.now);
    assert.deepEqual(await world.store.expireDevices(world.now + 1, 5), [person.deviceId]);
    assert.equal(await world.store.findSession(person.sessionId), null);
  });
}

/** Login: proofs, one answer for everything wrong, handles, limits, events. */
import assert from "node:assert/strict";
import { FRESH_LOGIN_MS } from "../../../mod/auth/logins.ts";
import { PENDING_MS } from "../../../mod/auth/pending.ts";
import { ERRORS } from "../../../mod/base/errors.ts";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { randomId } from "../../../mod/base/ids.ts";
import { AuthWorld, TestDevice } from "../../support/auth_world.ts";
import { rejectsWith } from "../../support/rejects.ts";

Deno.test("loginFinish() logs in with everything proven", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const login = await world.login(user, device);
  assert.equal(login.accountId, user.accountId);
  assert.equal(login.newDevice, true);
  assert.equal(login.deviceSigned, false);
  assert.equal(login.reregister, false);
  assert.deepEqual(login.accountKey, user.accountSigner.publicKey);
  assert.equal(login.auth.login?.sessionId, login.sessionId);
  assert.deepEqual(world.successes.map(({ userName }) => userName), ["alice"]);
  assert.deepEqual([world.proven.length, world.failures.length], [1, 0]);
});

Deno.test("loginStart() takes the name in any case", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const login = await world.login({ ...user, userName: "ALICE" }, await TestDevice.make());
  assert.equal(login.accountId, user.accountId);
});

Deno.test("a login of an unknown user and one with a wrong password look the same", async () => {
  await using world = await AuthWorld.open();
  await world.register("alice");
  const answers = [];
  for (const userName of ["alice", "nobody"]) {
    const auth = world.connection();
    const { handle, finished, ...answer } = await world.loginStart(auth, { userName, password: "wrong" });
    assert.ok(handle > 0);
    assert.equal(finished, null);
    const error = await rejectsWith(world.loginBadly(auth, userName), "loginFailed");
    answers.push({
      suiteId: answer.suiteId,
      bytes: answer.ke2.length,
      text: ERRORS[error.code],
      message: error.message,
    });
  }
  assert.deepEqual(answers[0], answers[1]);
  assert.deepEqual(world.failures.map(({ userName }) => userName), ["alice", "nobody"]);
});

Deno.test("loginStart() reads the store alike for known and unknown users, loginFinish() not at all", async () => {
  await using world = await AuthWorld.open();
  await world.register("alice");
  const reads: string[][] = [];
  for (const userName of ["alice", "nobody"]) {
    const names: string[] = [];
    const { findAccountByName, findAccount } = world.store;
    world.store.findAccountByName = (
      name,
    ) => (names.push("byName"), findAccountByName.call(world.store, name));
    world.store.findAccount = (id) => (names.push("byId"), findAccount.call(world.store, id));
    await rejectsWith(world.loginBadly(world.connection(), userName), "loginFailed");
    Object.assign(world.store, { findAccountByName, findAccount });
    reads.push(names);
  }
  assert.deepEqual(reads, [["byName"], ["byName"]]);
});

Deno.test("loginFinish() refuses a wrong binding, a wrong signature and another device's key alike", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const other = await TestDevice.make();
  const changes = [
    () => ({ deviceBinding: randomBytes(32) }),
    () => ({ deviceBinding: new Uint8Array() }),
    () => ({ signature: randomBytes(64) }),
    () => ({ signature: new Uint8Array() }),
    () => ({ deviceKey: other.signer.publicKey }),
    () => ({ deviceId: other.deviceId }),
  ];
  for (const change of changes) {
    await rejectsWith(world.loginOn(world.connection(), { user, device, change }), "loginFailed");
  }
  assert.equal(world.failures.length, changes.length);
  assert.equal(world.proven.length, 0);
  assert.deepEqual(await world.store.listDevices(user.accountId), []);
});

Deno.test("loginFinish() takes each handle once", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const auth = world.connection();
  const { handle, finished } = await world.loginStart(auth, user);
  const request = await device.prove(auth, { handle, ...finished! });
  await rejectsWith(
    world.authenticator.loginFinish(auth, { ...request, deviceBinding: randomBytes(32) }),
    "loginFailed",
  );
  await rejectsWith(world.authenticator.loginFinish(auth, request), "loginFailed");
  assert.equal(world.failures.length, 1);
});

Deno.test("loginFinish() refuses a handle of another connection, which stays good on its own", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const mine = world.connection();
  const theirs = world.connection();
  const { handle, finished } = await world.loginStart(mine, user);
  const stolen = await device.prove(theirs, { handle, ...finished! });
  await rejectsWith(world.authenticator.loginFinish(theirs, stolen), "loginFailed");
  await world.authenticator.loginFinish(mine, await device.prove(mine, { handle, ...finished! }));
  assert.equal(mine.login?.deviceId, device.deviceId);
});

Deno.test("proofs made for another connection's nonce are refused", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const auth = world.connection();
  const { handle, finished } = await world.loginStart(auth, user);
  const replayed = await device.prove(world.connection(), { handle, ...finished! });
  await rejectsWith(world.authenticator.loginFinish(auth, replayed), "loginFailed");
});

Deno.test("a login that is not finished within 60 s is over and counts as failed once", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const auth = world.connection();
  const { handle, finished } = await world.loginStart(auth, user);
  await world.clock.advance(PENDING_MS);
  assert.equal(world.failures.length, 1);
  const request = await device.prove(auth, { handle, ...finished! });
  await rejectsWith(world.authenticator.loginFinish(auth, request), "loginFailed");
  world.authenticator.connectionClosed(auth);
  assert.equal(world.failures.length, 1);
  assert.equal(world.authenticator.pendingCount, 0);
});

Deno.test("connectionClosed() counts each unfinished login as failed, and ends its timer", async () => {
  await using world = await AuthWorld.open();
  await world.register("alice");
  const auth = world.connection();
  await world.loginStart(auth, { userName: "alice", password: "wrong" });
  await world.loginStart(auth, { userName: "nobody", password: "wrong" });
  world.authenticator.connectionClosed(auth);
  assert.deepEqual(world.failures.map(({ userName }) => userName), ["alice", "nobody"]);
  assert.equal(world.clock.pendingTimers, 0);
  assert.equal(world.authenticator.pendingCount, 0);
});

Deno.test("a connection that closes while KE2 is computed leaves nothing behind", async () => {
  await using world = await AuthWorld.open();
  const auth = world.connection();
  const started = world.loginStart(auth, { userName: "alice", password: "x" });
  world.authenticator.connectionClosed(auth);
  await started;
  assert.equal(world.authenticator.pendingCount, 0);
  assert.deepEqual([auth.pending.size, world.clock.pendingTimers, world.failures.length], [0, 0, 0]);
});

Deno.test("loginStart() has room for four exchanges a connection, also when they are sent at once", async () => {
  await using world = await AuthWorld.open();
  const auth = world.connection();
  const start = () => world.loginStart(auth, { userName: "alice", password: "x" });
  const results = await Promise.allSettled([start(), start(), start(), start(), start(), start()]);
  assert.deepEqual(results.filter(({ status }) => status === "fulfilled").length, 4);
  const error = await rejectsWith(start(), "rateLimited");
  assert.ok(error.details.retryAfterMs! > 0);
  await world.clock.advance(PENDING_MS);
  await start();
});

Deno.test("loginStart() has room for limits.pendingMax exchanges of all connections", async () => {
  await using world = await AuthWorld.open({ limits: { pendingMax: 2 } });
  const first = world.connection();
  const start = (auth = world.connection()) => world.loginStart(auth, { userName: "alice", password: "x" });
  await start(first);
  await start();
  const error = await rejectsWith(start(), "overloaded");
  assert.ok(error.details.retryAfterMs! > 0);
  world.authenticator.connectionClosed(first);
  await start();
});

Deno.test("a connection logs in once", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const auth = world.connection();
  const second = await world.loginStart(auth, user);
  const { sessionId } = await world.loginOn(auth, { user, device });
  await rejectsWith(world.loginStart(auth, user), "alreadyLoggedIn");
  const request = await device.prove(auth, { handle: second.handle, ...second.finished! });
  await rejectsWith(world.authenticator.loginFinish(auth, request), "alreadyLoggedIn");
  await rejectsWith(
    world.authenticator.resume(auth, { sessionId, signature: new Uint8Array(64) }),
    "alreadyLoggedIn",
  );
});

Deno.test("two LoginFinish at once on a connection give one login", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const auth = world.connection();
  const requests = [];
  for (let i = 0; i < 2; i++) {
    const { handle, finished } = await world.loginStart(auth, user);
    requests.push(await device.prove(auth, { handle, ...finished! }));
  }
  const results = await Promise.allSettled(requests.map((one) => world.authenticator.loginFinish(auth, one)));
  assert.deepEqual(results.map(({ status }) => status), ["fulfilled", "rejected"]);
});

Deno.test("loginStart() refuses malformed KE1, unknown suites and what is no user name", async () => {
  await using world = await AuthWorld.open();
  const auth = world.connection();
  const start = (userName: string, suiteIds: number[], ke1: Uint8Array) =>
    world.authenticator.loginStart(auth, { userName, suiteIds, ke1 });
  await rejectsWith(start("alice", [1], new Uint8Array(96)), "malformedRequest");
  await rejectsWith(start("alice", [1], randomBytes(95)), "malformedRequest");
  await rejectsWith(start("alice", [2], randomBytes(96)), "malformedRequest");
  await rejectsWith(start("alice", [], randomBytes(96)), "malformedRequest");
  await rejectsWith(start("älice", [1], randomBytes(96)), "userNameInvalid");
  assert.equal(world.authenticator.pendingCount, 0);
});

Deno.test("loginFinish() refuses malformed fields without using up the handle", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const auth = world.connection();
  const { handle, finished } = await world.loginStart(auth, user);
  const request = await device.prove(auth, { handle, ...finished! });
  const bad = [{ ke3: new Uint8Array(63) }, { deviceName: "x".repeat(65) }, { deviceName: "a\nb" }];
  for (const change of [...bad, { deviceKey: new Uint8Array(31) }]) {
    await rejectsWith(world.authenticator.loginFinish(auth, { ...request, ...change }), "malformedRequest");
  }
  await world.authenticator.loginFinish(auth, request);
});

Deno.test("devices: a known one is not new, devicesMax holds, an id belongs to one key", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  assert.equal((await world.login(user, device)).newDevice, true);
  assert.equal((await world.login(user, device)).newDevice, false);
  const impostor = Object.assign(await TestDevice.make(), { deviceId: device.deviceId });
  await rejectsWith(world.login(user, impostor), "deviceConflict");
  for (let i = 1; i < 3; i++) await world.login(user, await TestDevice.make());
  await rejectsWith(world.login(user, await TestDevice.make()), "tooManyDevices");
  // The password was right: neither refusal is a failed login.
  assert.equal(world.failures.length, 0);
});

Deno.test("a device's new login ends its older session", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const first = await world.login(user, device);
  const second = await world.login(user, device);
  assert.deepEqual(world.ended.at(-1), {
    accountId: user.accountId,
    deviceId: device.deviceId,
    except: second.sessionId,
  });
  await rejectsWith(world.resume({ sessionId: first.sessionId, device }), "sessionExpired");
});

Deno.test("loginFinish() tells a disabled account only to who knows the password", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  await world.authenticator.setAccountEnabled(user.accountId, false);
  await rejectsWith(world.login(user, await TestDevice.make()), "accountDisabled");
  await rejectsWith(world.loginBadly(world.connection(), "alice"), "loginFailed");
  await world.authenticator.setAccountEnabled(user.accountId, true);
  await world.login(user, await TestDevice.make());
});

Deno.test("a login begun before a change of password does not outlive it", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const auth = world.connection();
  const { handle, finished } = await world.loginStart(auth, user);
  const { credential } = (await world.store.findAccount(user.accountId))!;
  const changed = { ...credential, record: new Uint8Array(credential.record) };
  changed.record[191]! ^= 1;
  await world.store.changeCredential({ accountId: user.accountId, credential: changed, keepSession: null });
  const request = await device.prove(auth, { handle, ...finished! });
  await rejectsWith(world.authenticator.loginFinish(auth, request), "loginFailed");
  assert.equal(auth.login, null);
});

Deno.test("what needs the password needs a login within five minutes on this connection", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const { auth, sessionId } = await world.login(user, device);
  await world.clock.advance(FRESH_LOGIN_MS - 1);
  const notMine = world.authenticator.revokeDevice(auth, randomId());
  await rejectsWith(notMine, "notFound"); // allowed, but there is none
  await world.clock.advance(1);
  const request = { suiteId: 1, request: randomBytes(32) };
  await rejectsWith(world.authenticator.revokeDevice(auth, device.deviceId), "freshLoginRequired");
  await rejectsWith(world.authenticator.deleteAccount(auth), "freshLoginRequired");
  await rejectsWith(world.authenticator.changePasswordStart(auth, request), "freshLoginRequired");
  const resumed = await world.resume({ sessionId, device });
  await rejectsWith(world.authenticator.deleteAccount(resumed.auth), "freshLoginRequired");
});

Deno.test("loginFinish() overwrites the exchange's state and session key, whatever comes of it", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const { loginStart, loginFinish } = world.pool;
  const secrets: Uint8Array[] = [];
  world.pool.loginStart = async (input) => {
    const started = await loginStart.call(world.pool, input);
    secrets.push(started.state);
    return started;
  };
  world.pool.loginFinish = async (input) => {
    const sessionKey = await loginFinish.call(world.pool, input);
    if (sessionKey) secrets.push(sessionKey);
    return sessionKey;
  };
  await world.login(user, await TestDevice.make());
  assert.equal(secrets.length, 2);
  const auth = world.connection();
  await world.loginStart(auth, { userName: "alice", password: "wrong" });
  world.authenticator.connectionClosed(auth);
  await rejectsWith(world.loginBadly(world.connection(), "alice"), "loginFailed");
  assert.equal(secrets.length, 4);
  assert.deepEqual(secrets.filter((bytes) => bytes.some((byte) => byte !== 0)), []);
});

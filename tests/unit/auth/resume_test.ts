/** Resume, the ends of sessions, and what each end tells whom. */
import assert from "node:assert/strict";
import { TOUCH_INTERVAL_MS } from "../../../mod/auth/logins.ts";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { randomId } from "../../../mod/base/ids.ts";
import { AuthWorld, TestDevice } from "../../support/auth_world.ts";
import { beginRegistration } from "../../support/opaque_client.ts";
import { rejectsWith } from "../../support/rejects.ts";

const DAY_MS = 86_400_000;

async function loggedIn(world: AuthWorld) {
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const { auth, sessionId } = await world.login(user, device);
  return { user, device, auth, sessionId };
}

Deno.test("resume() takes a signature over no certificate, the present one, or the next", async () => {
  await using world = await AuthWorld.open();
  const { device, sessionId, user } = await loggedIn(world);
  const [current, next, other] = [randomBytes(32), randomBytes(32), randomBytes(32)];
  world.leafHashes = [current, next];
  for (const pinned of [current, next, new Uint8Array(32)]) {
    const { auth } = await world.resume({ sessionId, device, pinned });
    assert.equal(auth.login?.accountId, user.accountId);
    assert.equal(auth.login.deviceId, device.deviceId);
  }
  // Somebody between client and server shows a certificate of their own.
  await rejectsWith(world.resume({ sessionId, device, pinned: other }), "loginFailed");
});

Deno.test("resume() gives one answer for an unknown session and a wrong signature, after as many checks", async () => {
  await using world = await AuthWorld.open();
  const { sessionId, device } = await loggedIn(world);
  const stranger = await TestDevice.make();
  world.leafHashes = [randomBytes(32), randomBytes(32)];
  const verify = crypto.subtle.verify.bind(crypto.subtle);
  const checks: number[] = [];
  const messages = new Set<string>();
  for (
    const attempt of [{ sessionId: randomId<typeof sessionId>(), device }, { sessionId, device: stranger }]
  ) {
    let count = 0;
    crypto.subtle.verify = (...args: Parameters<typeof verify>) => (count++, verify(...args));
    try {
      messages.add((await rejectsWith(world.resume(attempt), "loginFailed")).message);
    } finally {
      crypto.subtle.verify = verify;
    }
    checks.push(count);
  }
  assert.deepEqual(checks, [3, 3]);
  assert.equal(messages.size, 1);
});

Deno.test("resume() refuses a signature of another connection", async () => {
  await using world = await AuthWorld.open();
  const { sessionId, device } = await loggedIn(world);
  const content = [world.connection().serverNonce, Uint8Array.fromHex(sessionId), new Uint8Array(32)];
  const signature = await device.signer.sign("qpq resume", ...content);
  await rejectsWith(world.authenticator.resume(world.connection(), { sessionId, signature }), "loginFailed");
});

Deno.test("resume() tells the device the true reason, and a stranger nothing", async () => {
  await using world = await AuthWorld.open();
  const { user, sessionId, device, auth } = await loggedIn(world);
  const stranger = await TestDevice.make();
  const both = async (code: "sessionExpired" | "deviceRevoked" | "accountDisabled") => {
    await rejectsWith(world.resume({ sessionId, device }), code);
    await rejectsWith(world.resume({ sessionId, device: stranger }), "loginFailed");
  };
  await world.authenticator.setAccountEnabled(user.accountId, false);
  await both("accountDisabled");
  await world.authenticator.setAccountEnabled(user.accountId, true);
  await both("sessionExpired"); // disabling ended it
  await world.authenticator.revokeDevice(auth, device.deviceId);
  await both("deviceRevoked");
});

Deno.test("a session ends by logout", async () => {
  await using world = await AuthWorld.open();
  const { user, sessionId, device, auth } = await loggedIn(world);
  await world.authenticator.logout(auth);
  assert.deepEqual(world.ended.at(-1), { accountId: user.accountId, sessionId, initiator: auth });
  await rejectsWith(world.resume({ sessionId, device }), "sessionExpired");
});

Deno.test("a session ends after 30 idle days, and not while it is used", async () => {
  await using world = await AuthWorld.open();
  const { sessionId, device, auth } = await loggedIn(world);
  await world.clock.advance(29 * DAY_MS);
  await world.resume({ sessionId, device });
  await world.clock.advance(29 * DAY_MS);
  await world.authenticator.touch(auth); // a connection that lives all the time
  await world.clock.advance(29 * DAY_MS);
  await world.resume({ sessionId, device });
  await world.clock.advance(30 * DAY_MS);
  await rejectsWith(world.resume({ sessionId, device }), "sessionExpired");
});

Deno.test("a session that may be idle for an hour does not end while it is used", async () => {
  await using world = await AuthWorld.open({ limits: { sessionIdleMs: 60 * 60_000 } });
  const { sessionId, device } = await loggedIn(world);
  for (let use = 0; use < 5; use++) {
    await world.clock.advance(40 * 60_000);
    await world.resume({ sessionId, device });
  }
  await world.clock.advance(60 * 60_000);
  await rejectsWith(world.resume({ sessionId, device }), "sessionExpired");
});

Deno.test("a session ends after a year, also on a live connection", async () => {
  await using world = await AuthWorld.open();
  const { user, sessionId, device, auth } = await loggedIn(world);
  for (let day = 0; day < 360; day += 20) {
    await world.clock.advance(20 * DAY_MS);
    await world.authenticator.touch(auth);
  }
  await world.resume({ sessionId, device });
  await world.clock.advance(5 * DAY_MS);
  await rejectsWith(world.resume({ sessionId, device }), "sessionExpired");
  await world.authenticator.touch(auth);
  assert.deepEqual(world.ended.at(-1), { accountId: user.accountId, sessionId });
});

Deno.test("a session in use is written at most once an hour", async () => {
  await using world = await AuthWorld.open();
  const { auth, sessionId, device } = await loggedIn(world);
  let writes = 0;
  const { touchSession } = world.store;
  world.store.touchSession = (...args) => (writes++, touchSession.apply(world.store, args));
  await world.authenticator.touch(auth);
  await world.resume({ sessionId, device });
  assert.equal(writes, 0);
  await world.clock.advance(TOUCH_INTERVAL_MS);
  await Promise.all([world.authenticator.touch(auth), world.authenticator.touch(auth)]);
  assert.equal(writes, 1);
  await world.resume({ sessionId, device });
  assert.equal(writes, 1);
});

Deno.test("changing the password ends all other sessions, and the new one counts", async () => {
  await using world = await AuthWorld.open();
  const { user, sessionId, device, auth } = await loggedIn(world);
  const other = await TestDevice.make();
  const second = await world.login(user, other);
  const client = beginRegistration("new", world.realmId);
  const start = { suiteId: 1, request: client.request };
  const { handle, response } = await world.authenticator.changePasswordStart(auth, start);
  const { record } = client.finish(response);
  const wrappedAccountKey = Uint8Array.of(7);
  await world.authenticator.changePasswordFinish(auth, { handle, record, wrappedAccountKey });
  assert.deepEqual(world.ended.at(-1), { accountId: user.accountId, except: sessionId });
  await world.resume({ sessionId, device });
  await rejectsWith(world.resume({ sessionId: second.sessionId, device: other }), "sessionExpired");
  const { finished } = await world.loginStart(world.connection(), user);
  assert.equal(finished, null);
  const login = await world.login({ ...user, password: "new" }, other);
  assert.deepEqual(login.wrappedAccountKey, wrappedAccountKey);
  const again = world.authenticator.changePasswordFinish(auth, { handle, record, wrappedAccountKey });
  await rejectsWith(again, "malformedRequest");
});

Deno.test("a record of an older OPAQUE setup still logs in, and asks for a new one", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const [first] = await world.store.opaqueSetups();
  const secret = await world.pool.createSetup(1);
  const second = { ...first!, setupId: first!.setupId + 1, secret };
  world.store.opaqueSetups = () => Promise.resolve([first!, second]);
  await world.setups.refresh();
  const { auth, reregister } = await world.login(user, device);
  assert.equal(reregister, true);
  const client = beginRegistration("right", world.realmId);
  const start = { suiteId: 1, request: client.request };
  const { handle, response } = await world.authenticator.changePasswordStart(auth, start);
  const { record } = client.finish(response);
  await world.authenticator.changePasswordFinish(auth, {
    handle,
    record,
    wrappedAccountKey: record.slice(0, 9),
  });
  assert.equal((await world.login(user, device)).reregister, false);
});

Deno.test("a record whose OPAQUE setup is gone fails like a wrong password", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const [first] = await world.store.opaqueSetups();
  const other = { ...first!, setupId: first!.setupId + 1, secret: await world.pool.createSetup(1) };
  world.store.opaqueSetups = () => Promise.resolve([other]);
  await world.setups.refresh();
  const auth = world.connection();
  const { finished, ke2 } = await world.loginStart(auth, user);
  assert.equal(finished, null);
  assert.equal(ke2.length, 320);
  await rejectsWith(world.loginBadly(auth, "alice"), "loginFailed");
});

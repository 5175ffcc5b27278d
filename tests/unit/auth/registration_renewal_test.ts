/** Records and a rotation of the OPAQUE setup: who is asked to renew, and what that ends. */
import assert from "node:assert/strict";
import { utf8 } from "../../../mod/base/bytes.ts";
import { AuthWorld, TestDevice, type TestUser } from "../../support/auth_world.ts";
import { beginRegistration } from "../../support/opaque_client.ts";
import { rejectsWith } from "../../support/rejects.ts";

/** A second setup, as a rotation makes it, and what login and change of password then do. */
async function renewed(world: AuthWorld, user: TestUser, device: TestDevice) {
  const login = await world.login(user, device);
  const client = beginRegistration(user.password, world.realmId);
  const { handle, response } = await world.authenticator.changePasswordStart(login.auth, {
    suiteId: 1,
    request: client.request,
  });
  const { record } = client.finish(response);
  await world.authenticator.changePasswordFinish(login.auth, {
    handle,
    record,
    wrappedAccountKey: utf8("wrapped again"),
  });
  return login;
}

async function addSetup(world: AuthWorld): Promise<void> {
  const secret = await world.pool.createSetup(1);
  await world.store.addOpaqueSetup({ suiteId: 1, secret, createdAt: world.clock.now() });
  await world.setups.refresh();
}

Deno.test("a change of password after a login that answered reregister ends no session, the next one does", async () => {
  await using world = await AuthWorld.open();
  const alice = await world.register("alice");
  const [phone, desk] = [await TestDevice.make(), await TestDevice.make()];
  const onPhone = await world.login(alice, phone);
  await addSetup(world);
  world.ended.length = 0;
  const onDesk = await renewed(world, alice, desk);
  assert.equal(onDesk.reregister, true);
  assert.deepEqual(world.ended.filter(({ deviceId }) => deviceId !== desk.deviceId), []);
  await world.resume({ sessionId: onPhone.sessionId, device: phone });
  assert.equal((await world.store.findAccount(alice.accountId))?.credential.setupId, 2);
  // On the same connection the password is now really changed.
  const client = beginRegistration("other", world.realmId);
  const { handle, response } = await world.authenticator.changePasswordStart(onDesk.auth, {
    suiteId: 1,
    request: client.request,
  });
  await world.authenticator.changePasswordFinish(onDesk.auth, {
    handle,
    record: client.finish(response).record,
    wrappedAccountKey: utf8("wrapped"),
  });
  assert.deepEqual(world.ended.at(-1), { accountId: alice.accountId, except: onDesk.sessionId });
  await rejectsWith(world.resume({ sessionId: onPhone.sessionId, device: phone }), "sessionExpired");
});

Deno.test("a login under the newest setup answers no reregister, and its change of password ends other sessions", async () => {
  await using world = await AuthWorld.open();
  await addSetup(world);
  const alice = await world.register("alice");
  const phone = await TestDevice.make();
  const onPhone = await world.login(alice, phone);
  assert.equal(onPhone.reregister, false);
  await renewed(world, alice, await TestDevice.make());
  await rejectsWith(world.resume({ sessionId: onPhone.sessionId, device: phone }), "sessionExpired");
});

Deno.test("a record under a retired setup logs nobody in, and is answered like an unknown name", async () => {
  await using world = await AuthWorld.open();
  const alice = await world.register("alice");
  await addSetup(world);
  await world.store.retireOpaqueSetup({ setupId: 1, force: true, namesMax: 1, now: world.clock.now() });
  await world.setups.refresh();
  const known = await world.loginStart(world.connection(), alice);
  const unknown = await world.loginStart(world.connection(), { userName: "nobody", password: "x" });
  assert.equal(known.finished, null);
  assert.equal(known.ke2.length, unknown.ke2.length);
});

Deno.test("a registration that was begun under a setup retired meanwhile is refused", async () => {
  await using world = await AuthWorld.open();
  const auth = await world.admitted();
  const client = beginRegistration("right", world.realmId);
  const start = { userName: "alice", suiteId: 1, request: client.request, invitation: "" };
  const { handle, response } = await world.authenticator.registerStart(auth, start);
  await addSetup(world);
  await world.store.retireOpaqueSetup({ setupId: 1, force: false, namesMax: 1, now: world.clock.now() });
  await world.setups.refresh();
  const finish = {
    handle,
    record: client.finish(response).record,
    accountKey: new Uint8Array(32),
    wrappedAccountKey: utf8("wrapped"),
  };
  await rejectsWith(world.authenticator.registerFinish(auth, finish), "malformedRequest");
  assert.equal(await world.store.findAccountByName("alice"), null);
});

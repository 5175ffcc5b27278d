/** Devices and accounts of those who are logged in. */
import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { type AccountId, randomId } from "../../../mod/base/ids.ts";
import { AuthWorld, TestDevice } from "../../support/auth_world.ts";
import { rejectsWith } from "../../support/rejects.ts";

Deno.test("signDevice() takes the account key's signature over this device only", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const other = await TestDevice.make();
  const { auth, sessionId } = await world.login(user, device);
  const mallory = await world.register("mallory");
  await rejectsWith(world.signDevice(auth, { user, device: other }), "invalidSignature");
  const forged = { ...user, accountSigner: mallory.accountSigner };
  await rejectsWith(world.signDevice(auth, { user: forged, device }), "invalidSignature");
  assert.equal(await world.authenticator.isDeviceSigned(auth), false);
  const elsewhere = await world.resume({ sessionId, device });
  assert.equal(elsewhere.deviceSigned, false);
  await world.signDevice(auth, { user, device });
  assert.equal(auth.login?.deviceSigned, true);
  // The other connection of this device learns it from the store.
  assert.equal(await world.authenticator.isDeviceSigned(elsewhere.auth), true);
  assert.equal((await world.resume({ sessionId, device })).deviceSigned, true);
  assert.equal((await world.login(user, device)).deviceSigned, true);
});

Deno.test("listDevices() shows all of one's own; getAccount() of others the signed ones", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const [signed, unsigned] = [await TestDevice.make(), await TestDevice.make()];
  const { auth } = await world.login(user, signed);
  await world.signDevice(auth, { user, device: signed });
  await world.login(user, unsigned);
  const own = await world.authenticator.listDevices(auth);
  assert.deepEqual(own.map(({ deviceId }) => deviceId), [signed.deviceId, unsigned.deviceId]);
  const bob = await world.login(await world.register("bob"), await TestDevice.make());
  const seen = await world.authenticator.getAccount(bob.auth, user.accountId);
  assert.equal(seen.userName, "alice");
  assert.deepEqual(seen.accountKey, user.accountSigner.publicKey);
  assert.deepEqual(seen.devices.map(({ deviceId }) => deviceId), [signed.deviceId]);
  assert.equal((await world.authenticator.getAccount(auth, user.accountId)).devices.length, 2);
  await rejectsWith(world.authenticator.getAccount(auth, randomId<AccountId>()), "notFound");
});

Deno.test("revokeDevice() revokes one's own devices only, and tells which connections end", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const [first, second] = [await TestDevice.make(), await TestDevice.make()];
  const { auth } = await world.login(user, first);
  const lost = await world.login(user, second);
  const bob = await world.login(await world.register("bob"), await TestDevice.make());
  await rejectsWith(world.authenticator.revokeDevice(bob.auth, second.deviceId), "notFound");
  const { accountId } = user;
  await world.authenticator.revokeDevice(auth, second.deviceId);
  assert.deepEqual(world.ended.at(-1), { accountId, deviceId: second.deviceId });
  await rejectsWith(world.resume({ sessionId: lost.sessionId, device: second }), "deviceRevoked");
  await rejectsWith(world.login(user, second), "deviceConflict");
  await rejectsWith(world.authenticator.revokeDevice(auth, second.deviceId), "notFound");
  await world.authenticator.revokeDevice(auth, first.deviceId);
  assert.deepEqual(world.ended.at(-1), { accountId, deviceId: first.deviceId, initiator: auth });
});

Deno.test("deleteAccount() leaves nothing to log in to, and an account that looks like none", async () => {
  await using world = await AuthWorld.open();
  const user = await world.register("alice");
  const device = await TestDevice.make();
  const { auth, sessionId } = await world.login(user, device);
  const deleted = await world.authenticator.deleteAccount(auth);
  assert.deepEqual(deleted.devices, [device.deviceId]);
  assert.deepEqual(world.ended.at(-1), { accountId: user.accountId, initiator: auth });
  await rejectsWith(world.resume({ sessionId, device }), "loginFailed");
  const { finished } = await world.loginStart(world.connection(), user);
  assert.equal(finished, null);
  const bob = await world.login(await world.register("bob"), await TestDevice.make());
  await rejectsWith(world.authenticator.getAccount(bob.auth, user.accountId), "notFound");
  assert.equal(await world.store.findAccount(user.accountId), null);
});

Deno.test("connections have nonces of their own", async () => {
  await using world = await AuthWorld.open();
  const nonces = Array.from({ length: 8 }, () => world.connection().serverNonce.toHex());
  assert.equal(new Set(nonces).size, 8);
  assert.equal(nonces[0]!.length, 64);
  assert.notEqual(randomBytes(32).toHex(), nonces[0]);
});

/** Admission and registration: by token, by invitation, again after a reset. */
import assert from "node:assert/strict";
import { PENDING_MS } from "../../../mod/auth/pending.ts";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { ACCESS_TOKEN, AuthWorld, Signer, TestDevice } from "../../support/auth_world.ts";
import { beginRegistration } from "../../support/opaque_client.ts";
import { rejectsWith } from "../../support/rejects.ts";

const DAY_MS = 86_400_000;

Deno.test("admit() knows the right token, no token, and a wrong one", async () => {
  await using world = await AuthWorld.open();
  const auth = world.connection();
  assert.equal(await world.authenticator.admit(auth, ""), false);
  await rejectsWith(world.authenticator.admit(auth, "another"), "invalidToken");
  assert.equal(auth.admitted, false);
  assert.equal(await world.authenticator.admit(auth, ACCESS_TOKEN), true);
  assert.equal(auth.admitted, true);
});

Deno.test("admit() admits everybody when the server has no token", async () => {
  await using world = await AuthWorld.open({ open: true });
  assert.equal(await world.authenticator.admit(world.connection(), ""), true);
  assert.equal(await world.authenticator.admit(world.connection(), "anything"), true);
});

Deno.test("registration needs the token or an invitation", async () => {
  await using world = await AuthWorld.open();
  const alice = { userName: "alice", password: "right" };
  await rejectsWith(world.registerOn(world.connection(), alice), "tokenRequired");
});

Deno.test("registration by token tells that a name is taken, in any case, also a deleted account's", async () => {
  await using world = await AuthWorld.open();
  const alice = await world.register("Alice");
  await rejectsWith(world.register("alice"), "userNameTaken");
  await rejectsWith(world.register("ALICE"), "userNameTaken");
  const { auth } = await world.login(alice, await TestDevice.make());
  await world.authenticator.deleteAccount(auth);
  await rejectsWith(world.register("alice"), "userNameTaken");
});

Deno.test("two registrations of a name at once: one wins", async () => {
  await using world = await AuthWorld.open();
  const results = await Promise.allSettled([world.register("alice"), world.register("alice")]);
  assert.deepEqual(results.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
});

Deno.test("registration refuses names that are none, malformed messages, and keys out of bounds", async () => {
  await using world = await AuthWorld.open();
  const auth = await world.admitted();
  const { authenticator, realmId } = world;
  const invitation = "";
  for (const userName of ["", "-a", "a b", "ä", "a".repeat(65)]) {
    const start = { userName, suiteId: 1, request: randomBytes(32), invitation };
    await rejectsWith(authenticator.registerStart(auth, start), "userNameInvalid");
  }
  const client = beginRegistration("x", realmId);
  const start = { userName: "alice", suiteId: 1, request: client.request, invitation };
  await rejectsWith(authenticator.registerStart(auth, { ...start, suiteId: 9 }), "malformedRequest");
  await rejectsWith(
    authenticator.registerStart(auth, { ...start, request: new Uint8Array(32) }),
    "malformedRequest",
  );
  const { handle, response } = await authenticator.registerStart(auth, start);
  const { record } = client.finish(response);
  const good = { handle, record, accountKey: randomBytes(32), wrappedAccountKey: randomBytes(60) };
  for (const change of [{ accountKey: randomBytes(31) }, { wrappedAccountKey: randomBytes(257) }]) {
    await rejectsWith(authenticator.registerFinish(auth, { ...good, ...change }), "malformedRequest");
  }
  await rejectsWith(
    authenticator.registerFinish(auth, { ...good, wrappedAccountKey: new Uint8Array() }),
    "malformedRequest",
  );
  await rejectsWith(
    authenticator.registerFinish(auth, { ...good, record: new Uint8Array(192) }),
    "malformedRequest",
  );
  assert.equal(await world.store.findAccountByName("alice"), null);
});

Deno.test("a registration's handle works once, here, and for 60 s", async () => {
  await using world = await AuthWorld.open();
  const auth = await world.admitted();
  const begin = async (userName: string) => {
    const client = beginRegistration("x", world.realmId);
    const start = { userName, suiteId: 1, request: client.request, invitation: "" };
    const { handle, response } = await world.authenticator.registerStart(auth, start);
    const { record } = client.finish(response);
    return { handle, record, accountKey: randomBytes(32), wrappedAccountKey: randomBytes(60) };
  };
  const first = await begin("alice");
  await rejectsWith(world.authenticator.registerFinish(await world.admitted(), first), "malformedRequest");
  await world.authenticator.registerFinish(auth, first);
  await rejectsWith(world.authenticator.registerFinish(auth, first), "malformedRequest");
  const second = await begin("bob");
  await world.clock.advance(PENDING_MS);
  await rejectsWith(world.authenticator.registerFinish(auth, second), "malformedRequest");
  assert.equal(world.failures.length, 0); // they were no logins
});

Deno.test("an invitation admits once, until it expires, and however it is typed", async () => {
  await using world = await AuthWorld.open();
  const invite = async () => (await world.authenticator.invite(0)).code;
  const register = (userName: string, invitation: string) =>
    world.registerOn(world.connection(), { userName, password: "x", invitation });
  const code = await invite();
  await register("alice", code.toLowerCase().replaceAll("-", " "));
  await rejectsWith(register("bob", code), "registrationRefused");
  const late = await invite();
  await world.clock.advance(7 * DAY_MS);
  await rejectsWith(register("bob", late), "registrationRefused");
  await rejectsWith(register("bob", "no such invitation"), "registrationRefused");
  // A name that is taken looks like that too, and does not use the invitation up.
  const good = await invite();
  await rejectsWith(register("alice", good), "registrationRefused");
  await register("bob", good);
});

Deno.test("registerStart() by invitation answers alike whether invitation and name are good", async () => {
  await using world = await AuthWorld.open();
  await world.register("alice");
  const { code } = await world.authenticator.invite(0);
  const { request } = beginRegistration("x", world.realmId);
  for (const invitation of [code, "wrong"]) {
    for (const userName of ["alice", "bob"]) {
      const start = { userName, suiteId: 1, request, invitation };
      const { handle, response } = await world.authenticator.registerStart(world.connection(), start);
      assert.ok(handle > 0);
      assert.equal(response.length, 64);
    }
  }
});

Deno.test("a reset registers the same account again and drops its devices", async () => {
  await using world = await AuthWorld.open();
  const alice = await world.register("alice", "forgotten");
  const device = await TestDevice.make();
  const { sessionId } = await world.login(alice, device);
  await rejectsWith(world.authenticator.inviteToReset("nobody", 0), "notFound");
  const { code } = await world.authenticator.inviteToReset("Alice", 0);
  const again = { password: "new", invitation: code };
  // Records are bound to the name: another would lock the account out.
  await rejectsWith(
    world.registerOn(world.connection(), { ...again, userName: "bob" }),
    "registrationRefused",
  );
  const reset = await world.registerOn(world.connection(), { ...again, userName: "alice" });
  assert.equal(reset.accountId, alice.accountId);
  assert.deepEqual(world.ended.at(-1), { accountId: alice.accountId });
  await rejectsWith(world.resume({ sessionId, device }), "loginFailed");
  const login = await world.login(reset, await TestDevice.make());
  assert.deepEqual(login.accountKey, reset.accountSigner.publicKey);
  assert.equal((await world.store.listDevices(alice.accountId)).length, 1);
});

Deno.test("createInvitation() follows the policy, bounds open invitations and their lives", async () => {
  for (const policy of ["off", "token", "users"] as const) {
    await using world = await AuthWorld.open({ invitations: policy });
    const alice = await world.register("alice");
    const { auth } = await world.login(alice, await TestDevice.make());
    const withToken = await world.admitted();
    await world.loginOn(withToken, { user: alice, device: await TestDevice.make() });
    const create = (by: typeof auth) => world.authenticator.createInvitation(by, 0);
    if (policy !== "users") await rejectsWith(create(auth), "invitationsOff");
    if (policy === "off") await rejectsWith(create(withToken), "invitationsOff");
    if (policy !== "users") continue;
    const longest = await world.authenticator.createInvitation(auth, 365 * DAY_MS);
    assert.equal(longest.expiresAt, world.clock.now() + 7 * DAY_MS);
    const short = await world.authenticator.createInvitation(withToken, 1000);
    assert.equal(short.expiresAt, world.clock.now() + 1000);
    await rejectsWith(create(auth), "rateLimited");
    await world.clock.advance(1000);
    const { code } = await create(auth);
    await world.registerOn(world.connection(), { userName: "bob", password: "x", invitation: code });
  }
});

Deno.test("createInvitation() under the policy token works for those who showed it", async () => {
  await using world = await AuthWorld.open({ invitations: "token" });
  const alice = await world.register("alice");
  const auth = await world.admitted();
  await world.loginOn(auth, { user: alice, device: await TestDevice.make() });
  const { code } = await world.authenticator.createInvitation(auth, 0);
  await world.registerOn(world.connection(), { userName: "bob", password: "x", invitation: code });
});

Deno.test("everything that needs a login refuses without one", async () => {
  await using world = await AuthWorld.open();
  const auth = await world.admitted();
  const { accountId } = await world.register("alice");
  const { authenticator } = world;
  const signer = await Signer.make();
  const attempts: (() => Promise<unknown>)[] = [
    () => authenticator.logout(auth),
    () => authenticator.deleteAccount(auth),
    () => authenticator.changePasswordStart(auth, { suiteId: 1, request: randomBytes(32) }),
    () =>
      authenticator.changePasswordFinish(auth, {
        handle: 1,
        record: randomBytes(192),
        wrappedAccountKey: randomBytes(9),
      }),
    async () => await authenticator.listDevices(auth),
    async () => await authenticator.signDevice(auth, await signer.sign("qpq device key")),
    () => authenticator.getAccount(auth, accountId),
    () => authenticator.createInvitation(auth, 0),
    () => authenticator.isDeviceSigned(auth),
  ];
  for (const attempt of attempts) await rejectsWith(attempt(), "loginRequired");
});

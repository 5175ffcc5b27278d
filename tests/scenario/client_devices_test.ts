/** Devices, sessions and passwords of an account, as the client library sees them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type EntryId, randomId } from "../../mod/base/ids.ts";
import { type Client, QpqError } from "../../mod/client/mod.ts";
import { rejectsWith } from "../support/rejects.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { startTestServer } from "../support/test_server.ts";
import { drain, openClient, PASSWORD, texts } from "../support/test_user.ts";

Deno.test("a revoked device is removed from the groups and cannot read on", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const open = (name: string) => openClient(server, join(folder.path, name));
  const [phone, laptop, bob] = [await open("phone"), await open("laptop"), await open("bob")];
  await phone.register({ userName: "alice", password: PASSWORD });
  await bob.register({ userName: "bob", password: PASSWORD });
  await laptop.login({ userName: "alice", password: PASSWORD });
  await phone.createGroup("team", { users: ["bob"] });
  assert.equal(phone.members("team")[0]!.devices.length, 2);
  const { deviceId } = laptop.whoami()!;
  await assert.rejects(phone.revokeDevice(deviceId, { password: "wrong password" }), { code: "loginFailed" });
  await phone.revokeDevice(deviceId, { password: PASSWORD });
  assert.deepEqual(phone.members("team")[0]!.devices, [phone.whoami()!.deviceId]);
  await bob.send("team", "only the phone reads this");
  assert.deepEqual(await texts(phone), ["bob: only the phone reads this"]);
  await assert.rejects(drain(laptop), (error) => {
    assert(
      error instanceof QpqError && ["deviceRevoked", "loginRequired"].includes(error.code),
      String(error),
    );
    return true;
  });
  await Promise.all([phone.close(), laptop.close(), bob.close()]);
});

Deno.test("nothing is sent to a device that its account does not name any more", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const open = (name: string) => openClient(server, join(folder.path, name));
  const [phone, laptop, bob] = [await open("phone"), await open("laptop"), await open("bob")];
  await phone.register({ userName: "alice", password: PASSWORD });
  await bob.register({ userName: "bob", password: PASSWORD });
  await laptop.login({ userName: "alice", password: PASSWORD });
  await phone.createGroup("team", { users: ["bob"] });
  // Gone before Bob hears of the group, and nobody has committed it yet: he cannot check the laptop any more.
  const { accountId, deviceId } = laptop.whoami()!;
  const now = Date.now();
  const silent = { entryId: randomId<EntryId>(), payload: new Uint8Array(0), expiresAt: now + 60_000 };
  await server.server.context.store.revokeDevice(accountId, deviceId, silent, now);
  await drain(bob);
  assert.equal(bob.members("team")[0]!.own, true);
  assert.equal(bob.members("team")[1]!.devices.length, 2);
  await bob.send("team", "hello");
  assert.deepEqual(bob.members("team")[1]!.devices, [phone.whoami()!.deviceId]);
  assert.deepEqual(await texts(phone), ["bob: hello"]);
  await Promise.all([phone.close(), laptop.close(), bob.close()]);
});

Deno.test("a new device joins groups that a following client knows, by itself", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const open = (name: string) => openClient(server, join(folder.path, name));
  const [phone, laptop, bob] = [await open("phone"), await open("laptop"), await open("bob")];
  await phone.register({ userName: "alice", password: PASSWORD });
  await bob.register({ userName: "bob", password: PASSWORD });
  await phone.createGroup("team", { users: ["bob"] });
  const stop = new AbortController();
  const following = Array.fromAsync(phone.receive({ follow: true, signal: stop.signal }));
  await laptop.login({ userName: "alice", password: PASSWORD });
  for await (const event of laptop.receive({ follow: true })) {
    if (event.kind !== "joined") continue;
    assert.deepEqual([event.group, event.from, event.own], ["team", "alice", true]);
    break;
  }
  await bob.send("team", "hello devices");
  assert.deepEqual(await texts(laptop), ["bob: hello devices"]);
  stop.abort();
  assert.ok((await following).some((event) => event.kind === "deviceAdded"));
  await Promise.all([phone.close(), laptop.close(), bob.close()]);
});

async function registered(open: (name: string) => Promise<Client>): Promise<Client> {
  const alice = await open("alice");
  await alice.register({ userName: "alice", password: PASSWORD, deviceName: "phone" });
  return alice;
}

Deno.test("changePassword() ends other sessions; only the new password logs in", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const open = (name: string) => openClient(server, join(folder.path, name));
  const alice = await registered(open);
  const laptop = await open("laptop");
  await laptop.login({ userName: "alice", password: PASSWORD });
  await alice.changePassword({ password: PASSWORD, newPassword: "an even better one" });
  assert.equal((await alice.devices()).length, 2);
  await assert.rejects(laptop.devices(), (error) => error instanceof QpqError);
  await assert.rejects(laptop.login({ userName: "alice", password: PASSWORD }), { code: "loginFailed" });
  await laptop.login({ userName: "alice", password: "an even better one" });
  await Promise.all([alice.close(), laptop.close()]);
});

Deno.test("logout() keeps the groups for the next login", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const open = (name: string) => openClient(server, join(folder.path, name));
  const alice = await registered(open);
  await alice.createGroup("notes");
  await alice.logout();
  assert.equal(alice.whoami()!.loggedIn, false);
  await rejectsWith(alice.devices(), "loginRequired");
  await rejectsWith(alice.login({ userName: "bob", password: PASSWORD }), "deviceConflict");
  await alice.login({ userName: "alice", password: PASSWORD });
  assert.deepEqual(alice.groups().map((group) => group.name), ["notes"]);
  assert.deepEqual((await alice.devices()).map((device) => device.name), ["phone"]);
  await alice.close();
});

Deno.test("deleteAccount() empties the state; the name stays taken", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const alice = await registered((name) => openClient(server, join(folder.path, name)));
  await alice.createGroup("notes");
  await alice.deleteAccount({ password: PASSWORD });
  assert.equal(alice.whoami(), null);
  assert.deepEqual(alice.files(), []);
  await rejectsWith(alice.register({ userName: "alice", password: PASSWORD }), "userNameTaken");
  await alice.close();
});

Deno.test("an invitation admits somebody without the access token, once", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const alice = await registered((name) => openClient(server, join(folder.path, name)));
  const { invitation } = await alice.createInvitation();
  const open = (name: string) => openClient(server, join(folder.path, name), { accessToken: "" });
  await using guest = await open("guest");
  await rejectsWith(guest.register({ userName: "guest", password: PASSWORD }), "tokenRequired");
  await guest.register({ userName: "guest", password: PASSWORD, invitation });
  await using second = await open("second");
  await rejectsWith(
    second.register({ userName: "second", password: PASSWORD, invitation }),
    "registrationRefused",
  );
  await alice.close();
});

Deno.test("a wrong access token is refused, but not from those who are logged in", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const state = join(folder.path, "alice");
  const alice = await openClient(server, state);
  await alice.register({ userName: "alice", password: PASSWORD });
  await alice.close();
  await using stale = await openClient(server, state, { accessToken: "rotated away" });
  assert.equal((await stale.devices()).length, 1);
  await using stranger = await openClient(server, join(folder.path, "new"), { accessToken: "wrong" });
  await rejectsWith(stranger.ping(), "invalidToken");
});

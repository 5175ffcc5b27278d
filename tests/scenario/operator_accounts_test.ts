/** What operators do to accounts, devices and queues of a running server, as the clients concerned meet it. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { hex, randomBytes, sha256, utf8 } from "../../mod/base/bytes.ts";
import { login, makeDevice, register } from "../../mod/client/session.ts";
import { CLOSE_CODES } from "../../mod/protocol/close_codes.ts";
import { rejectsWith } from "../support/rejects.ts";
import { control } from "../support/steady_clients.ts";
import { connectTo, newAccount, newDevice, type TestClient } from "../support/test_client.ts";
import { startTestServer } from "../support/test_server.ts";

async function* chunksOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

async function closedBecause(client: TestClient): Promise<number> {
  return (await client.link.transport.closed).code;
}

Deno.test("user disable ends the account's connections and sessions, and enable lets it in again", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  const would = await control(server.dataDir, "user disable", { user: "alice", dryRun: true });
  assert.deepEqual([would["changes"], would["enabled"]], [true, true]);
  await alice.connection.call("ping", {});
  await control(server.dataDir, "user disable", { user: "Alice" });
  assert.equal(await closedBecause(alice), CLOSE_CODES.sessionEnded);
  await rejectsWith(alice.again(server), "accountDisabled");
  await rejectsWith(newDevice(server, "alice"), "accountDisabled");
  await bob.connection.call("ping", {});
  await bob.enqueue([alice.deviceId], { payload: utf8("for later") });
  assert.equal((await control(server.dataDir, "user disable", { user: "alice" }))["changes"], false);
  await control(server.dataDir, "user enable", { user: alice.own.account.accountId });
  await using again = await newDevice(server, "alice");
  await again.connection.call("ping", {});
  const shown = await control(server.dataDir, "user show", { user: "alice" });
  const [device] = shown["devices"] as { entries: number }[];
  assert.deepEqual([shown["enabled"], shown["canLogIn"], device!.entries >= 1], [true, true, true]);
});

Deno.test("user delete closes the connections, frees the blobs and keeps the name", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  const { store } = server.server.context;
  const bytes = randomBytes(5000);
  const hash = await sha256(bytes);
  await alice.connection.putBlob({ sha256: hash, size: 5000n }, chunksOf(bytes));
  const blob = join(server.dataDir, "blobs", hex(hash).slice(0, 2), hex(hash).slice(2));
  assert.equal((await Deno.stat(blob)).size, 5000);
  await control(server.dataDir, "user delete", { user: "alice", dryRun: true });
  await alice.connection.call("ping", {});
  const deleted = await control(server.dataDir, "user delete", { user: "alice" });
  assert.deepEqual([deleted["deleted"], deleted["devices"]], [true, 1]);
  assert.equal(await closedBecause(alice), CLOSE_CODES.sessionEnded);
  const { accounts, blobs } = await store.counts();
  assert.deepEqual([accounts, blobs], [0, 0]);
  await assert.rejects(Deno.stat(blob), Deno.errors.NotFound);
  await rejectsWith(newAccount(server, "alice"), "userNameTaken");
  await assert.rejects(control(server.dataDir, "user show", { user: "alice" }), /no user alice.*user list/);
});

Deno.test("device revoke closes that device's connection alone and tells the account's others", async () => {
  await using server = await startTestServer();
  await using phone = await newAccount(server, "alice");
  await using desk = await newDevice(server, "alice");
  const { cursor } = await desk.connection.call("fetch", {});
  const short = phone.own.device.deviceId.slice(0, 12);
  const would = await control(server.dataDir, "device revoke", { device: short, dryRun: true });
  assert.deepEqual([would["revoked"], would["deviceId"]], [false, phone.own.device.deviceId]);
  await phone.connection.call("ping", {});
  await control(server.dataDir, "device revoke", { device: short });
  assert.equal(await closedBecause(phone), CLOSE_CODES.sessionEnded);
  await rejectsWith(phone.again(server), "deviceRevoked");
  const { entries } = await desk.connection.call("fetchWait", {
    fetch: { after: cursor!.nextSeq - 1n },
    timeoutMs: 1000,
  });
  assert.equal(entries.length, 1, "the notice");
  await assert.rejects(control(server.dataDir, "device revoke", { device: short }), /There is no device/);
});

Deno.test("device ids: too short, no hex, ambiguous, each with what to do", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  const { deviceId } = alice.own.device;
  const twin = deviceId.slice(0, 31) + (deviceId.endsWith("0") ? "1" : "0");
  const { store, authenticator } = server.server.context;
  assert.ok(authenticator);
  await store.createSession({
    sessionId: "ab".repeat(16) as never,
    accountId: alice.own.account.accountId,
    deviceId: twin as never,
    deviceKey: new Uint8Array(32),
    deviceName: "twin",
    devicesMax: 10,
    deviceAddedNotice: {
      entryId: "cd".repeat(16) as never,
      payload: utf8("n"),
      expiresAt: Date.now() + 60_000,
    },
    now: Date.now(),
  });
  const revoke = (device: string) => control(server.dataDir, "device revoke", { device });
  await assert.rejects(
    revoke(deviceId.slice(0, 20)),
    /Several devices begin with .*\(alice\).*give more digits/,
  );
  await assert.rejects(revoke("ab"), /at least 4 digits/);
  await assert.rejects(revoke("my phone"), /no device id.*device list USER/);
  const { devices } = await control(server.dataDir, "device list", { user: "alice" }) as {
    devices: unknown[];
  };
  assert.equal(devices.length, 2);
});

Deno.test("queue purge deletes what waits, and the recipient sees that something was lost", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  for (let i = 0; i < 3; i++) await bob.enqueue([alice.deviceId], { payload: utf8(`${i}`) });
  const { deviceId } = alice.own.device;
  const { queues, entries } = await control(server.dataDir, "queue stats") as {
    queues: { deviceId: string; entries: number; userName: string }[];
    entries: number;
  };
  assert.deepEqual([queues[0]!.deviceId, queues[0]!.userName, entries], [deviceId, "alice", 3]);
  const one = await control(server.dataDir, "queue stats", { device: deviceId.slice(0, 8) });
  assert.deepEqual([one["entries"], one["nextSeq"]], [3, 4]);
  const would = await control(server.dataDir, "queue purge", { device: deviceId, dryRun: true });
  assert.deepEqual([would["purged"], would["entries"]], [false, 3]);
  const purged = await control(server.dataDir, "queue purge", { device: deviceId });
  assert.deepEqual([purged["purged"], purged["entries"]], [true, 3]);
  const { entries: left, cursor } = await alice.connection.call("fetch", {});
  assert.equal(left.length, 0);
  assert.deepEqual([cursor!.droppedCount, cursor!.droppedThrough], [3n, 3n]);
});

Deno.test("user invite admits somebody once; user reset gives the same account to a new password", async () => {
  await using server = await startTestServer();
  const { invitation } = await control(server.dataDir, "user invite", { ttlMs: 3_600_000 });
  const accept = async (userName: string, code: unknown) => {
    const link = await connectTo(server, { accessToken: "" });
    try {
      const accountId = await register(link, { userName, password: "pw", invitation: String(code) });
      await login(link, { userName, password: "pw", device: await makeDevice("x") });
      return accountId;
    } finally {
      await link.connection[Symbol.asyncDispose]();
    }
  };
  const accountId = await accept("carol", invitation);
  await rejectsWith(accept("dave", invitation), "registrationRefused");
  await using alice = await newAccount(server, "alice");
  const reset = await control(server.dataDir, "user reset", { user: "alice" });
  await alice.connection.call("ping", {}); // nothing happens before it is used
  assert.equal(await accept("alice", reset["invitation"]), alice.own.account.accountId);
  assert.equal(await closedBecause(alice), CLOSE_CODES.sessionEnded);
  assert.notEqual(accountId, alice.own.account.accountId);
  const year = { ttlMs: 365 * 86_400_000 };
  await assert.rejects(control(server.dataDir, "user invite", year), /ttlMs must be a whole number from/);
});

Deno.test("user list is in pages, by names, with the numbers that an operator looks for", async () => {
  await using server = await startTestServer();
  await using bob = await newAccount(server, "bob");
  await using alice = await newAccount(server, "alice");
  await bob.enqueue([alice.deviceId], { payload: utf8("hello") });
  type List = { users: { userName: string; queueEntries: number; devices: number }[]; more: boolean };
  const all = await control(server.dataDir, "user list") as unknown as List;
  assert.deepEqual(all.users.map(({ userName, devices }) => [userName, devices]), [["alice", 1], ["bob", 1]]);
  assert.deepEqual([all.users[0]!.queueEntries, all.more], [1, false]);
  const some = await control(server.dataDir, "user list", { limit: 1 }) as unknown as List;
  assert.deepEqual([some.users.length, some.more], [1, true]);
  const b = await control(server.dataDir, "user list", { beginning: "B" }) as unknown as List;
  assert.deepEqual(b.users.map(({ userName }) => userName), ["bob"]);
});

/** The OPAQUE setup is rotated: who logs in moves to it unnoticed, an old one ends only when nobody needs it. */
import assert from "node:assert/strict";
import { utf8, utf8Text } from "../../mod/base/bytes.ts";
import { type ServerLink } from "../../mod/client/identity.ts";
import { login, makeDevice, register } from "../../mod/client/session.ts";
import { beginLogin } from "../support/opaque_client.ts";
import { rejectsWith } from "../support/rejects.ts";
import { control } from "../support/steady_clients.ts";
import { connectTo, newAccount, newDevice, PASSWORD, STRETCHED } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";

/** Accounts of each setup that is not retired. */
async function accountsBySetup({ server }: TestServer): Promise<[number, number][]> {
  const accounts = await server.context.store.accountsBySetup();
  return accounts.map((each) => [each.setupId, each.accounts]);
}

/** Gauge by its label. */
async function opaqueGauge({ server }: TestServer, setup: string): Promise<number> {
  const { body } = await server.context.metrics.expose();
  return Number(new RegExp(`^qpq_opaque_accounts\\{setup="${setup}"\\} (\\d+)$`, "m").exec(body)![1]);
}

/** KE2 for one KE1, as anybody can ask for it. */
async function ke2Of(server: TestServer, userName: string, ke1: Uint8Array): Promise<Uint8Array> {
  const link = await connectTo(server);
  const { ke2 } = await link.connection.call("loginStart", { userName, suiteIds: [1], ke1 });
  await link.connection[Symbol.asyncDispose]();
  return ke2;
}

/** The part of KE2 that depends on the OPRF seed and the name alone (RFC 9807 §6.1.1: evaluated_message). */
function evaluated(ke2: Uint8Array): string {
  return ke2.subarray(0, 32).toHex();
}

Deno.test("rotate opaque: an account moves at its next login; its other connections and waiting messages stay", async () => {
  await using server = await startTestServer();
  await using phone = await newAccount(server, "alice", STRETCHED);
  const pushes = phone.connection.subscribe({ after: 0n, creditBytes: 1 << 20 });
  await pushes.next();
  const answer = await control(server.dataDir, "rotate opaque");
  assert.deepEqual([answer["setupId"], answer["version"]], [2, 2]);
  assert.deepEqual(await accountsBySetup(server), [[1, 1], [2, 0]]);
  assert.deepEqual([await opaqueGauge(server, "current"), await opaqueGauge(server, "retired")], [0, 1]);
  await using desk = await newDevice(server, "alice", STRETCHED);
  assert.deepEqual(await accountsBySetup(server), [[1, 0], [2, 1]]);
  assert.deepEqual([await opaqueGauge(server, "current"), await opaqueGauge(server, "retired")], [1, 0]);
  await desk.enqueue([phone.deviceId], { payload: utf8("still there") });
  const texts: string[] = [];
  while (!texts.includes("still there")) {
    const { value, done } = await pushes.next();
    assert.ok(!done, "the subscription of the other device is open");
    const messages = value!.entries.filter(({ senderDeviceId }) => senderDeviceId.length > 0);
    texts.push(...messages.map(({ payload }) => utf8Text(payload)));
  }
  await using resumed = await phone.again(server);
  await resumed.connection.call("ping", {});
  // The account key came along: yet another device is signed with it.
  await using third = await newDevice(server, "alice", STRETCHED);
  const { devices } = await third.connection.call("listDevices", {});
  assert.ok(devices.every(({ accountSignature }) => accountSignature.length > 0));
  assert.deepEqual(await accountsBySetup(server), [[1, 0], [2, 1]]);
});

Deno.test("rotate opaque: new accounts use the new setup, also after a restart", async () => {
  await using server = await startTestServer();
  await control(server.dataDir, "rotate opaque");
  await using _bob = await newAccount(server, "bob", STRETCHED);
  assert.deepEqual(await accountsBySetup(server), [[1, 0], [2, 1]]);
  await server.stop();
  await using again = await startTestServer({ dataDir: server.dataDir });
  await using device = await newDevice(again, "bob", STRETCHED);
  await device.connection.call("ping", {});
});

Deno.test("rotate opaque --retire refuses while it would lock out; forced it names who needs a reset, which works", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice", STRETCHED);
  await using _bob = await newAccount(server, "bob", STRETCHED);
  const retire = (input: Record<string, boolean> = {}) =>
    control(server.dataDir, "rotate opaque", { retire: 1, ...input });
  await assert.rejects(retire(), /Setup 1 is the newest/);
  await control(server.dataDir, "rotate opaque");
  await using _again = await newDevice(server, "bob", STRETCHED);
  await assert.rejects(retire(), /would lock out 1 account that has not logged in since: alice\./);
  await assert.rejects(
    control(server.dataDir, "rotate opaque", { retire: 7 }),
    /no OPAQUE setup 7: there are 1, 2/,
  );
  const would = await retire({ force: true, dryRun: true });
  assert.deepEqual(would["lockedOut"], ["alice"]);
  const did = await retire({ force: true });
  assert.deepEqual([did["lockedOut"], did["lockedOutCount"]], [["alice"], 1]);
  assert.equal((await retire())["changes"], false);
  await rejectsWith(newDevice(server, "alice", STRETCHED), "loginFailed");
  await alice.connection.call("ping", {});
  await using bob = await newDevice(server, "bob", STRETCHED);
  await bob.connection.call("ping", {});

  const { invitation } = await control(server.dataDir, "user reset", { user: "alice" });
  const link = await connectTo(server, { accessToken: "" });
  const accountId = await register(link, {
    userName: "alice",
    password: "another",
    invitation: String(invitation),
  });
  assert.equal(accountId, alice.own.account.accountId);
  await login(link, { userName: "alice", password: "another", device: await makeDevice("new phone") });
  await link.connection[Symbol.asyncDispose]();
  assert.deepEqual(await accountsBySetup(server), [[1, 0], [2, 2]]);
});

Deno.test("rotate opaque keeps the seed: answers for known and unknown names stay what they were", async () => {
  await using server = await startTestServer();
  await using _alice = await newAccount(server, "alice", STRETCHED);
  const { ke1 } = beginLogin("guess", server.server.context.store.realmId);
  const names = ["alice", "nobody"];
  const answers = () => Promise.all(names.map((name) => ke2Of(server, name, ke1)));
  const before = await answers();
  await control(server.dataDir, "rotate opaque");
  const between = await answers();
  await using _moved = await newDevice(server, "alice", STRETCHED);
  const after = await answers();
  await control(server.dataDir, "rotate opaque", { retire: 1 });
  for (const later of [between, after, await answers()]) {
    assert.deepEqual(later.map(evaluated), before.map(evaluated));
    assert.deepEqual(later.map((ke2) => ke2.length), before.map((ke2) => ke2.length));
  }
});

Deno.test("rotate opaque --new-seed: unknown names are answered as before until the old setup is retired", async () => {
  await using server = await startTestServer();
  await using _alice = await newAccount(server, "alice", STRETCHED);
  await using _carol = await newAccount(server, "carol", STRETCHED);
  const { ke1 } = beginLogin("guess", server.server.context.store.realmId);
  const ask = async (name: string) => evaluated(await ke2Of(server, name, ke1));
  const [unknown, waiting, moving] = [await ask("nobody"), await ask("carol"), await ask("alice")];
  const answer = await control(server.dataDir, "rotate opaque", { newSeed: true });
  assert.match((answer["notes"] as string[]).join("\n"), /Unknown names are answered under the oldest setup/);
  await using _moved = await newDevice(server, "alice", STRETCHED);
  // Who has not logged in since is not to be told from nobody; who has moved is.
  assert.deepEqual([await ask("nobody"), await ask("carol")], [unknown, waiting]);
  assert.notEqual(await ask("alice"), moving);
  await control(server.dataDir, "rotate opaque", { retire: 1, force: true });
  assert.notEqual(await ask("nobody"), unknown);
});

Deno.test("rotate opaque: wrong and unknown passwords are refused alike during the migration", async () => {
  await using server = await startTestServer();
  await using _alice = await newAccount(server, "alice", STRETCHED);
  await control(server.dataDir, "rotate opaque");
  const attempt = async (link: ServerLink, userName: string) =>
    await login(link, { userName, password: `${PASSWORD}?`, device: await makeDevice("x") });
  for (const userName of ["alice", "nobody"]) {
    const link = await connectTo(server);
    await rejectsWith(attempt(link, userName), "loginFailed");
    await link.connection[Symbol.asyncDispose]();
  }
  const unknown = await ke2Of(server, "nobody", beginLogin("x", server.server.context.store.realmId).ke1);
  const known = await ke2Of(server, "alice", beginLogin("x", server.server.context.store.realmId).ke1);
  assert.equal(unknown.length, known.length);
});

Deno.test("rotate opaque --dry-run adds nothing, and flags that do not go together are refused", async () => {
  await using server = await startTestServer();
  await control(server.dataDir, "rotate opaque", { dryRun: true });
  assert.equal((await server.server.context.store.opaqueSetups()).length, 1);
  await assert.rejects(
    control(server.dataDir, "rotate opaque", { newSeed: true, retire: 1 }),
    /two commands/,
  );
  await assert.rejects(control(server.dataDir, "rotate opaque", { force: true }), /belongs to --retire/);
});

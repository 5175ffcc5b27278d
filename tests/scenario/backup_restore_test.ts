/** A running server that is backed up, lost and restored, and what its clients and its metrics make of it. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { callControl, type JsonObject } from "../../mod/admin/control.ts";
import { backupVerify } from "../../mod/admin/backup_operations.ts";
import { runStopped } from "../../mod/admin/operations_stopped.ts";
import { backupRestore } from "../../mod/admin/restore_operation.ts";
import { equal } from "../../mod/base/bytes.ts";
import { type EntryId, randomId } from "../../mod/base/ids.ts";
import type { StoreBackend } from "../../mod/store/open.ts";
import { systemClock } from "../../mod/base/clock.ts";
import type { Client } from "../../mod/client/mod.ts";
import { diskFile } from "../../mod/config/disk_file.ts";
import { load } from "../../mod/config/load.ts";
import { deviceRevokedNotice } from "../../mod/server/notices.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { drain, openClient, PASSWORD, texts } from "../support/test_user.ts";

async function backUp(server: TestServer): Promise<string> {
  const made = await callControl(server.dataDir, { name: "backup create" }) as JsonObject;
  return made["path"] as string;
}

async function restore(backup: string, dataDir: string, backend: StoreBackend): Promise<JsonObject> {
  const flags = { "data-dir": dataDir, "store-backend": backend };
  const { settings } = load({ env: {}, flags, readFile: diskFile, purpose: "tool" });
  return await runStopped(backupRestore, {
    settings,
    input: { path: backup, to: dataDir, force: true },
    deviceRevokedNotice: (device) => deviceRevokedNotice({ clock: systemClock, settings }, device),
  });
}

async function login(client: Client, userName: string): Promise<void> {
  await client.login({ userName, password: PASSWORD });
}

for (const backend of ["sqlcipher", "file"] as const) {
  Deno.test(`${backend}: two clients carry on after their server was restored from a backup`, async () => {
    await using folder = await tempFolder();
    const dataDir = join(folder.path, "data");
    await Deno.mkdir(dataDir);
    const flags = { "store-backend": backend };
    let server = await startTestServer({ dataDir, flags });
    const open = (name: string) => openClient(server, join(folder.path, name));
    let [alice, bob, laptop] = [await open("alice"), await open("bob"), await open("laptop")];
    await alice.register({ userName: "alice", password: PASSWORD });
    await bob.register({ userName: "bob", password: PASSWORD });
    await laptop.login({ userName: "alice", password: PASSWORD, deviceName: "laptop" });
    await alice.createGroup("friends", { users: ["bob"] });
    await alice.send("friends", "seen before the backup");
    assert.deepEqual(await texts(bob), ["alice: seen before the backup"]);
    await alice.send("friends", "in the backup, read after it");

    const backup = await backUp(server);
    assert.deepEqual(await texts(bob), ["alice: in the backup, read after it"]);
    // After the backup: a KeyPackage of Bob is used, and Alice's laptop is revoked.
    const bobsDevice = bob.whoami()!;
    const { store } = server.server.context;
    const claimed = await claimOne(store, bobsDevice.accountId);
    const lost = laptop.whoami()!.deviceId;
    await alice.revokeDevice(lost, { password: PASSWORD });
    assert.deepEqual(await texts(bob), []); // he takes the commit that removes it
    const incarnation = store.incarnation;
    await Promise.all([alice.close(), bob.close(), laptop.close()]);
    await server.stop();

    const report = await restore(backup, dataDir, backend);
    assert.equal((report["revocations"] as Record<string, number>)["devicesRevoked"], 1);

    server = await startTestServer({ dataDir, flags });
    assert.ok(!equal(server.server.context.store.incarnation, incarnation));
    assert.equal((await server.server.context.store.counts()).keyPackages, 0);
    [alice, bob, laptop] = [await open("alice"), await open("bob"), await open("laptop")];
    await login(alice, "alice");
    await login(bob, "bob");
    // The message that the backup still held comes again from the server; Bob has seen it.
    assert.deepEqual(await texts(bob), []);
    await alice.upkeep();
    await bob.upkeep();
    assert.ok(
      (await server.server.context.store.counts()).keyPackages > 0,
      "fresh KeyPackages were uploaded",
    );
    const again = await claimOne(server.server.context.store, bobsDevice.accountId);
    assert.ok(!equal(again, claimed), "the KeyPackage that was used before came back");

    await alice.send("friends", "after the restore");
    await bob.send("friends", "I am still here");
    assert.deepEqual(await texts(bob), ["alice: after the restore"]);
    assert.deepEqual(await texts(alice), ["bob: I am still here"]);
    assert.ok(
      !(await alice.devices()).some((device) => device.deviceId === lost),
      "the revoked device is back",
    );
    await assert.rejects(drain(laptop));

    await Promise.all([alice.close(), bob.close(), laptop.close()]);
    await server.stop();
  });
}

type Store = TestServer["server"]["context"]["store"];

async function claimOne(store: Store, accountId: Parameters<Store["listDevices"]>[0]): Promise<Uint8Array> {
  const suites = await Promise.all(
    (await store.listDevices(accountId)).map((device) => store.countKeyPackages(device.deviceId, Date.now())),
  );
  const suite = suites.flat()[0]!.suite;
  const [claimed] = await store.claimKeyPackages(
    {
      accountId,
      suite,
      devices: null,
      lastResortOnly: false,
      lowBelow: 0,
      lowNotice: { entryId: randomId<EntryId>(), payload: new Uint8Array(1), expiresAt: Date.now() + 60_000 },
      now: Date.now(),
    },
  );
  return new Uint8Array(claimed!.bytes);
}

Deno.test("a stop in the middle of a backup ends it, and leaves nothing behind", async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, "data");
  await Deno.mkdir(dataDir);
  const server = await startTestServer({ dataDir });
  const creating = callControl(dataDir, { name: "backup create" }).then(() => "made", () => "ended");
  await server.stop();
  const outcome = await creating;
  const names = await Array.fromAsync(Deno.readDir(join(dataDir, "backups")), ({ name }) => name);
  assert.equal(names.length, outcome === "made" ? 1 : 0);
});

Deno.test("a backup that is made under load is consistent, and the load goes on", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const [alice, bob] = await Promise.all(
    ["alice", "bob"].map((name) => openClient(server, join(folder.path, name))),
  ) as [Client, Client];
  await alice.register({ userName: "alice", password: PASSWORD });
  await bob.register({ userName: "bob", password: PASSWORD });
  await alice.createGroup("friends", { users: ["bob"] });
  const stop = new AbortController();
  let [sent, duringBackup] = [0, 0];
  const sending = (async () => {
    while (!stop.signal.aborted) await alice.send("friends", `message ${sent++}`);
  })();
  const before = sent;
  const backup = await backUp(server);
  duringBackup = sent - before;
  stop.abort();
  await sending;
  assert.ok(duringBackup > 0, "nobody could send while the backup was made");
  const verified = await callControl(server.dataDir, {
    name: backupVerify.name,
    input: { path: backup },
  }) as JsonObject;
  assert.deepEqual([verified["ok"], verified["problems"]], [true, []]);
  assert.equal((await texts(bob)).length, sent);
  await Promise.all([alice.close(), bob.close()]);
});

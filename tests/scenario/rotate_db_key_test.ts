/** The database key is rotated under load, on both stores, killed in the middle, and where the key is the operator's. */
import assert from "node:assert/strict";
import { statfs } from "node:fs/promises";
import { join } from "node:path";
import { callControl } from "../../mod/admin/control.ts";
import { randomBytes, utf8, utf8Text } from "../../mod/base/bytes.ts";
import { openStore, type StoreBackend } from "../../mod/store/open.ts";
import { prng } from "../support/prng.ts";
import { freeUdpPort, ServerProcess } from "../support/server_process.ts";
import { control, SteadyClients } from "../support/steady_clients.ts";
import { canMount, mountTmpfs } from "../support/tmpfs.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { newAccount, newDevice, type TestClient } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";

const OLD_KEY = "11223344556677889900aabbccddeeff".repeat(2);
const NEW_KEY = "ffeeddccbbaa00998877665544332211".repeat(2);

async function keyLines(dataDir: string, name = "db-key"): Promise<string[]> {
  return (await Deno.readTextFile(join(dataDir, "secrets", name))).trim().split("\n");
}

/** Does the stopped server's store open with exactly this key? */
async function opensWith(
  dataDir: string,
  key: string,
  backend: StoreBackend = "sqlcipher",
): Promise<boolean> {
  try {
    await (await openStore({ backend, dataDir, keys: [key], mustExist: true })).close();
    return true;
  } catch (error) {
    assert.equal((error as { problem?: string }).problem, "wrongKey");
    return false;
  }
}

async function oldStores(dataDir: string): Promise<string[]> {
  const names = await Array.fromAsync(Deno.readDir(dataDir), ({ name }) => name);
  return names.filter((name) => /^(qpq\.db|journal)\./.test(name) && !/-(wal|shm)$/.test(name));
}

/** Texts that wait for a device, in order. */
async function waiting(client: TestClient): Promise<string[]> {
  const texts: string[] = [];
  for (let after = 0n;;) {
    const { entries, empty } = await client.connection.call("fetch", { after });
    texts.push(
      ...entries.filter(({ senderDeviceId }) => senderDeviceId.length > 0).map((each) =>
        utf8Text(each.payload)
      ),
    );
    if (empty) return texts;
    after = entries.at(-1)!.seq;
  }
}

for (const backend of ["sqlcipher", "file"] as const) {
  Deno.test(`rotate db-key (${backend}): clients stay, and everything acknowledged is there under the new key alone`, async () => {
    await using folder = await tempFolder();
    const dataDir = join(folder.path, "data");
    const server = await startTestServer({ dataDir, flags: { "store-backend": backend } });
    const [old] = await keyLines(dataDir);
    const sent: string[] = [];
    {
      await using clients = await SteadyClients.start(server, "alice");
      await using bob = await newAccount(server, "bob");
      await using sender = await newAccount(server, "sender");
      await clients.send("before");
      const rotation = control(dataDir, "rotate db-key");
      let over = false;
      rotation.finally(() => over = true).catch(() => {});
      while (!over) {
        const batch = Array.from({ length: 20 }, (_, i) => `message ${sent.length + i}`);
        sent.push(...batch);
        await Promise.all(batch.map((text) => sender.enqueue([bob.deviceId], { payload: utf8(text) })));
        await clients.send(`during ${sent.length}`);
      }
      const answer = await rotation;
      assert.deepEqual([answer["changes"], answer["version"]], [true, 2]);
      await clients.send("after");
      await clients.lostNothing();
      assert.deepEqual((await waiting(bob)).sort(), [...sent].sort());
      await using again = await bob.again(server);
      await again.connection.call("ping", {});
    }
    const [wanted, ...others] = await keyLines(dataDir);
    assert.match(wanted!, /^[0-9a-f]{64}$/);
    assert.notEqual(wanted, old);
    assert.deepEqual(others, []);
    assert.deepEqual(await keyLines(dataDir, "db-key.old"), [old]);
    assert.deepEqual(await oldStores(dataDir), []);
    const reload = await control(dataDir, "reload");
    assert.deepEqual(reload["restart"], [], "the rotated key is no change of the configuration");
    const audit = await Deno.readTextFile(join(dataDir, "audit.log"));
    assert.ok(!audit.includes(wanted!) && !audit.includes(old!));
    await server.stop();
    assert.equal(await opensWith(dataDir, old!, backend), false);
    assert.equal(await opensWith(dataDir, wanted!, backend), true);
  });
}

Deno.test("rotate db-key: killed at moments of its progress, the server starts and has every acknowledged message", async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, "data");
  const port = freeUdpPort();
  const random = prng(20261122);
  const sent: string[] = [];
  let bob: TestClient | null = null;
  let killed = 0;
  for (let round = 0; round < 6; round++) {
    await using server = await ServerProcess.start({ dataDir, port });
    const receiver: TestClient = bob ? await bob.again(server) : await newAccount(server, "bob");
    bob = receiver;
    assert.deepEqual((await waiting(receiver)).sort(), [...sent].sort(), `before round ${round}`);
    await using sender = await newAccount(server, `sender${round}`);
    for (let i = 0; i < 40; i++) {
      const text = `${round} ${i} `.padEnd(20_000, "x");
      await sender.enqueue([receiver.deviceId], { payload: utf8(text) });
      sent.push(text);
    }
    const dieAt = random() * 0.9;
    const onProgress = (share: number) => {
      if (share >= dieAt) server.end("SIGKILL").catch(() => {});
    };
    const rotation = callControl(dataDir, { name: "rotate db-key", onProgress });
    if (!await rotation.then(() => true, () => false)) killed++; // otherwise it ended first
    await receiver[Symbol.asyncDispose]();
  }
  assert.ok(killed >= 3, `${killed} of the rotations were interrupted`);
  await using server = await ServerProcess.start({ dataDir, port });
  await using again = await bob!.again(server);
  assert.deepEqual((await waiting(again)).sort(), [...sent].sort());
  await control(dataDir, "rotate db-key");
  await control(dataDir, "rotate db-key"); // the first may only have finished an interrupted one
  assert.equal((await keyLines(dataDir)).length, 1);
  assert.deepEqual(await oldStores(dataDir), []);
  assert.deepEqual((await waiting(again)).sort(), [...sent].sort());
});

Deno.test("rotate db-key --dry-run tells the steps and changes nothing", async () => {
  await using server = await startTestServer();
  const before = await keyLines(server.dataDir);
  const would = await control(server.dataDir, "rotate db-key", { dryRun: true });
  assert.deepEqual(await keyLines(server.dataDir), before);
  await assert.rejects(Deno.stat(join(server.dataDir, "rotations.json")), Deno.errors.NotFound);
  const did = await control(server.dataDir, "rotate db-key");
  assert.deepEqual(would["steps"], did["steps"]);
  assert.match((did["notes"] as string[]).join("\n"), /made before still need the old key.*db-key\.old/);
});

Deno.test("rotate db-key refuses a weak key, the present one, and a second rotation at once", async () => {
  const gate = Promise.withResolvers<void>();
  const reached = Promise.withResolvers<void>();
  const step = async (name: string) => {
    if (name !== "wrote both keys") return;
    reached.resolve();
    await gate.promise;
  };
  await using server = await startTestServer({ step });
  const { dataDir } = server;
  const [old] = await keyLines(dataDir);
  await assert.rejects(
    control(dataDir, "rotate db-key", { key: "hunter2" }),
    /too easy to guess.*openssl rand -hex 32/,
  );
  await assert.rejects(control(dataDir, "rotate db-key", { key: old! }), /under this key already/);
  await assert.rejects(control(dataDir, "rotate db-key", { key: "a\nb" }), /one line/);
  const first = control(dataDir, "rotate db-key", { key: NEW_KEY, forgetOld: true });
  await reached.promise;
  const { healthy, ready } = await control(dataDir, "health");
  assert.deepEqual([healthy, ready], [true, false], "writes wait, as the operator wanted");
  await assert.rejects(control(dataDir, "rotate auth-token"), /while "rotate db-key" is running/);
  gate.resolve();
  await first;
  assert.equal((await control(dataDir, "health"))["ready"], true);
  assert.deepEqual(await keyLines(dataDir), [NEW_KEY]);
  await assert.rejects(Deno.stat(join(dataDir, "secrets", "db-key.old")), Deno.errors.NotFound);
});

Deno.test("rotate db-key of the operator's own file says which line to add, and takes it up", async () => {
  await using folder = await tempFolder();
  const path = join(folder.path, "key");
  await Deno.writeTextFile(path, `${OLD_KEY}\n`, { mode: 0o600 });
  await using server = await startTestServer({ flags: { "db-key-file": path } });
  const advice = await control(server.dataDir, "rotate db-key");
  assert.equal(advice["changes"], false);
  assert.match(
    (advice["notes"] as string[]).join("\n"),
    /write the line below above the present one.*run this command again/s,
  );
  await Deno.writeTextFile(path, `${advice["line"]}\n`, { mode: 0o600 });
  await assert.rejects(control(server.dataDir, "rotate db-key"), /add the present one as a second line/);
  await Deno.writeTextFile(path, `${advice["line"]}\n${OLD_KEY}\n`, { mode: 0o600 });
  const answer = await control(server.dataDir, "rotate db-key");
  assert.deepEqual([answer["changes"], answer["version"]], [true, 2]);
  assert.equal(
    await Deno.readTextFile(path),
    `${advice["line"]}\n${OLD_KEY}\n`,
    "the file is the operator's",
  );
  await server.stop();
  assert.equal(await opensWith(server.dataDir, OLD_KEY), false);
  assert.equal(await opensWith(server.dataDir, String(advice["line"])), true);
});

Deno.test("rotate db-key on a disk without room is refused, and service and data are as they were", {
  ignore: !await canMount(),
}, async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, "data");
  await Deno.mkdir(dataDir);
  await using disk = await mountTmpfs(dataDir, "64m");
  await using server = await startTestServer({ dataDir, flags: { "disk-reserve-bytes": "0" } });
  await using alice = await newAccount(server, "alice");
  const before = await keyLines(dataDir);
  await Deno.writeFile(join(dataDir, "ballast"), new Uint8Array(40_000_000));
  await disk.remount("size=48m");
  await assert.rejects(
    control(dataDir, "rotate db-key"),
    /needs \d+ MB, but .* has \d+ MB free.*nothing was changed/,
  );
  assert.deepEqual(await keyLines(dataDir), before);
  await alice.enqueue([alice.deviceId], { payload: utf8("still here") });
  assert.deepEqual(await waiting(alice), ["still here"]);
  await Deno.remove(join(dataDir, "ballast"));
  assert.equal((await control(dataDir, "rotate db-key"))["changes"], true);
  assert.deepEqual(await waiting(alice), ["still here"]);
});

Deno.test(
  "rotate db-key when the disk fills in the middle: refused, the key file is as it was, and service goes on",
  {
    ignore: !await canMount(),
  },
  async () => {
    await using folder = await tempFolder();
    const dataDir = join(folder.path, "data");
    await Deno.mkdir(dataDir);
    await using _disk = await mountTmpfs(dataDir, "64m");
    const ballast = join(dataDir, "ballast");
    const step = async (name: string) => {
      if (name !== "wrote both keys") return;
      const { bavail, bsize } = await statfs(dataDir);
      await Deno.writeFile(ballast, new Uint8Array(bavail * bsize - 300_000));
    };
    await using server = await startTestServer({ dataDir, step, flags: { "disk-reserve-bytes": "0" } });
    await using alice = await newAccount(server, "alice");
    for (let i = 0; i < 10; i++) await alice.enqueue([alice.deviceId], { payload: randomBytes(100_000) });
    const before = await keyLines(dataDir);
    await assert.rejects(control(dataDir, "rotate db-key"), /disk is full/);
    assert.deepEqual(await keyLines(dataDir), before);
    assert.deepEqual(await oldStores(dataDir), []);
    await Deno.remove(ballast);
    await alice.enqueue([alice.deviceId], { payload: utf8("still here") });
    await server.stop();
    assert.equal(await opensWith(dataDir, before[0]!), true);
  },
);

Deno.test("rotate db-key while the store is busy is refused, and the key file is as it was", async () => {
  let check: Promise<string[]> | null = null;
  const step = async (name: string) => {
    if (name === "wrote both keys") check = server.server.context.store.checkIntegrity(() => {});
  };
  await using server = await startTestServer({ step });
  const before = await keyLines(server.dataDir);
  await assert.rejects(control(server.dataDir, "rotate db-key"), /is under way: try again/);
  assert.deepEqual(await keyLines(server.dataDir), before);
  assert.deepEqual(await check, []);
});

async function restarted(dataDir: string, flags: Record<string, string>): Promise<TestServer> {
  return await startTestServer({ dataDir, flags });
}

Deno.test("a key from the environment: a restart with the new line first encrypts under it", async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, "data");
  const first = await restarted(dataDir, { "db-key": OLD_KEY });
  const alice = await newAccount(first, "alice");
  await alice[Symbol.asyncDispose]();
  await first.stop();
  {
    await using server = await restarted(dataDir, { "db-key": `${NEW_KEY}\n${OLD_KEY}` });
    await using again = await alice.again(server);
    await again.connection.call("ping", {});
    const { keys } = await control(dataDir, "rotate status") as { keys: Record<string, { how: string }> };
    assert.match(keys["db-key"]!.how, /at the start/);
  }
  assert.equal(await opensWith(dataDir, OLD_KEY), false);
  await using server = await restarted(dataDir, { "db-key": NEW_KEY });
  await using again = await alice.again(server);
  await again.connection.call("ping", {});
});

Deno.test("rotate db-key encrypts a store that was not encrypted", async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, "data");
  const plain = await restarted(dataDir, { "allow-plaintext-store": "true" });
  const alice = await newAccount(plain, "alice");
  await alice[Symbol.asyncDispose]();
  const answer = await control(dataDir, "rotate db-key");
  assert.match((answer["notes"] as string[]).join("\n"), /remove allow_plaintext_store/);
  await plain.stop();
  const [key] = await keyLines(dataDir);
  assert.equal(await opensWith(dataDir, key!), true);
  await using server = await restarted(dataDir, {});
  await using device = await newDevice(server, "alice");
  await device.connection.call("ping", {});
});

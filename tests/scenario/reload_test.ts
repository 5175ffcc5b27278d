/** Reload and drain of a running server: all or nothing, and nobody who is connected notices a reload. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { testCertificates } from "../support/certificates.ts";
import { freeUdpPort } from "../support/server_process.ts";
import { Program } from "../support/program.ts";
import { control, SteadyClients } from "../support/steady_clients.ts";
import { connectTo, newAccount, newDevice } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { tempFolder } from "../support/temp_folder.ts";

/** A server whose configuration file `write` replaces. */
async function startConfigured(toml: string) {
  const folder = await tempFolder();
  const config = join(folder.path, "qpq-server.toml");
  const write = (text: string) => Deno.writeTextFile(config, text);
  await write(toml);
  const dataDir = join(folder.path, "data");
  const server = await startTestServer({ dataDir, flags: { config } });
  return {
    server,
    dataDir,
    folder: folder.path,
    write,
    async [Symbol.asyncDispose]() {
      await server.stop();
      await folder[Symbol.asyncDispose]();
    },
  };
}

async function helloLimits(server: TestServer) {
  const link = await connectTo(server);
  await link.connection[Symbol.asyncDispose]();
  return link.hello.limits!;
}

Deno.test("reload applies live options, names the others, and loses no connection", async () => {
  await using world = await startConfigured("[limits]\ndevices_max = 3\n");
  const { server, dataDir, write } = world;
  await using clients = await SteadyClients.start(server, "alice");
  await clients.send("before");
  await write(
    'idle_timeout = "70s"\n[limits]\ndevices_max = 5\nwait_max = "20s"\npayload_bytes_max = "1MiB"\n',
  );
  const report = await control(dataDir, "reload");
  await clients.send("after");
  assert.deepEqual([...report["applied"] as string[]].sort(), [
    "limits.devices_max",
    "limits.payload_bytes_max",
    "limits.wait_max",
  ]);
  assert.deepEqual(report["restart"], ["idle_timeout"]);
  const { devicesMax, payloadBytesMax, waitMsMax } = await helloLimits(server);
  assert.deepEqual([devicesMax, payloadBytesMax, waitMsMax], [5, 1 << 20, 20_000]);
  await clients.lostNothing();
  // What waits for a restart is still different from what is in force, and named again.
  assert.deepEqual((await control(dataDir, "reload"))["restart"], ["idle_timeout"]);
});

Deno.test("a limit that a reload lowered is in force for those who are connected", async () => {
  await using world = await startConfigured("[limits]\ndevices_max = 3\n");
  await using first = await newAccount(world.server, "alice");
  await using second = await newDevice(world.server, "alice");
  assert.ok(first && second);
  await world.write("[limits]\ndevices_max = 2\npayload_bytes_max = '64KiB'\n");
  await control(world.dataDir, "reload");
  await assert.rejects(newDevice(world.server, "alice"), { code: "tooManyDevices" });
  const tooLarge = first.enqueue([second.deviceId], { payload: new Uint8Array(65_537) });
  await assert.rejects(tooLarge, { code: "payloadTooLarge" });
});

Deno.test("a reload with any problem changes nothing, and says each problem", async () => {
  await using world = await startConfigured("[limits]\ndevices_max = 3\n");
  const { server, dataDir, folder, write } = world;
  const { leaf, nextLeaf } = await testCertificates();
  const [cert, key, token] = ["c.pem", "k.pem", "token"].map((name) => join(folder, name));
  await Deno.writeTextFile(cert!, leaf.certificatePem);
  await Deno.writeTextFile(key!, nextLeaf.privateKeyPem, { mode: 0o600 });
  await Deno.writeTextFile(token!, "\n", { mode: 0o600 });
  const good = "[limits]\ndevices_max = 7\n";
  const refused: [string, RegExp][] = [
    [`${good}devices_maxx = 1\n`, /devices_maxx.*did you mean limits.devices_max/],
    [`log = "loud"\n${good}`, /log .*no level/],
    ["limits = = 1", /qpq-server.toml line 1/],
    [`tls_cert = "${cert}"\ntls_key = "${key}"\n${good}`, /does not belong to the certificate/],
    [`tls_cert = "${cert}"\ntls_key = "${key}.gone"\n${good}`, /there is no file .*k.pem.gone/],
    [`auth_token_file = "${token}"\n${good}`, /token.* empty/],
    [`${good}ttl_default = "9d"\nttl_max = "1d"\n`, /ttl_default.*must be at most/],
  ];
  for (const [toml, problem] of refused) {
    await write(toml);
    await assert.rejects(control(dataDir, "reload"), problem, toml);
    await assert.rejects(control(dataDir, "reload"), /The old configuration stays/);
  }
  assert.equal((await helloLimits(server)).devicesMax, 3);
  const status = await control(dataDir, "status");
  assert.deepEqual([status["lastReloadOk"], status["log"]], [false, "info"]);
  await write(good);
  await control(dataDir, "reload");
  assert.equal((await helloLimits(server)).devicesMax, 7);
  assert.equal((await control(dataDir, "status"))["lastReloadOk"], true);
});

Deno.test("a reload that finds the access token gone does not open the server to everybody", async () => {
  await using world = await startConfigured("");
  await Deno.remove(join(world.dataDir, "secrets", "auth-token"));
  await assert.rejects(control(world.dataDir, "reload"), /no access token any more/);
  await assert.rejects(connectTo(world.server, { accessToken: "wrong" }), { code: "invalidToken" });
});

Deno.test("reload moves from the managed certificate to the operator's and back", async () => {
  await using world = await startConfigured("");
  const { server, dataDir, folder, write } = world;
  const { leaf } = await testCertificates();
  const [cert, key] = [join(folder, "c.pem"), join(folder, "k.pem")];
  await Deno.writeTextFile(cert, leaf.certificatePem);
  await Deno.writeTextFile(key, leaf.privateKeyPem, { mode: 0o600 });
  await write(`tls_cert = "${cert}"\ntls_key = "${key}"\n`);
  assert.deepEqual((await control(dataDir, "reload"))["applied"], ["tls_cert", "tls_key", "certificate"]);
  await assert.rejects(connectTo(server));
  await write("");
  await control(dataDir, "reload");
  const link = await connectTo(server);
  await link.connection[Symbol.asyncDispose]();
});

Deno.test("reload ends what log-level changed", async () => {
  await using world = await startConfigured("");
  await control(world.dataDir, "log-level", { filter: "debug" });
  assert.equal((await control(world.dataDir, "status"))["log"], "debug");
  await assert.rejects(control(world.dataDir, "log-level", { filter: "loud" }), /stays debug/);
  assert.deepEqual((await control(world.dataDir, "reload"))["applied"], ["log"]);
  assert.equal((await control(world.dataDir, "status"))["log"], "info");
});

Deno.test("drain refuses what is new and keeps the process; --undo accepts it again", async () => {
  await using server = await startTestServer();
  const { dataDir } = server;
  await using alice = await newAccount(server, "alice");
  const waiting = alice.connection.call("fetchWait", { timeoutMs: 60_000 });
  while ((await control(dataDir, "status"))["waits"] !== 1) await alice.connection.call("ping", {});
  await control(dataDir, "drain");
  assert.deepEqual((await waiting).entries, []);
  await assert.rejects(connectTo(server));
  await assert.rejects(alice.connection.call("fetch", {}), { code: "shuttingDown" });
  const { healthy, ready } = await control(dataDir, "health");
  assert.deepEqual([healthy, ready], [true, false]);
  const { port } = server.server.metricsAddress!;
  const readyz = await fetch(`http://127.0.0.1:${port}/readyz`);
  await readyz.body?.cancel();
  assert.equal(readyz.status, 503);
  await control(dataDir, "drain", { undo: true });
  await alice.connection.call("fetch", {});
  await using bob = await newAccount(server, "bob");
  assert.ok(bob);
  const again = alice.connection.call("fetchWait", { timeoutMs: 60_000 });
  while ((await control(dataDir, "status"))["waits"] !== 1) await alice.connection.call("ping", {});
  await bob.enqueue([alice.deviceId], { payload: new Uint8Array([1]) });
  assert.equal((await again).entries.length, 1);
});

Deno.test("SIGHUP reloads; a configuration that cannot be used leaves the server as it was", {
  ignore: Deno.build.os === "windows",
}, async () => {
  await using folder = await tempFolder();
  const config = join(folder.path, "qpq-server.toml");
  const port = freeUdpPort();
  const base = `listen = "127.0.0.1:${port}"\nopaque_workers = 1\nlog_format = "json"\n`;
  await Deno.writeTextFile(config, base);
  await using server = new Program(["serve"], { cwd: folder.path });
  await server.logged(/"msg":"listening"/);
  await Deno.writeTextFile(config, `${base}drain_timeout = "1 moon"\n`);
  server.signal("SIGHUP");
  await server.logged(/the configuration was not reloaded, the old one stays: .*drain_timeout/);
  await Deno.writeTextFile(config, `${base}drain_timeout = "1s"\n`);
  server.signal("SIGHUP");
  await server.logged(/"msg":"configuration reloaded","applied":\["drain_timeout"\],"restart":\[\]/);
  server.signal("SIGTERM");
  assert.equal((await server.ended()).code, 0);
});

/** The certificate is rotated under a running server: connections stay, new ones see the new one. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { hex } from "../../mod/base/bytes.ts";
import { fingerprintText } from "../../mod/transport/fingerprint.ts";
import { inspectCertificate, LEAF_LIFE_MS, makeLeaf } from "../../mod/transport/tls.ts";
import type { ServerCertificate } from "../../mod/transport/transport.ts";
import { testCertificates } from "../support/certificates.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { freeUdpPort } from "../support/server_process.ts";
import { Program } from "../support/program.ts";
import { control, SteadyClients } from "../support/steady_clients.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { connectTo } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";

const DAY_MS = 86_400_000;

/** Does a new connection see this certificate? The client pins it and accepts no other. */
async function shows(server: Pick<TestServer, "hostname" | "port">, fingerprint: string): Promise<boolean> {
  try {
    const link = await connectTo({ ...server, fingerprint, accessToken: "" });
    await link.connection[Symbol.asyncDispose]();
    return true;
  } catch {
    return false;
  }
}

function fingerprintOf(pair: ServerCertificate): string {
  return fingerprintText(inspectCertificate(pair.certificatePem).leafSha256);
}

function input({ certificatePem, privateKeyPem }: ServerCertificate) {
  return { certificatePem, privateKeyPem };
}

Deno.test("rotate tls --renew --now: present connections stay, new ones see the new certificate", async () => {
  await using server = await startTestServer();
  await using clients = await SteadyClients.start(server, "alice");
  await clients.send("before");
  const { fingerprint, version } = await control(server.dataDir, "rotate tls", { renew: true, now: true });
  await clients.send("after");
  assert.equal(version, 2);
  assert.notEqual(fingerprint, server.fingerprint);
  assert.deepEqual(
    [await shows(server, String(fingerprint)), await shows(server, server.fingerprint)],
    [true, false],
  );
  await clients.lostNothing();
});

Deno.test("rotate tls announces the next certificate in Hello, and puts it in place after a week", async () => {
  const clock = new FakeClock({ now: Date.now() });
  await using server = await startTestServer({ clock });
  const answer = await control(server.dataDir, "rotate tls");
  assert.ok(Math.abs(Number(answer["nextServesAt"]) - clock.now() - 7 * DAY_MS) <= 1000, "in a week");
  const link = await connectTo(server);
  assert.equal(hex(link.hello.nextCertificateSha256), answer["nextFingerprint"]);
  await link.connection[Symbol.asyncDispose]();
  const again = await control(server.dataDir, "rotate tls");
  assert.deepEqual([again["changes"], again["nextFingerprint"]], [false, answer["nextFingerprint"]]);
  const { certificates } = server.server.context;
  clock.jumpWall(7 * DAY_MS - 2 * 3_600_000);
  await certificates.renew();
  assert.equal(certificates.fingerprint, server.fingerprint);
  clock.jumpWall(2 * 3_600_000);
  await clock.advance(3_600_000);
  while (certificates.fingerprint === server.fingerprint) await clock.settle();
  assert.equal(certificates.fingerprint, answer["nextFingerprint"]);
  assert.ok(await shows(server, certificates.fingerprint));
  while (!(await statusOf(server, "tls"))["rotatedAt"]) await clock.settle();
  assert.equal((await statusOf(server, "tls"))["version"], 2);
});

async function statusOf(server: TestServer, key: string): Promise<Record<string, unknown>> {
  const { keys } = await control(server.dataDir, "rotate status");
  return (keys as Record<string, Record<string, unknown>>)[key]!;
}

Deno.test("rotate tls --now puts the announced certificate in place, so that pins hold", async () => {
  await using server = await startTestServer();
  const { nextFingerprint } = await control(server.dataDir, "rotate tls");
  const { fingerprint } = await control(server.dataDir, "rotate tls", { now: true });
  assert.equal(fingerprint, nextFingerprint);
  assert.ok(await shows(server, String(nextFingerprint)));
});

Deno.test("rotate tls imports an operator's pair, serves it and keeps it over a restart", async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, "data");
  const { leaf } = await testCertificates();
  const first = await startTestServer({ dataDir });
  const { notes } = await control(dataDir, "rotate tls", input(leaf));
  assert.match((notes as string[]).join("\n"), /The server does not renew it/);
  assert.ok(await shows(first, fingerprintOf(leaf)));
  await first.stop();
  await using server = await startTestServer({ dataDir });
  assert.equal(server.fingerprint, fingerprintOf(leaf));
  await server.server.context.certificates.renew();
  assert.equal(server.server.context.certificates.next, null, "another CA's certificate is not renewed");
});

Deno.test("rotate tls refuses what does not fit, names each problem, and everything is as it was", async () => {
  await using server = await startTestServer();
  const { ca, leaf, nextLeaf, otherCa } = await testCertificates();
  const expired = await makeLeaf({
    ca,
    names: ["localhost"],
    now: Date.now() - 2 * LEAF_LIFE_MS,
    lifeMs: DAY_MS,
  });
  const chained = { ...leaf, certificatePem: leaf.certificatePem + otherCa.certificatePem };
  const refused: [ServerCertificate, RegExp][] = [
    [{ ...leaf, privateKeyPem: nextLeaf.privateKeyPem }, /private key does not belong to the certificate/],
    [expired, /expired on/],
    [ca, /CA certificate/],
    [chained, /chain is out of order/],
    [{ ...leaf, certificatePem: "" }, /certificate is empty/],
    [{ ...leaf, privateKeyPem: "garbage" }, /private key cannot be read/],
  ];
  for (const [pair, problem] of refused) {
    for (const dryRun of [true, false]) {
      await assert.rejects(control(server.dataDir, "rotate tls", { ...input(pair), dryRun }), problem);
    }
  }
  assert.ok(await shows(server, server.fingerprint));
  assert.equal((await statusOf(server, "tls"))["version"], 1);
  assert.deepEqual([...Deno.readDirSync(join(server.dataDir, "tls"))].map(({ name }) => name).sort(), [
    "ca.key",
    "ca.pem",
    "server.key",
    "server.pem",
  ]);
});

Deno.test("rotate tls --dry-run changes nothing", async () => {
  await using server = await startTestServer();
  const before = [...Deno.readDirSync(join(server.dataDir, "tls"))].map(({ name }) => name).sort();
  for (const wish of [{}, { now: true }, { renew: true, now: true }]) {
    const { changes } = await control(server.dataDir, "rotate tls", { ...wish, dryRun: true });
    assert.equal(changes, true);
  }
  assert.deepEqual([...Deno.readDirSync(join(server.dataDir, "tls"))].map(({ name }) => name).sort(), before);
  assert.ok(await shows(server, server.fingerprint));
});

Deno.test("the operator's files are watched: a pair that fits is served, one that does not is told", async () => {
  await using folder = await tempFolder();
  const { leaf, nextLeaf } = await testCertificates();
  const [cert, key] = [join(folder.path, "fullchain.pem"), join(folder.path, "privkey.pem")];
  const write = async (path: string, text: string) => {
    await Deno.writeTextFile(`${path}.new`, text, { mode: 0o600 });
    await Deno.rename(`${path}.new`, path);
  };
  await write(cert, leaf.certificatePem);
  await write(key, leaf.privateKeyPem);
  const port = freeUdpPort();
  const words = [
    "--listen",
    `127.0.0.1:${port}`,
    "--tls-cert",
    cert,
    "--tls-key",
    key,
    "--opaque-workers",
    "1",
  ];
  await using server = new Program(["serve", ...words], {
    cwd: folder.path,
    env: { QPQ_LOG_FORMAT: "json" },
  });
  await server.logged(/"msg":"listening"/);
  const where = { hostname: "127.0.0.1", port };
  assert.ok(await shows(where, fingerprintOf(leaf)));
  // An ACME client is caught between its two files: they do not fit, and the old ones stay.
  await write(key, nextLeaf.privateKeyPem);
  await server.logged(/changed TLS files cannot be used, the old certificate stays.*does not belong/);
  assert.ok(await shows(where, fingerprintOf(leaf)));
  await write(cert, nextLeaf.certificatePem);
  await server.logged(/the TLS certificate is now/);
  assert.ok(await shows(where, fingerprintOf(nextLeaf)));
  const dataDir = join(folder.path, "data");
  await assert.rejects(control(dataDir, "rotate tls", { renew: true }), /which are yours/);
  await server.logged(/rotated tls \(version 2\): its files had changed/);
});

import assert from "node:assert/strict";
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import { join } from "node:path";
import { equal } from "../../../mod/base/bytes.ts";
import { configureLogs, stopLogs } from "../../../mod/base/log.ts";
import { Certificates } from "../../../mod/server/certificates.ts";
import { FakeClock } from "../../support/fake_clock.ts";
import { tempFolder } from "../../support/temp_folder.ts";

const DAY = 86_400_000;

Deno.test("a managed leaf is announced for a week and replaced before anybody is warned of its end", async () => {
  await using folder = await tempFolder();
  await Deno.mkdir(join(folder.path, "tls"));
  const clock = new FakeClock();
  const lines: string[] = [];
  configureLogs({ filter: "warn", format: "json", write: (line) => void lines.push(line) });
  try {
    const options = { dataDir: folder.path, files: null, names: ["localhost"] };
    using certificates = await Certificates.open(options, clock);
    const replaced: string[] = [];
    certificates.start({
      onReplaced: () => void replaced.push(certificates.fingerprint),
      onRotated: () => Promise.resolve(),
    });
    const first = certificates.fingerprint;
    let announcedDays = 0;
    let announced: Uint8Array | null = null;
    for (let day = 0; day < 89 && certificates.fingerprint === first; day++) {
      announced = certificates.nextLeafSha256 ?? announced;
      if (certificates.nextLeafSha256) announcedDays++;
      clock.jumpWall(DAY);
      await certificates.renew();
    }
    assert.notEqual(certificates.fingerprint, first);
    assert.deepEqual(certificates.info.leafSha256, announced, "the one that was announced serves");
    assert.ok(announcedDays >= 6, `announced for ${announcedDays} days`);
    assert.equal(replaced.length, 1);
    assert.equal(certificates.nextLeafSha256, null);
    assert.deepEqual(lines, []);
  } finally {
    stopLogs();
  }
});

Deno.test("a managed leaf that ended while the server was down is made again", async () => {
  await using folder = await tempFolder();
  await Deno.mkdir(join(folder.path, "tls"));
  const clock = new FakeClock();
  const options = { dataDir: folder.path, files: null, names: ["localhost"] };
  const open = async () => {
    using certificates = await Certificates.open(options, clock);
    return { fingerprint: certificates.fingerprint, made: certificates.made.length };
  };
  const first = await open();
  assert.equal(first.made, 2);
  assert.deepEqual(await open(), { fingerprint: first.fingerprint, made: 0 });
  clock.jumpWall(100 * DAY);
  const later = await open();
  assert.notEqual(later.fingerprint, first.fingerprint);
  assert.equal(later.made, 1);
});

Deno.test("a replaced leaf still counts for a minute, for whoever connected just before", async () => {
  await using folder = await tempFolder();
  await Deno.mkdir(join(folder.path, "tls"));
  const clock = new FakeClock();
  using certificates = await Certificates.open(
    { dataDir: folder.path, files: null, names: ["localhost"] },
    clock,
  );
  const first = certificates.info.leafSha256;
  const counts = () => certificates.leafHashes().some((hash) => equal(hash, first));
  for (let day = 0; day < 89 && equal(certificates.info.leafSha256, first); day++) {
    clock.jumpWall(DAY);
    await certificates.renew();
  }
  assert.deepEqual([equal(certificates.info.leafSha256, first), counts()], [false, true]);
  await clock.advance(59_999);
  assert.equal(counts(), true);
  await clock.advance(1);
  assert.equal(counts(), false);
  assert.equal(certificates.leafHashes().length, 1);
});

/** A server's certificate that no CA stands behind, as `openssl req -x509` makes it. */
async function selfSigned({ now, lifeMs }: { now: number; lifeMs: number }) {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]) as CryptoKeyPair;
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: "CN=localhost",
    notBefore: new Date(now - DAY),
    notAfter: new Date(now + lifeMs),
    signingAlgorithm: algorithm,
    keys,
    extensions: [new x509.SubjectAlternativeNameExtension([{ type: "dns", value: "localhost" }])],
  });
  const key = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    certificatePem: certificate.toString("pem"),
    privateKeyPem: x509.PemConverter.encode(key, "PRIVATE KEY"),
  };
}

Deno.test("an operator's certificate that signs itself or ends soon is warned of at the start and once a day", async () => {
  await using folder = await tempFolder();
  const clock = new FakeClock();
  const made = await selfSigned({ now: clock.now(), lifeMs: 20 * DAY });
  const files = { certificate: join(folder.path, "own.pem"), key: join(folder.path, "own.key") };
  await Deno.writeTextFile(files.certificate, made.certificatePem);
  await Deno.writeTextFile(files.key, made.privateKeyPem, { mode: 0o600 });
  const lines: string[] = [];
  configureLogs({ filter: "warn", format: "json", write: (line) => void lines.push(line) });
  try {
    using certificates = await Certificates.open({ dataDir: folder.path, files, names: [] }, clock);
    certificates.start({ onReplaced: () => {}, onRotated: () => Promise.resolve() });
    const told = () => lines.splice(0).map((line) => JSON.parse(line).msg);
    const both = ["TLS certificate expires within 30 days", "TLS certificate is self-signed"];
    assert.deepEqual(told(), both);
    await clock.advance(DAY - 1);
    assert.deepEqual(told(), []);
    await clock.advance(DAY);
    assert.deepEqual(told(), both);
  } finally {
    stopLogs();
  }
});

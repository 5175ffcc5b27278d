import assert from "node:assert/strict";
import { createHash, generateKeyPairSync } from "node:crypto";
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import {
  chainPem,
  checkCertificate,
  inspectCertificate,
  LEAF_LIFE_MS,
  makeCa,
  makeLeaf,
  verifyChain,
} from "../../../mod/transport/tls.ts";
import { testCertificates } from "../../support/certificates.ts";

const NOW = Date.UTC(2026, 5, 1);
const DAY_MS = 86_400_000;

/** A certificate that the program itself would not make. */
async function oddCertificate(odd: {
  subject: string;
  issuer?: { subject: string; keys: CryptoKeyPair };
  extensions: x509.Extension[];
}): Promise<
  { subject: string; keys: CryptoKeyPair; certificate: x509.X509Certificate; pem: string; der: Uint8Array }
> {
  const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, [
    "sign",
    "verify",
  ]) as CryptoKeyPair;
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: "01",
    subject: odd.subject,
    issuer: odd.issuer?.subject ?? odd.subject,
    notBefore: new Date(NOW - DAY_MS),
    notAfter: new Date(NOW + DAY_MS),
    signingAlgorithm: { name: "ECDSA", hash: "SHA-256" },
    publicKey: keys.publicKey,
    signingKey: (odd.issuer?.keys ?? keys).privateKey,
    extensions: odd.extensions,
  });
  return {
    subject: odd.subject,
    keys,
    certificate,
    pem: certificate.toString("pem"),
    der: new Uint8Array(certificate.rawData),
  };
}

const caFlags = (pathLength?: number) => new x509.BasicConstraintsExtension(true, pathLength, true);
const forHost = (name: string) => new x509.SubjectAlternativeNameExtension([{ type: "dns", value: name }]);

Deno.test("makeLeaf() names DNS names and addresses, once each, under its CA", async () => {
  const ca = await makeCa({ commonName: "Test CA", now: NOW });
  const leaf = await makeLeaf({
    ca,
    names: ["Host.test", "host.test", "127.0.0.1", "::1", "fe80::1%eth0"],
    now: NOW,
  });
  const info = inspectCertificate(leaf.certificatePem);
  assert.deepEqual(info.names, ["host.test", "127.0.0.1", "::1", "fe80::1"]);
  assert.equal(info.issuedBy, "CN=Test CA");
  assert.equal(info.selfSigned, false);
  assert.equal(info.notAfter, NOW + LEAF_LIFE_MS);
  assert.ok(info.notBefore < NOW);
  assert.deepEqual(checkCertificate({ ...leaf, now: NOW }), []);
});

Deno.test("makeLeaf() does not outlive its CA, and refuses names that are none", async () => {
  const ca = await makeCa({ commonName: "Short CA", now: NOW, lifeMs: DAY_MS });
  const leaf = await makeLeaf({ ca, names: ["a.test"], now: NOW });
  assert.equal(inspectCertificate(leaf.certificatePem).notAfter, NOW + DAY_MS);
  for (const names of [[], ["two words"], ["a..b"], [""], ["*.*.test"]]) {
    await assert.rejects(makeLeaf({ ca, names, now: NOW }), TypeError);
  }
});

Deno.test("inspectCertificate() hashes the leaf's DER and keeps the chain", async () => {
  const { ca, leaf } = await testCertificates();
  const info = inspectCertificate(`${leaf.certificatePem}\n# a comment\n${ca.certificatePem}`);
  assert.equal(info.chainDer.length, 2);
  const digest = createHash("sha256").update(info.chainDer[0]!).digest();
  assert.deepEqual(info.leafSha256, new Uint8Array(digest));
  assert.equal(inspectCertificate(ca.certificatePem).selfSigned, true);
  assert.deepEqual(inspectCertificate(chainPem(info.chainDer)), info);
});

Deno.test("inspectCertificate() throws in words when there is nothing to read", () => {
  assert.throws(() => inspectCertificate("  "), /is empty/);
  assert.throws(() => inspectCertificate("hello"), /no certificate in the PEM/);
  const damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  assert.throws(() => inspectCertificate(damaged), /Certificate 1 of the PEM cannot be read/);
});

Deno.test("checkCertificate() names each problem", async () => {
  const { ca, leaf, nextLeaf } = await testCertificates();
  const now = Date.now();
  const problems = (certificatePem: string, privateKeyPem: string, at = now) =>
    checkCertificate({ certificatePem, privateKeyPem, now: at }).join("; ");
  assert.equal(problems(leaf.certificatePem, leaf.privateKeyPem), "");
  assert.match(
    problems(leaf.certificatePem, nextLeaf.privateKeyPem),
    /key does not belong to the certificate/,
  );
  assert.match(
    problems(leaf.certificatePem, leaf.privateKeyPem, now + 2 * LEAF_LIFE_MS),
    /expired on \d{4}-/,
  );
  assert.match(problems(leaf.certificatePem, leaf.privateKeyPem, now - DAY_MS), /not valid before/);
  assert.match(problems(ca.certificatePem, ca.privateKeyPem), /CaUsedAsEndEntity/);
  assert.match(problems("", leaf.privateKeyPem), /certificate is empty/);
  assert.match(problems("junk", ""), /no certificate in the PEM.*; The private key is empty/);
  assert.match(problems(leaf.certificatePem, "junk"), /private key cannot be read/);
  const encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----";
  assert.match(problems(leaf.certificatePem, encrypted), /encrypted with a passphrase/);
  assert.match(problems(leaf.certificatePem + nextLeaf.certificatePem, leaf.privateKeyPem), /out of order/);
  assert.equal(problems(leaf.certificatePem + ca.certificatePem, leaf.privateKeyPem), "");
});

Deno.test("checkCertificate() sees a certificate for other uses or without names", async () => {
  const mail = await oddCertificate({
    subject: "CN=mail",
    extensions: [new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.emailProtection])],
  });
  const key = x509.PemConverter.encode(
    await crypto.subtle.exportKey("pkcs8", mail.keys.privateKey),
    "PRIVATE KEY",
  );
  const problems = checkCertificate({ certificatePem: mail.pem, privateKeyPem: key, now: NOW });
  assert.match(problems.join("; "), /not made for servers.*names no host/);
});

Deno.test("checkCertificate() reads SEC 1 and PKCS #1 keys", async () => {
  const { leaf } = await testCertificates();
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({
    type: "pkcs1",
    format: "pem",
  });
  const ec = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({
    type: "sec1",
    format: "pem",
  });
  for (const privateKeyPem of [String(rsa), String(ec)]) {
    const problems = checkCertificate({
      certificatePem: leaf.certificatePem,
      privateKeyPem,
      now: Date.now(),
    });
    assert.deepEqual(problems, ["The private key does not belong to the certificate"]);
  }
});

Deno.test("verifyChain() accepts a leaf of this CA for its names, and nothing else", async () => {
  const ca = await makeCa({ commonName: "Home CA", now: NOW });
  const twin = await makeCa({ commonName: "Home CA", now: NOW });
  const leaf = await makeLeaf({ ca, names: ["*.example.org", "chat.test", "192.0.2.1", "::1"], now: NOW });
  const { chainDer } = inspectCertificate(leaf.certificatePem);
  const verify = async (change: Partial<Parameters<typeof verifyChain>[0]>) => {
    const check = { chainDer, caPem: ca.certificatePem, hostname: "chat.test", now: NOW, ...change };
    const result = await verifyChain(check);
    return result.ok ? "ok" : result.reason;
  };
  for (const hostname of ["chat.test", "CHAT.TEST", "a.example.org", "192.0.2.1", "[::1]", "0:0::1"]) {
    assert.equal(await verify({ hostname }), "ok", hostname);
  }
  assert.equal(await verify({ caPem: twin.certificatePem + ca.certificatePem }), "ok");
  for (const hostname of ["example.org", "a.b.example.org", "192.0.2.2", "::2", "chat.test.evil"]) {
    assert.match(await verify({ hostname }), /is for \*\.example\.org, chat\.test.*not for/, hostname);
  }
  assert.match(
    await verify({ caPem: twin.certificatePem }),
    /not signed by this CA; it is signed by CN=Home CA/,
  );
  assert.match(await verify({ now: NOW + 91 * DAY_MS }), /expired on/);
  assert.match(await verify({ now: NOW - DAY_MS }), /not valid before/);
  assert.match(await verify({ caPem: "" }), /CA cannot be read/);
  assert.match(await verify({ chainDer: [] }), /sent no certificate/);
  assert.match(await verify({ chainDer: [new Uint8Array(40)] }), /cannot be read/);
  assert.match(
    await verify({ chainDer: inspectCertificate(ca.certificatePem).chainDer }),
    /CaUsedAsEndEntity/,
  );
});

Deno.test("verifyChain() refuses an expired CA over a leaf that is not", async () => {
  const root = await oddCertificate({ subject: "CN=Root", extensions: [caFlags()] });
  const leafKeys = await makeCa({ commonName: "unused", now: NOW });
  const leaf = await x509.X509CertificateGenerator.create({
    serialNumber: "02",
    subject: "CN=leaf",
    issuer: "CN=Root",
    notBefore: new Date(NOW),
    notAfter: new Date(NOW + 100 * DAY_MS),
    signingAlgorithm: { name: "ECDSA", hash: "SHA-256" },
    publicKey: new x509.X509Certificate(leafKeys.certificatePem).publicKey,
    signingKey: root.keys.privateKey,
    extensions: [forHost("a.test")],
  });
  const result = await verifyChain({
    chainDer: [new Uint8Array(leaf.rawData)],
    caPem: root.pem,
    hostname: "a.test",
    now: NOW + 2 * DAY_MS,
  });
  assert.match(JSON.stringify(result), /The CA expired on/);
});

Deno.test("verifyChain() follows intermediate CAs and their bounds", async () => {
  const root = await oddCertificate({ subject: "CN=Root", extensions: [caFlags()] });
  const middle = await oddCertificate({ subject: "CN=Middle", issuer: root, extensions: [caFlags(0)] });
  const lower = await oddCertificate({ subject: "CN=Lower", issuer: middle, extensions: [caFlags()] });
  const noCa = await oddCertificate({ subject: "CN=No CA", issuer: root, extensions: [forHost("no.test")] });
  const leafOf = (issuer: typeof root) =>
    oddCertificate({ subject: "CN=leaf", issuer, extensions: [forHost("a.test")] });
  const verify = async (...chain: { der: Uint8Array }[]) => {
    const chainDer = chain.map((link) => link.der);
    const result = await verifyChain({ chainDer, caPem: root.pem, hostname: "a.test", now: NOW });
    return result.ok ? "ok" : result.reason;
  };
  const [underMiddle, underLower, underNoCa] = await Promise.all([middle, lower, noCa].map(leafOf));
  assert.equal(await verify(underMiddle!, middle), "ok");
  assert.match(await verify(underMiddle!), /signed by CN=Middle/);
  assert.match(await verify(underLower!, lower, middle), /CN=Middle may not sign other CAs/);
  assert.match(await verify(underNoCa!, noCa), /CN=No CA is no CA certificate/);
  assert.match(await verify(underLower!, middle), /not signed by this CA/);
});

Deno.test("verifyChain() refuses what a self-signed leaf or an unknown critical extension would slip in", async () => {
  const own = await oddCertificate({ subject: "CN=a.test", extensions: [forHost("a.test")] });
  const check = { chainDer: [own.der], hostname: "a.test", now: NOW };
  const alone = await verifyChain({ ...check, caPem: own.pem });
  assert.match(JSON.stringify(alone), /The CA is no CA certificate/);
  const root = await oddCertificate({ subject: "CN=Root", extensions: [caFlags()] });
  const odd = await oddCertificate({
    subject: "CN=odd",
    issuer: root,
    extensions: [forHost("a.test"), new x509.Extension("1.2.3.4", true, new Uint8Array([5, 0]).buffer)],
  });
  const unknown = await verifyChain({ ...check, chainDer: [odd.der], caPem: root.pem });
  assert.match(JSON.stringify(unknown), /critical extension.*1\.2\.3\.4/);
});

/** What is particular to this engine: who is trusted, how addresses are tried, what its errors say. */
import assert from "node:assert/strict";
import { connect, listen } from "../../../mod/transport/deno_quic.ts";
import { inspectCertificate, makeLeaf } from "../../../mod/transport/tls.ts";
import type { Listener, ServerCertificate, ServerIdentity } from "../../../mod/transport/transport.ts";
import { testCertificates } from "../../support/certificates.ts";

function open(certificate: ServerCertificate, hostname = "127.0.0.1"): Listener {
  return listen({
    hostname,
    port: 0,
    certificate,
    idleTimeoutMs: 5_000,
    streamsMax: 4,
    handshakesMax: 16,
  });
}

/** Connects, and says how that went: `ok` or `problem: message`. */
async function attempt(
  listener: Listener,
  identity: ServerIdentity,
  hostname = "127.0.0.1",
): Promise<string> {
  const { port } = listener.address;
  try {
    await using connection = await connect({ hostname, port, identity, idleTimeoutMs: 5_000 });
    assert.equal(connection.remoteAddress.port, port);
    return "ok";
  } catch (error) {
    const { problem, message } = error as { problem?: string; message: string };
    return `${problem}: ${message}`;
  }
}

const ROOTS = async (): Promise<ServerIdentity> => ({
  kind: "roots",
  caPem: (await testCertificates()).ca.certificatePem,
});

Deno.test("connect() with a CA takes names and IP addresses of the certificate", async () => {
  const { leaf } = await testCertificates();
  await using listener = open(leaf);
  assert.equal(await attempt(listener, await ROOTS(), "127.0.0.1"), "ok");
  assert.equal(await attempt(listener, await ROOTS(), "localhost"), "ok");
});

Deno.test("connect() finds a server that only answers at one address of the name", async () => {
  const { leaf } = await testCertificates();
  await using ipv6 = open(leaf, "::1");
  assert.equal(await attempt(ipv6, await ROOTS(), "::1"), "ok");
  assert.equal(await attempt(ipv6, await ROOTS(), "[::1]"), "ok");
  assert.equal(await attempt(ipv6, await ROOTS(), "localhost"), "ok");
});

Deno.test("a dual-stack listener reports IPv4 peers as IPv4", async () => {
  const { leaf } = await testCertificates();
  await using listener = open(leaf, "::");
  const client = await connect({
    hostname: "127.0.0.1",
    port: listener.address.port,
    identity: await ROOTS(),
    idleTimeoutMs: 5_000,
  });
  for await (const connection of listener.connections()) {
    assert.equal(connection.remoteAddress.hostname, "127.0.0.1");
    break;
  }
  await client[Symbol.asyncDispose]();
});

Deno.test("connect() says why a certificate is refused", async () => {
  const { ca, leaf, otherCa } = await testCertificates();
  const roots = await ROOTS();
  const now = Date.now();
  await using good = open(leaf);
  assert.match(
    await attempt(good, { kind: "roots", caPem: otherCa.certificatePem }),
    /^certificate: .* is refused: it is not signed by a CA that is trusted here$/,
  );
  assert.match(await attempt(good, { kind: "roots" }), /^certificate: .*not signed by a CA/);
  const otherName = await makeLeaf({ ca, names: ["elsewhere.test"], now });
  await using wrongName = open(otherName);
  assert.match(await attempt(wrongName, roots), /^certificate: .*only valid for.*elsewhere\.test/);
  const stale = await makeLeaf({ ca, names: ["127.0.0.1"], now: now - 7_200_000, lifeMs: 60_000 });
  await using expired = open(stale);
  assert.match(await attempt(expired, roots), /^certificate: .*it has expired$/);
  const early = await makeLeaf({ ca, names: ["127.0.0.1"], now: now + 86_400_000 });
  await using future = open(early);
  assert.match(await attempt(future, roots), /^certificate: .*not valid yet/);
  await using caAsLeaf = open(ca);
  assert.match(await attempt(caAsLeaf, roots), /^certificate: /);
});

Deno.test("connect() with pins takes any of them whatever name and CA say, but no expired one", async () => {
  const { ca, leaf, nextLeaf } = await testCertificates();
  const pin = (certificate: ServerCertificate) => inspectCertificate(certificate.certificatePem).leafSha256;
  const now = Date.now();
  const other = await makeLeaf({ ca, names: ["elsewhere.test"], now });
  await using listener = open(other);
  assert.equal(await attempt(listener, { kind: "pinned", leafSha256: [pin(leaf), pin(other)] }), "ok");
  const stale = await makeLeaf({ ca, names: ["127.0.0.1"], now: now - 7_200_000, lifeMs: 60_000 });
  await using expired = open(stale);
  assert.match(
    await attempt(expired, { kind: "pinned", leafSha256: [pin(stale)] }),
    /^certificate: .*it has expired$/,
  );
  for (const leafSha256 of [[], [pin(leaf), pin(nextLeaf)]]) {
    assert.match(
      await attempt(listener, { kind: "pinned", leafSha256 }),
      /^certificate: .* is refused: it is not the one that was pinned$/,
    );
  }
});

Deno.test("connect() says when a name is unknown or another protocol is spoken", async () => {
  const { leaf, ca } = await testCertificates();
  await using listener = open(leaf);
  assert.equal(
    await attempt(listener, await ROOTS(), "no-such-name.invalid"),
    "unreachable: The name no-such-name.invalid has no address",
  );
  const endpoint = new Deno.QuicEndpoint({ hostname: "127.0.0.1", port: 0 });
  const other = endpoint.listen({
    cert: leaf.certificatePem,
    key: leaf.privateKeyPem,
    alpnProtocols: ["h3"],
  });
  const accepted = (async () => await (await other.incoming()).accept())().catch(() => "refused");
  const { port } = endpoint.addr;
  await assert.rejects(
    connect({
      hostname: "127.0.0.1",
      port,
      identity: { kind: "roots", caPem: ca.certificatePem },
      idleTimeoutMs: 5_000,
    }),
    { problem: "protocol" },
  );
  assert.equal(await accepted, "refused");
  endpoint.close();
});

Deno.test("listen() throws for an unusable certificate or a taken port", async () => {
  const { leaf, nextLeaf } = await testCertificates();
  assert.throws(() => open({ ...leaf, privateKeyPem: nextLeaf.privateKeyPem }), /KeyMismatch/);
  await using listener = open(leaf);
  const taken = { hostname: "127.0.0.1", port: listener.address.port, certificate: leaf };
  assert.throws(
    () => listen({ ...taken, idleTimeoutMs: 1_000, streamsMax: 1, handshakesMax: 1 }),
    Deno.errors.AddrInUse,
  );
});

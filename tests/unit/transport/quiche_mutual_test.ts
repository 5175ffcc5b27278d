/** Mutual TLS of engine quiche, and both engines with each other. */
import assert from "node:assert/strict";
import { equal, randomBytes, utf8 } from "../../../mod/base/bytes.ts";
import * as deno from "../../../mod/transport/deno_quic.ts";
import * as quiche from "../../../mod/transport/quiche.ts";
import { inspectCertificate, makeLeaf } from "../../../mod/transport/tls.ts";
import type { Connection, Listener, ListenOptions } from "../../../mod/transport/transport.ts";
import { testCertificates } from "../../support/certificates.ts";

async function open(
  engine: typeof deno | typeof quiche,
  mutual: boolean,
  clientCertificate: "required" | "optional" = "required",
  more: Partial<ListenOptions> = {},
): Promise<Listener> {
  const { ca, leaf } = await testCertificates();
  const options: ListenOptions = {
    hostname: "127.0.0.1",
    port: 0,
    certificate: leaf,
    idleTimeoutMs: 10_000,
    streamsMax: 8,
    handshakesMax: 64,
    ...(mutual ? { clientCaPem: ca.certificatePem, clientCertificate } : {}),
    ...more,
  };
  return await engine.listen(options);
}

/** Echoes one stream of the next connection. */
async function echoOne(listener: Listener): Promise<Connection> {
  for await (const connection of listener.connections()) {
    for await (const stream of connection.incomingStreams()) {
      for (let bytes = await stream.read(); bytes; bytes = await stream.read()) await stream.write(bytes);
      await stream.closeWrite();
      return connection;
    }
  }
  throw new Error("There is none");
}

async function echoed(connection: Connection, sent: Uint8Array): Promise<boolean> {
  const stream = await connection.openStream();
  await stream.write(sent);
  await stream.closeWrite();
  let length = 0;
  for (let bytes = await stream.read(); bytes; bytes = await stream.read()) {
    if (!equal(bytes, sent.subarray(length, length + bytes.length))) return false;
    length += bytes.length;
  }
  return length === sent.length;
}

const ENGINES = { deno, quiche };
for (const [server, client] of [["deno", "quiche"], ["quiche", "deno"]] as const) {
  Deno.test(`a ${client} client speaks with a ${server} listener`, async () => {
    await using listener = await open(ENGINES[server], false);
    const { ca } = await testCertificates();
    const served = echoOne(listener);
    const connection = await ENGINES[client].connect({
      ...listener.address,
      identity: { kind: "roots", caPem: ca.certificatePem },
      idleTimeoutMs: 10_000,
    });
    assert.ok(await echoed(connection, randomBytes(50_000)));
    const atServer = await served;
    connection.close(3, "done");
    assert.deepEqual(await atServer.closed, { code: 3, reason: "done", by: "peer" });
  });
}

Deno.test("mutual TLS shows each side the other's chain", async () => {
  await using listener = await open(quiche, true);
  const { ca } = await testCertificates();
  const own = await makeLeaf({ ca, names: ["localhost"], now: Date.now(), mutual: true });
  const served = echoOne(listener);
  const identity = { kind: "mutual", caPem: ca.certificatePem, certificate: own } as const;
  await using connection = await quiche.connect({ ...listener.address, identity, idleTimeoutMs: 10_000 });
  assert.ok(await echoed(connection, utf8("hello")));
  const leaf = inspectCertificate(own.certificatePem).chainDer[0]!;
  assert.ok(equal((await served).peerChainDer![0]!, leaf));
  assert.ok(connection.peerChainDer!.length > 0);
});

Deno.test("a changed CA set counts for new connections, and a live one lives on", async () => {
  await using listener = await open(quiche, true);
  const { ca, leaf, otherCa } = await testCertificates();
  const dial = async (clientCa: typeof ca) => {
    const certificate = await makeLeaf({ ca: clientCa, names: ["localhost"], now: Date.now(), mutual: true });
    const identity = { kind: "mutual", caPem: ca.certificatePem, certificate } as const;
    return await quiche.connect({ ...listener.address, identity, idleTimeoutMs: 10_000 });
  };
  const served = echoOne(listener);
  await using former = await dial(ca);
  const bothSets = `${ca.certificatePem}\n${otherCa.certificatePem}`;
  listener.replaceCertificate(leaf, { clientCaPem: bothSets });
  assert.ok(await echoed(former, utf8("still here")));
  await served;
  listener.replaceCertificate(leaf, { clientCaPem: otherCa.certificatePem });
  await using refused = await dial(ca);
  assert.equal((await refused.closed).code, 304);
  listener.replaceCertificate(leaf); // keeps the CA set
  await using again = await dial(ca);
  assert.equal((await again.closed).code, 304);
});

async function refusal(
  kind: "none" | "unknownCa" | "expired",
  clientCertificate: "required" | "optional" = "required",
): Promise<string> {
  await using listener = await open(quiche, true, clientCertificate);
  const { ca, otherCa } = await testCertificates();
  const names = ["localhost"];
  const now = kind === "expired" ? Date.now() - 400 * 86_400_000 : Date.now();
  const certificate = await makeLeaf({ ca: kind === "unknownCa" ? otherCa : ca, names, now, mutual: true });
  const identity = kind === "none"
    ? { kind: "roots", caPem: ca.certificatePem } as const
    : { kind: "mutual", caPem: ca.certificatePem, certificate } as const;
  const connection = await quiche.connect({ ...listener.address, identity, idleTimeoutMs: 10_000 });
  const { code, by } = await connection.closed;
  return `${by} ${code}`;
}

Deno.test("a client without a certificate is refused", async () => {
  assert.equal(await refusal("none"), "transport 372");
});

Deno.test("a client's certificate of another CA is refused", async () => {
  assert.equal(await refusal("unknownCa"), "transport 304");
});

Deno.test("a client's expired certificate is refused", async () => {
  assert.equal(await refusal("expired"), "transport 301");
});

Deno.test("an optional certificate may be missing, and is shown when there is one", async () => {
  await using listener = await open(quiche, true, "optional");
  const { ca } = await testCertificates();
  const own = await makeLeaf({ ca, names: ["localhost"], now: Date.now(), mutual: true });
  const caPem = ca.certificatePem;
  for (const identity of [{ kind: "roots", caPem }, { kind: "mutual", caPem, certificate: own }] as const) {
    const served = echoOne(listener);
    await using connection = await quiche.connect({ ...listener.address, identity, idleTimeoutMs: 10_000 });
    assert.ok(await echoed(connection, utf8("hello")));
    assert.equal((await served).peerChainDer?.length ?? 0, identity.kind === "mutual" ? 1 : 0);
  }
});

Deno.test("an optional certificate of another CA, or an expired one, is refused", async () => {
  assert.equal(await refusal("unknownCa", "optional"), "transport 304");
  assert.equal(await refusal("expired", "optional"), "transport 301");
});

Deno.test("the listener is told which certificate was refused, and with what alert", async () => {
  const told = Promise.withResolvers<
    { chainDer: readonly Uint8Array[]; alert: number | null; from: string }
  >();
  await using listener = await open(quiche, true, "optional", {
    onCertificateRefused: (refused, from) => told.resolve({ ...refused, from: from.hostname }),
  });
  const { ca, otherCa } = await testCertificates();
  const own = await makeLeaf({ ca: otherCa, names: ["localhost"], now: Date.now(), mutual: true });
  const identity = { kind: "mutual", caPem: ca.certificatePem, certificate: own } as const;
  await using connection = await quiche.connect({ ...listener.address, identity, idleTimeoutMs: 10_000 });
  const { chainDer, alert, from } = await told.promise;
  assert.deepEqual([alert, from], [48, "127.0.0.1"]);
  assert.ok(equal(chainDer[0]!, inspectCertificate(own.certificatePem).chainDer[0]!));
  assert.match((await connection.closed).reason, /^our certificate is refused: it is not signed by a CA/);
});

Deno.test("connect() keeps the chain that it refuses", async () => {
  await using listener = await open(quiche, true);
  const { ca, leaf, otherCa } = await testCertificates();
  const own = await makeLeaf({ ca, names: ["localhost"], now: Date.now(), mutual: true });
  const dial = (caPem: string, serverName: string) =>
    quiche.connect({
      ...listener.address,
      serverName,
      identity: { kind: "mutual", caPem, certificate: own },
      idleTimeoutMs: 10_000,
    }).then(() => null, (error) => error);
  for (
    const [caPem, name] of [[otherCa.certificatePem, "localhost"], [ca.certificatePem, "b.example"]] as const
  ) {
    const error = await dial(caPem, name);
    assert.equal(error.problem, "certificate");
    assert.ok(equal(error.refused.chainDer[0], inspectCertificate(leaf.certificatePem).chainDer[0]!));
  }
});

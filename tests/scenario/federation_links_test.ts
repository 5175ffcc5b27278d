/** Links between servers over real QUIC on loopback: who gets one, who does not, and when it ends. */
import assert from "node:assert/strict";
import { makeCrl } from "../support/certificates.ts";
import { inspectCertificate, makeLeaf } from "../../mod/transport/tls.ts";
import { FederationIdentity } from "../../mod/federation/identity.ts";
import { RECHECK_MS } from "../../mod/federation/links.ts";
import {
  authority,
  clockNow,
  type PeerEngineName,
  pemsFor,
  testEngines,
  testHandlers,
  TestPeer,
  type TestPeerOptions,
} from "../support/peer_world.ts";
import { clearRefusals, loggedMessages, refusalsOf } from "../support/refusal_log.ts";

const DAY_MS = 86_400_000;

/** Two servers of one authority that know each other. */
async function pair(options: TestPeerOptions) {
  clearRefusals();
  const ca = await authority();
  const a = await TestPeer.start("a.example", await pemsFor(ca, "a.example"), options);
  const b = await TestPeer.start("b.example", await pemsFor(ca, "b.example"), options);
  a.knows(b);
  b.knows(a);
  const stack = new AsyncDisposableStack();
  stack.use(a);
  stack.use(b);
  return { a, b, ca, [Symbol.asyncDispose]: () => stack[Symbol.asyncDispose]() };
}

testEngines("a link carries calls and blobs, is shared, and knows both domains", async (engine) => {
  const relayed: string[] = [];
  await using world = await pair({ engine, handlers: testHandlers(relayed) });
  const { a } = world;
  const [link, same] = await Promise.all([a.links.to("b.example"), a.links.to("b.example")]);
  assert.equal(link, same);
  await link.call("relay", { messages: [{}, {}] });
  assert.deepEqual(relayed, ["a.example 2"]);
  assert.deepEqual((await link.call("peerPing", { echo: new Uint8Array([7]) })).echo, new Uint8Array([7]));
  const blob = await link.getBlob({ sha256: new Uint8Array(32) });
  assert.equal(new TextDecoder().decode(await bytesOf(blob.body)), "hello");
  assert.deepEqual([await a.refusals(), await world.b.refusals()], [{}, {}]);
});

async function bytesOf(body: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: number[] = [];
  for await (const chunk of body) chunks.push(...chunk);
  return new Uint8Array(chunks);
}

/** `a` with these files asks `b`, which refuses it for `reason`. */
async function refusedByResponder(
  engine: PeerEngineName,
  pems: (ca: Awaited<ReturnType<typeof authority>>) => Promise<Awaited<ReturnType<typeof pemsFor>>>,
  reason: string,
  crl?: (ca: Awaited<ReturnType<typeof authority>>, leafDer: Uint8Array) => Promise<string>,
) {
  const ca = await authority();
  clearRefusals();
  const ofA = await pems(ca);
  const crlPem = crl && await crl(ca, inspectCertificate(ofA.certificatePem).chainDer[0]!);
  await using a = await TestPeer.start("a.example", ofA, { engine });
  await using b = await TestPeer.start(
    "b.example",
    await pemsFor(ca, "b.example", crlPem === undefined ? {} : { crlPem }),
    { engine },
  );
  a.knows(b);
  b.knows(a);
  await assert.rejects(a.links.to("b.example"), { code: "peerUnavailable" });
  assert.deepEqual(await refusalsOf(b, 1), { [reason]: 1 });
  const told = engine === "quiche" && ["unknown_ca", "expired"].includes(reason)
    ? /^no link to b\.example: .*our certificate is refused: .* \(TLS alert 4[58]\)$/
    : /^no link to b\.example: /;
  assert.ok(loggedMessages().some((msg) => told.test(msg)), loggedMessages().join("\n"));
}

testEngines(
  "an initiator with a certificate of another domain is refused as wrong_name",
  (engine) => refusedByResponder(engine, (ca) => pemsFor(ca, "c.example"), "wrong_name"),
);

testEngines(
  "an initiator of an unknown CA is refused as unknown_ca",
  (engine) =>
    refusedByResponder(
      engine,
      async (ca) => await pemsFor(await authority("Other"), "a.example", { caPem: ca.certificatePem }),
      "unknown_ca",
    ),
);

testEngines(
  "an initiator whose certificate has expired is refused as expired",
  (engine) =>
    refusedByResponder(
      engine,
      (ca) => pemsFor(ca, "a.example", { now: Date.now() - 10 * DAY_MS, lifeMs: DAY_MS }),
      "expired",
    ),
);

testEngines(
  "an initiator whose certificate is revoked is refused as revoked",
  (engine) =>
    refusedByResponder(
      engine,
      (ca) => pemsFor(ca, "a.example"),
      "revoked",
      (ca, leaf) => makeCrl({ ca, revokedDer: [leaf], now: Date.now() - 1000, lifeMs: DAY_MS }),
    ),
);

Deno.test("quiche: an initiator whose certificate only servers may show is refused as protocol, and why is logged", async () => {
  await refusedByResponder("quiche", async (ca) => {
    const leaf = await makeLeaf({ ca, names: ["a.example"], now: Date.now() });
    return { ...leaf, caPem: ca.certificatePem, crlPem: null };
  }, "protocol");
  assert.ok(loggedMessages().some((msg) => /: a\.example: .*lacks clientAuth/.test(msg)));
});

testEngines(
  "a server that is not on the list is refused as unknown_domain, a blocked one as blocked",
  async (engine) => {
    await using world = await pair({ engine });
    const { a, b } = world;
    b.settings.peers = ["c.example"];
    await assert.rejects(a.links.to("b.example"), { code: "peerUnavailable" });
    b.settings.peers = ["a.example"];
    b.peers.setBlocked("a.example", "blocked");
    await assert.rejects(a.links.to("b.example"), { code: "peerUnavailable" });
    assert.deepEqual(await b.refusals(), { unknown_domain: 1, blocked: 1 });
    await assert.rejects(b.links.to("a.example"), { code: "unknownDomain" });
  },
);

testEngines("a peer that is blocked while linked loses its link", async (engine) => {
  await using world = await pair({ engine });
  const { a, b } = world;
  const link = await a.links.to("b.example");
  b.peers.setBlocked("a.example", "blocked");
  await link.closed;
  assert.equal(link.isOpen, false);
  assert.deepEqual(await b.refusals(), { blocked: 1 });
});

/** Who answers at b.example's address has these files; `a` refuses it for `reason`. */
async function refusedByInitiator(
  engine: PeerEngineName,
  pems: (ca: Awaited<ReturnType<typeof authority>>) => Promise<Awaited<ReturnType<typeof pemsFor>>>,
  reason: string,
) {
  const ca = await authority();
  clearRefusals();
  await using a = await TestPeer.start("a.example", await pemsFor(ca, "a.example"), { engine });
  await using b = await TestPeer.start("b.example", await pems(ca), { engine });
  a.knows(b);
  b.knows(a);
  await assert.rejects(a.links.to("b.example"), { code: "peerUnavailable" });
  assert.deepEqual(await refusalsOf(a), { [reason]: 1 });
  assert.deepEqual(await b.refusals(), {}); // nothing was signed for it
}

testEngines(
  "a responder of another domain is refused before anything is signed",
  (engine) => refusedByInitiator(engine, (ca) => pemsFor(ca, "c.example"), "wrong_name"),
);

testEngines(
  "a responder of an unknown CA is refused before anything is signed",
  (engine) =>
    refusedByInitiator(
      engine,
      async () => await pemsFor(await authority("Other"), "b.example"),
      "unknown_ca",
    ),
);

testEngines(
  "a responder whose certificate has expired is refused before anything is signed",
  (engine) =>
    refusedByInitiator(
      engine,
      (ca) => pemsFor(ca, "b.example", { now: Date.now() - 10 * DAY_MS, lifeMs: DAY_MS }),
      "expired",
    ),
);

testEngines("a rotation drops no open link, and the next one shows the new certificate", async (engine) => {
  await using world = await pair({ engine });
  const { a, b, ca } = world;
  const before = await a.links.to("b.example");
  b.identities.replace(await FederationIdentity.read(await pemsFor(ca, "b.example"), Date.now()));
  await before.call("peerPing", {});
  a.identities.replace(await FederationIdentity.read(await pemsFor(ca, "a.example"), Date.now()));
  const after = await a.links.to("b.example");
  assert.notEqual(before, after);
  assert.deepEqual([...after.chain!.chainDer], [...b.identities.current.info.chainDer]);
  await before.call("peerPing", {});
  await after.call("peerPing", {});
});

testEngines("links end within the hour after a certificate has expired", async (engine) => {
  const clock = clockNow();
  const ca = await authority();
  await using a = await TestPeer.start("a.example", await pemsFor(ca, "a.example", { lifeMs: DAY_MS }), {
    clock,
    engine,
  });
  await using b = await TestPeer.start("b.example", await pemsFor(ca, "b.example"), { clock, engine });
  a.knows(b);
  b.knows(a);
  const link = await a.links.to("b.example");
  await clock.advance(RECHECK_MS);
  assert.equal(link.isOpen, true);
  clock.jumpWall(DAY_MS);
  await clock.advance(RECHECK_MS);
  await link.closed;
  assert.deepEqual(await b.refusals(), { expired: 1 });
});

testEngines("links end as soon as a revocation list names their certificate", async (engine) => {
  await using world = await pair({ engine });
  const { a, b, ca } = world;
  const link = await a.links.to("b.example");
  const revokedDer = [...a.identities.current.info.chainDer];
  const crlPem = await makeCrl({ ca, revokedDer, now: Date.now() - 1000, lifeMs: DAY_MS });
  b.identities.replace(await FederationIdentity.read({ ...b.identities.current.pems, crlPem }, Date.now()));
  await link.closed;
  assert.deepEqual(await b.refusals(), { revoked: 1 });
});

testEngines("a peer that dies ends the link, and gets another one when it is back", async (engine) => {
  const world = await pair({ engine });
  await using a = world.a;
  const pems = world.b.identities.current.pems;
  const before = await a.links.to("b.example");
  await world.b[Symbol.asyncDispose]();
  await before.closed;
  await assert.rejects(before.call("peerPing", {}), { code: "peerUnavailable" });
  await using b = await TestPeer.start("b.example", pems, { engine });
  a.settings.peers = []; // it was at another port
  a.knows(b);
  b.knows(a);
  const after = await a.links.to("b.example");
  await after.call("peerPing", {});
  assert.equal(loggedMessages().filter((msg) => msg === "linked to b.example").length, 2);
  assert.match((await a.metrics.render()).body, /^qpq_federation_links 1$/m);
  assert.deepEqual(await refusalsOf(b), {});
});

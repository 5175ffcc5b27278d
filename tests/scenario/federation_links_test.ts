/** Links between servers over real QUIC on loopback: who gets one, who does not, and when it ends. */
import assert from "node:assert/strict";
import { makeCrl } from "../support/certificates.ts";
import { inspectCertificate } from "../../mod/transport/tls.ts";
import { FederationIdentity } from "../../mod/federation/identity.ts";
import { RECHECK_MS } from "../../mod/federation/links.ts";
import { authority, clockNow, pemsFor, testHandlers, TestPeer } from "../support/peer_world.ts";

const DAY_MS = 86_400_000;

/** Two servers of one authority that know each other. */
async function pair(options: Parameters<typeof TestPeer.start>[2] = {}) {
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

Deno.test("a link carries calls and blobs, is shared, and knows both domains", async () => {
  const relayed: string[] = [];
  await using world = await pair({ handlers: testHandlers(relayed) });
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
  pems: (ca: Awaited<ReturnType<typeof authority>>) => Promise<Awaited<ReturnType<typeof pemsFor>>>,
  reason: string,
  crl?: (ca: Awaited<ReturnType<typeof authority>>, leafDer: Uint8Array) => Promise<string>,
) {
  const ca = await authority();
  const ofA = await pems(ca);
  const crlPem = crl && await crl(ca, inspectCertificate(ofA.certificatePem).chainDer[0]!);
  await using a = await TestPeer.start("a.example", ofA);
  await using b = await TestPeer.start(
    "b.example",
    await pemsFor(ca, "b.example", crlPem === undefined ? {} : { crlPem }),
  );
  a.knows(b);
  b.knows(a);
  await assert.rejects(a.links.to("b.example"), { code: "peerUnavailable" });
  assert.deepEqual(await b.refusals(), { [reason]: 1 });
}

Deno.test("an initiator with a certificate of another domain is refused as wrong_name", () =>
  refusedByResponder((ca) => pemsFor(ca, "c.example"), "wrong_name"));

Deno.test("an initiator of an unknown CA is refused as unknown_ca", () =>
  refusedByResponder(
    async (ca) => await pemsFor(await authority("Other"), "a.example", { caPem: ca.certificatePem }),
    "unknown_ca",
  ));

Deno.test("an initiator whose certificate has expired is refused as expired", () =>
  refusedByResponder(
    (ca) => pemsFor(ca, "a.example", { now: Date.now() - 10 * DAY_MS, lifeMs: DAY_MS }),
    "expired",
  ));

Deno.test("an initiator whose certificate is revoked is refused as revoked", () =>
  refusedByResponder(
    (ca) => pemsFor(ca, "a.example"),
    "revoked",
    (ca, leaf) => makeCrl({ ca, revokedDer: [leaf], now: Date.now() - 1000, lifeMs: DAY_MS }),
  ));

Deno.test("a server that is not on the list is refused as unknown_domain, a blocked one as blocked", async () => {
  await using world = await pair();
  const { a, b } = world;
  b.settings.peers = ["c.example"];
  await assert.rejects(a.links.to("b.example"), { code: "peerUnavailable" });
  b.settings.peers = ["a.example"];
  b.peers.setBlocked("a.example", "blocked");
  await assert.rejects(a.links.to("b.example"), { code: "peerUnavailable" });
  assert.deepEqual(await b.refusals(), { unknown_domain: 1, blocked: 1 });
  await assert.rejects(b.links.to("a.example"), { code: "unknownDomain" });
});

Deno.test("a peer that is blocked while linked loses its link", async () => {
  await using world = await pair();
  const { a, b } = world;
  const link = await a.links.to("b.example");
  b.peers.setBlocked("a.example", "blocked");
  await link.closed;
  assert.equal(link.isOpen, false);
  assert.deepEqual(await b.refusals(), { blocked: 1 });
});

/** Who answers at b.example's address has these files; `a` refuses it for `reason`. */
async function refusedByInitiator(
  pems: (ca: Awaited<ReturnType<typeof authority>>) => Promise<Awaited<ReturnType<typeof pemsFor>>>,
  reason: string,
) {
  const ca = await authority();
  await using a = await TestPeer.start("a.example", await pemsFor(ca, "a.example"));
  await using b = await TestPeer.start("b.example", await pems(ca));
  a.knows(b);
  b.knows(a);
  await assert.rejects(a.links.to("b.example"), { code: "peerUnavailable" });
  assert.deepEqual(await a.refusals(), { [reason]: 1 });
  assert.deepEqual(await b.refusals(), {}); // nothing was signed for it
}

Deno.test("a responder of another domain is refused before anything is signed", () =>
  refusedByInitiator((ca) => pemsFor(ca, "c.example"), "wrong_name"));

Deno.test("a responder of an unknown CA is refused before anything is signed", () =>
  refusedByInitiator(async () => await pemsFor(await authority("Other"), "b.example"), "unknown_ca"));

Deno.test("a responder whose certificate has expired is refused before anything is signed", () =>
  refusedByInitiator(
    (ca) => pemsFor(ca, "b.example", { now: Date.now() - 10 * DAY_MS, lifeMs: DAY_MS }),
    "expired",
  ));

Deno.test("a rotation drops no open link, and the next one shows the new certificate", async () => {
  await using world = await pair();
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

Deno.test("links end within the hour after a certificate has expired", async () => {
  const clock = clockNow();
  const ca = await authority();
  await using a = await TestPeer.start("a.example", await pemsFor(ca, "a.example", { lifeMs: DAY_MS }), {
    clock,
  });
  await using b = await TestPeer.start("b.example", await pemsFor(ca, "b.example"), { clock });
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

Deno.test("links end as soon as a revocation list names their certificate", async () => {
  await using world = await pair();
  const { a, b, ca } = world;
  const link = await a.links.to("b.example");
  const revokedDer = [...a.identities.current.info.chainDer];
  const crlPem = await makeCrl({ ca, revokedDer, now: Date.now() - 1000, lifeMs: DAY_MS });
  b.identities.replace(await FederationIdentity.read({ ...b.identities.current.pems, crlPem }, Date.now()));
  await link.closed;
  assert.deepEqual(await b.refusals(), { revoked: 1 });
});

import assert from "node:assert/strict";
import { FederationIdentity } from "../../../mod/federation/identity.ts";
import { PeerRefused } from "../../../mod/federation/refusal.ts";
import { inspectCertificate, makeLeaf } from "../../../mod/transport/tls.ts";
import { makeCrl } from "../../support/certificates.ts";
import { authority, pemsFor } from "../../support/peer_world.ts";

const DAY_MS = 86_400_000;
const NOW = Date.now();

const der = (pem: string) => inspectCertificate(pem).chainDer;

async function verdict(
  identity: FederationIdentity,
  chainDer: readonly Uint8Array[],
  domain = "a.example",
): Promise<string> {
  try {
    await identity.verifyPeerChain({ domain, chainDer }, NOW);
    return "ok";
  } catch (error) {
    assert.ok(error instanceof PeerRefused, String(error));
    return error.reason;
  }
}

Deno.test("verifyPeerChain() tells names, dates, authorities and uses apart", async () => {
  const ca = await authority();
  const identity = await FederationIdentity.read(await pemsFor(ca, "b.example"), NOW);
  const leaf = async (names: string[], more = {}, by = ca) =>
    der((await makeLeaf({ ca: by, names, now: NOW, ...more })).certificatePem);
  assert.equal(await verdict(identity, await leaf(["a.example"])), "ok");
  assert.equal(await verdict(identity, await leaf(["x.example", "a.example"])), "ok");
  assert.equal(await verdict(identity, await leaf(["c.example"])), "wrong_name");
  assert.equal(await verdict(identity, await leaf(["*.a.example"]), "x.a.example"), "wrong_name");
  const old = { now: NOW - 2 * DAY_MS, lifeMs: DAY_MS };
  assert.equal(await verdict(identity, await leaf(["a.example"], old)), "expired");
  assert.equal(await verdict(identity, await leaf(["a.example"], { now: NOW + 2 * DAY_MS })), "expired");
  assert.equal(
    await verdict(identity, await leaf(["a.example"], {}, await authority("Other"))),
    "unknown_ca",
  );
  assert.equal(await verdict(identity, der(ca.certificatePem)), "protocol");
  assert.equal(await verdict(identity, []), "protocol");
  assert.equal(await verdict(identity, [new Uint8Array(5)]), "protocol");
});

Deno.test("verifyPeerChain() refuses what a revocation list names, also when the list is outdated", async () => {
  const ca = await authority();
  const revoked = await pemsFor(ca, "a.example");
  const good = await pemsFor(ca, "a.example");
  const crlPem = await makeCrl({
    ca,
    revokedDer: der(revoked.certificatePem),
    now: NOW - 2 * DAY_MS,
    lifeMs: DAY_MS,
  });
  const identity = await FederationIdentity.read(await pemsFor(ca, "b.example", { crlPem }), NOW);
  assert.equal(await verdict(identity, der(revoked.certificatePem)), "revoked");
  assert.equal(await verdict(identity, der(good.certificatePem)), "ok");
});

Deno.test("read() refuses revocation lists of another authority, and what is none", async () => {
  const ca = await authority();
  const other = await authority("Federation CA");
  const crlPem = await makeCrl({ ca: other, revokedDer: [], now: NOW, lifeMs: DAY_MS });
  await assert.rejects(
    FederationIdentity.read(await pemsFor(ca, "b.example", { crlPem }), NOW),
    /not signed/,
  );
  const none = await pemsFor(ca, "b.example", { crlPem: "nothing" });
  await assert.rejects(FederationIdentity.read(none, NOW), /no revocation list/);
});

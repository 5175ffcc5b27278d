import assert from "node:assert/strict";
import { systemClock } from "../../../mod/base/clock.ts";
import { configureLogs } from "../../../mod/base/log.ts";
import { FederationIdentity } from "../../../mod/federation/identity.ts";
import { RefusalLog } from "../../../mod/federation/refusal.ts";
import { refusalOfResponder, reportRefusedInitiator } from "../../../mod/federation/tls_refusal.ts";
import { Metrics } from "../../../mod/observe/metrics.ts";
import { ConnectError } from "../../../mod/transport/connect_error.ts";
import { inspectCertificate, makeLeaf } from "../../../mod/transport/tls.ts";
import { authority, pemsFor } from "../../support/peer_world.ts";

const DAY_MS = 86_400_000;
const from = { hostname: "192.0.2.77", port: 1 };

/** How a.example is told of b.example's refused certificate, or of one for `names`. */
async function world(names = ["b.example"]) {
  const ca = await authority();
  const identity = await FederationIdentity.read(await pemsFor(ca, "a.example"), Date.now());
  const leaf = await makeLeaf({ ca, names, now: Date.now(), mutual: true });
  return { identity, chainDer: inspectCertificate(leaf.certificatePem).chainDer };
}

/** The one line and the one counter of an initiator that was refused. */
async function reported(
  { identity, chainDer }: { identity: FederationIdentity; chainDer: readonly Uint8Array[] },
  { alert, now = Date.now() }: { alert: number; now?: number },
) {
  const lines: { msg: string; reason: string }[] = [];
  configureLogs({ filter: "warn", format: "json", write: (line) => void lines.push(JSON.parse(line)) });
  const metrics = new Metrics({ version: "0", methods: [], limits: [], clock: systemClock });
  const refusals = new RefusalLog({ metrics, clock: systemClock });
  await reportRefusedInitiator(refusals, identity, { chainDer, alert, from, now });
  const counted = [...(await metrics.render()).body.matchAll(/refused_total\{reason="(\w+)"\} [1-9]/g)];
  assert.deepEqual(counted.map(([, reason]) => reason), lines.map(({ reason }) => reason));
  assert.equal(lines.length, 1);
  return lines[0]!;
}

Deno.test("reportRefusedInitiator() goes by our own look at the chain, whatever TLS took exception to", async () => {
  const { reason, msg } = await reported(await world(), { alert: 48, now: Date.now() + 400 * DAY_MS });
  assert.equal(reason, "expired");
  assert.match(msg, /^a peer's certificate is not valid now: b\.example: /);
});

Deno.test("reportRefusedInitiator() goes by the alert where our own look finds nothing", async () => {
  const good = await world();
  const reasons = [];
  for (const alert of [42, 44, 45, 48, 51]) reasons.push((await reported(good, { alert })).reason);
  assert.deepEqual(reasons, ["protocol", "revoked", "expired", "unknown_ca", "bad_signature"]);
});

Deno.test("reportRefusedInitiator() takes a chain of anything, and names an address only in part", async () => {
  const { identity } = await world();
  for (const chainDer of [[new Uint8Array(9)], [], Array.from({ length: 99 }, () => new Uint8Array(9))]) {
    const { reason, msg } = await reported({ identity, chainDer }, { alert: 42 });
    assert.equal(reason, "protocol");
    assert.doesNotMatch(msg, /192\.0\.2\.77/);
  }
  const { msg } = await reported(await world(["*.example"]), { alert: 42 });
  assert.match(msg, /192\.0\.2/);
});

Deno.test("refusalOfResponder() is null when nobody's certificate was refused here", async () => {
  const { identity, chainDer } = await world();
  const ask = (error: unknown) =>
    refusalOfResponder(identity, { error, domain: "c.example", now: Date.now() });
  assert.equal(await ask(new ConnectError("unreachable", "no")), null);
  assert.equal(await ask(new ConnectError("certificate", "It refuses ours")), null);
  const refused = { chainDer, alert: 42 };
  assert.equal((await ask(new ConnectError("certificate", "no", { refused })))?.reason, "wrong_name");
});

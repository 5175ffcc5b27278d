import assert from "node:assert/strict";
import { join } from "node:path";
import { systemClock } from "../../../mod/base/clock.ts";
import { Metrics } from "../../../mod/observe/metrics.ts";
import { watchFederationIdentity } from "../../../mod/server/federation_identity.ts";
import type { IdentityPems } from "../../../mod/federation/identity.ts";
import { authority, pemsFor } from "../../support/peer_world.ts";

async function put(dataDir: string, version: string, pems: IdentityPems): Promise<void> {
  const root = join(dataDir, "tls", "federation");
  await Deno.mkdir(join(root, version), { recursive: true });
  await Deno.writeTextFile(join(root, version, "cert.pem"), pems.certificatePem);
  await Deno.writeTextFile(join(root, version, "key.pem"), pems.privateKeyPem);
  await Deno.writeTextFile(join(root, version, "ca.pem"), pems.caPem);
  await Deno.writeTextFile(join(root, "next"), `${version}\n`);
  await Deno.rename(join(root, "next"), join(root, "current"));
}

Deno.test("a rotation is used as soon as its version is the one that counts", async () => {
  const dataDir = await Deno.makeTempDir();
  try {
    const ca = await authority();
    await put(dataDir, "v1", await pemsFor(ca, "a.example"));
    const metrics = new Metrics({ version: "0", methods: [], limits: [], clock: systemClock });
    using watched = await watchFederationIdentity(dataDir, { clock: systemClock, metrics, engine: "deno" });
    const next = await pemsFor(ca, "a.example");
    const replaced = Promise.withResolvers<string>();
    watched.identities.onReplaced(({ pems }) => replaced.resolve(pems.certificatePem));
    await put(dataDir, "v2", next);
    assert.equal(await replaced.promise, next.certificatePem);
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

Deno.test("without an identity the start says what to run", async () => {
  const dataDir = await Deno.makeTempDir();
  try {
    const metrics = new Metrics({ version: "0", methods: [], limits: [], clock: systemClock });
    await assert.rejects(
      watchFederationIdentity(dataDir, { clock: systemClock, metrics, engine: "deno" }),
      /rotate federation/,
    );
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

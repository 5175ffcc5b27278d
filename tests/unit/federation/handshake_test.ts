import assert from "node:assert/strict";
import { hex } from "../../../mod/base/bytes.ts";
import { proofContent } from "../../../mod/federation/handshake.ts";

const PROOF = {
  responderNonce: new Uint8Array(32).fill(1),
  initiatorNonce: new Uint8Array(32).fill(2),
  responderLeafSha256: new Uint8Array(32).fill(3),
  initiatorDomain: "a.example",
  responderDomain: "b.example",
};

Deno.test("proofContent() is label, nonces, leaf and both domains with their lengths", () => {
  const label = "16" + hex(new TextEncoder().encode("MLS 1.0 qpq federation"));
  const domains = "0009" + hex(new TextEncoder().encode("a.example")) +
    "0009" + hex(new TextEncoder().encode("b.example"));
  const content = "01".repeat(32) + "02".repeat(32) + "03".repeat(32) + domains;
  assert.equal(hex(proofContent(PROOF)), `${label}4076${content}`);
});

Deno.test("proofContent() differs when any part does, and domains cannot flow into one another", () => {
  const all = new Set([
    PROOF,
    { ...PROOF, responderNonce: new Uint8Array(32) },
    { ...PROOF, initiatorNonce: new Uint8Array(32) },
    { ...PROOF, responderLeafSha256: new Uint8Array(32) },
    { ...PROOF, initiatorDomain: "a.exampleb", responderDomain: ".example" },
    { ...PROOF, responderDomain: "c.example" },
  ].map((proof) => hex(proofContent(proof))));
  assert.equal(all.size, 6);
});

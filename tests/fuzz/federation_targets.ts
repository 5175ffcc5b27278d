/** What other servers send, and what is typed of them: frames, chains, revocation lists, names; and OPAQUE P-256. */
import assert from "node:assert/strict";
import { openP256 } from "../../mod/auth/opaque_p256.ts";
import type { OpaqueJob } from "../../mod/auth/opaque_job.ts";
import { concat } from "../../mod/base/bytes.ts";
import { OPAQUE_SIZES, SUITE_P256 } from "../../mod/base/opaque_suite.ts";
import { peerEntryText, tryParsePeerEntry } from "../../mod/base/peer_entry.ts";
import { readDomain, tryParseUserAddress, userAddressText } from "../../mod/base/user_address.ts";
import { HandshakeResponder, NONCE_BYTES } from "../../mod/federation/handshake.ts";
import { FederationIdentity } from "../../mod/federation/identity.ts";
import { decodeMessage } from "../../mod/protocol/bodies.ts";
import { encodeFrame, FrameDecoder } from "../../mod/protocol/frame.ts";
import { PEER_HANDSHAKE_BYTES_MAX, PEER_METHODS, peerMethodOf } from "../../mod/protocol/peer_methods.ts";
import { inspectCertificate } from "../../mod/transport/tls.ts";
import { makeCrl } from "../support/certificates.ts";
import { authority, pemsFor } from "../support/peer_world.ts";
import { randomMessage } from "./messages.ts";
import type { Random } from "./random.ts";
import { refusing, refusingLater, type Target } from "./target.ts";

const NOW = Date.now();
const ca = await authority();
const pems = await pemsFor(ca, "a.example");
const leafDer = inspectCertificate(pems.certificatePem).chainDer[0]!;
const caDer = inspectCertificate(ca.certificatePem).chainDer[0]!;
const crlPem = await makeCrl({ ca, revokedDer: [caDer], now: NOW, lifeMs: 86_400_000 });
const crlDer = Uint8Array.fromBase64(crlPem.replaceAll(/-----[^-]+-----|\s/g, ""));
const identity = await FederationIdentity.read(await pemsFor(ca, "b.example", { crlPem }), NOW);

function responder(): HandshakeResponder {
  return new HandshakeResponder({
    domain: "b.example",
    limits: { frameBytesMax: 1, messagesMax: 1, requestsInFlightMax: 1 },
    identity,
    servedLeaves: [identity.leafSha256],
    admit: async () => {},
    now: () => NOW,
    tlsChainDer: null,
  });
}

const PEER_ROWS = Object.values(PEER_METHODS);

/** Frames before the proof (first byte even: small ones only) and after it; every body is read as its method says. */
const peerFrames: Target = {
  name: "peer_frames",
  generate(random) {
    const frames = random.list(4, () => {
      const method = random.pick(PEER_ROWS);
      return encodeFrame(random.below(4), method.number, randomMessage(random, method.request));
    });
    return concat(random.bytes(1), ...frames);
  },
  async run(input) {
    const handshake = responder();
    const proven = (input[0] ?? 0) % 2 === 1;
    const decoder = new FrameDecoder((code) =>
      Math.min(peerMethodOf(code)?.bytesMax ?? 0, proven ? Infinity : PEER_HANDSHAKE_BYTES_MAX)
    );
    const decoded = refusing(["FrameError"], () => [...decoder.push(new Uint8Array(input.subarray(1)))]);
    for (const each of decoded ?? []) {
      if (each.kind === "oversized") continue;
      const method = peerMethodOf(each.frame.code);
      if (!method) continue;
      const request = refusing(["QpqError"], () => decodeMessage(method.request, each.frame.body));
      if (!request) continue;
      await refusingLater(["PeerRefused"], async () => {
        if (method.name === "peerHello") await handshake.hello(request as never);
        if (method.name === "peerProve") await handshake.prove(request as never);
      });
    }
    assert.equal(handshake.peer, null, "somebody is let in without a key");
  },
};

/** The first byte cuts the rest into certificates. */
const peerChain: Target = {
  name: "peer_chain",
  generate: (random) => concat(random.bytes(1), leafDer, random.oneIn(2) ? caDer : random.bytes(40)),
  async run(input) {
    const [first = 0, bytes] = [input[0], input.subarray(1)];
    const cut = first % 3 === 0 ? bytes.length : Math.min(leafDer.length, bytes.length);
    const chainDer = [bytes.subarray(0, cut), bytes.subarray(cut)].filter(({ length }) => length > 0);
    const prover = responder();
    await prover.hello(
      {
        domain: "a.example",
        responderDomain: "b.example",
        initiatorNonce: new Uint8Array(NONCE_BYTES),
      } as never,
    );
    await refusingLater(
      ["PeerRefused"],
      () => identity.verifyPeerChain({ domain: "a.example", chainDer }, NOW),
    );
    const proof = { certificateChain: chainDer, signature: bytes, responderLeafSha256: identity.leafSha256 };
    await refusingLater(["PeerRefused"], () => prover.prove(proof as never));
    assert.equal(prover.peer, null, "a proof without a key");
  },
};

/** The files of an operator: a TypeError says what is wrong. */
const revocationLists: Target = {
  name: "revocation_list",
  generate: () => crlDer,
  async run(input) {
    const block = `-----BEGIN X509 CRL-----\n${input.toBase64()}\n-----END X509 CRL-----\n`;
    await refusingLater(["TypeError"], () => FederationIdentity.read({ ...pems, crlPem: block }, NOW));
  },
};

const NAMES = [
  "alice",
  "bob@b.example",
  "c.example=127.0.0.1:7001",
  "d.example.=[::1]:7001",
  "xn--bcher-kva.example",
  "@",
  "=",
];

/** What is taken has one normal form, and is taken again in that form. */
const peerNames: Target = {
  name: "peer_names",
  generate: (random: Random) => new TextEncoder().encode(random.pick(NAMES)),
  run(input) {
    const text = new TextDecoder().decode(input);
    const address = tryParseUserAddress(text);
    if (address) assert.deepEqual(tryParseUserAddress(userAddressText(address)), address);
    const entry = tryParsePeerEntry(text);
    if (entry) assert.deepEqual(tryParsePeerEntry(peerEntryText(entry)), entry);
    const domain = readDomain(input);
    if (domain !== undefined) assert.deepEqual(new TextEncoder().encode(domain), new Uint8Array(input));
  },
};

const p256 = openP256();
const made = await p256.answer({ kind: "createSetup" });
assert.ok(made.status === "ok");
const setup = made.output[0]!;
const sizes = OPAQUE_SIZES.get(SUITE_P256)!;

function sized(bytes: Uint8Array, length: number): Uint8Array {
  const fitted = new Uint8Array(length);
  fitted.set(bytes.subarray(0, length));
  return fitted;
}

/** Bytes of a client for a worker: it answers, or says that they are the client's fault. */
const opaqueP256: Target = {
  name: "opaque_p256",
  generate(random) {
    const point = setup.subarray(64, 97);
    return concat(random.bytes(1), random.oneIn(4) ? random.bytes(33) : point, random.bytes(32), point);
  },
  async run(input) {
    const bytes = input.subarray(1);
    const common = { setup, userName: "alice", realmId: "realm" };
    const jobs: OpaqueJob[] = [
      { kind: "loginStart", ...common, record: null, ke1: sized(bytes, sizes.ke1) },
      { kind: "registrationResponse", ...common, request: sized(bytes, sizes.registrationRequest) },
      { kind: "checkRecord", setup, record: sized(bytes, sizes.registrationRecord) },
    ];
    const job = jobs[(input[0] ?? 0) % 4] ??
      { kind: "loginFinish", state, ke3: sized(bytes, sizes.ke3), realmId: "realm" };
    const answered = await p256.answer(job as OpaqueJob);
    assert.notEqual(answered.status, "failed", JSON.stringify(answered));
    if (job.kind === "loginFinish") assert.equal(answered.status, "rejected", "KE3 without the password");
  },
};

const point = setup.subarray(64, 97);
const started = await p256.answer({
  kind: "loginStart",
  setup,
  userName: "alice",
  realmId: "realm",
  record: null,
  ke1: concat(point, new Uint8Array(32), point),
});
assert.ok(started.status === "ok");
const state = started.output[0]!;

/** All of them; the slow one apart. */
export const FEDERATION_TARGETS: readonly Target[] = [peerFrames, peerChain, revocationLists, peerNames];
/** A login of this suite takes 0.1 s. */
export const SLOW_TARGETS: readonly Target[] = [opaqueP256];

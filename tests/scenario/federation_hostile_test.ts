/**
 * What a hostile server can try at the door for peers, over real QUIC: each attempt has its own counter and log line.
 * The door is of either engine; who knocks shows no certificate in TLS, as engine `deno`.
 */
import assert from "node:assert/strict";
import { concat, randomBytes } from "../../mod/base/bytes.ts";
import { makeProof } from "../../mod/federation/handshake.ts";
import { FederationIdentity } from "../../mod/federation/identity.ts";
import { PROVE_MS_MAX } from "../../mod/federation/peer_connection.ts";
import { UNREAD_MS_MAX } from "../../mod/federation/peer_stream.ts";
import { decodeReply, encodeMessage } from "../../mod/protocol/bodies.ts";
import type { PeerHelloResponse } from "../../mod/protocol/federation_pb.ts";
import { encodeFrame, FRAME_BODY_BYTES_MAX, FrameDecoder } from "../../mod/protocol/frame.ts";
import {
  PEER_ALPN,
  PEER_METHODS,
  type PeerMethodName,
  type PeerRequestInit,
} from "../../mod/protocol/peer_methods.ts";
import { PeerLink } from "../../mod/federation/link.ts";
import { connect } from "../../mod/transport/deno_quic.ts";
import type { Connection, Stream } from "../../mod/transport/transport.ts";
import {
  authority,
  clockNow,
  FRAME_DEADLINE_MS,
  type PeerEngineName,
  pemsFor,
  testEngines,
  testHandlers,
  TestPeer,
  type TestPeerOptions,
} from "../support/peer_world.ts";
import { clearRefusals, refusalsOf as refusals } from "../support/refusal_log.ts";

/** A server that takes a.example for a peer, and everything that a.example has. */
async function world(engine: PeerEngineName, options: TestPeerOptions = {}) {
  clearRefusals();
  const ca = await authority();
  const b = await TestPeer.start("b.example", await pemsFor(ca, "b.example"), { engine, ...options });
  b.settings.peers = ["a.example"];
  const pems = await pemsFor(ca, "a.example");
  return {
    ca,
    b,
    pems,
    identity: await FederationIdentity.read(pems, Date.now()),
    [Symbol.asyncDispose]: () => b[Symbol.asyncDispose](),
  };
}

/** A connection to `b` with no handshake on it yet. */
function dial(b: TestPeer): Promise<Connection> {
  return connect({
    ...b.listener.address,
    identity: { kind: "pinned", leafSha256: [b.identities.current.leafSha256] },
    alpn: PEER_ALPN,
    idleTimeoutMs: 30_000,
  });
}

async function link(b: TestPeer): Promise<PeerLink> {
  return await PeerLink.open(await dial(b), { domain: b.domain, clock: b.clock });
}

const hello = (initiatorNonce = randomBytes(32), more: PeerRequestInit<"peerHello"> = {}) => ({
  domain: "a.example",
  responderDomain: "b.example",
  initiatorNonce,
  ...more,
} as PeerRequestInit<"peerHello">);

/** What a.example would sign for a connection to b.example. */
function proof(
  { b, identity }: Awaited<ReturnType<typeof world>>,
  answer: PeerHelloResponse,
  rest: { initiatorNonce: Uint8Array; responderDomain?: string; responderLeafSha256?: Uint8Array },
) {
  return makeProof(identity, {
    responderNonce: answer.responderNonce,
    responderLeafSha256: b.identities.current.leafSha256,
    initiatorDomain: "a.example",
    responderDomain: "b.example",
    ...rest,
  });
}

function frame<Name extends PeerMethodName>(
  id: number,
  name: Name,
  request: PeerRequestInit<Name>,
): Uint8Array {
  return encodeFrame(id, PEER_METHODS[name].number, encodeMessage(PEER_METHODS[name].request, request));
}

/** A connection of a.example to b.example that is proven, and the stream of its requests. */
async function provenConnection(w: Awaited<ReturnType<typeof world>>) {
  const connection = await dial(w.b);
  const stream = await connection.openStream();
  const initiatorNonce = randomBytes(32);
  await stream.write(frame(1, "peerHello", hello(initiatorNonce)));
  const answer = await helloAnswer(stream);
  await stream.write(frame(2, "peerProve", await proof(w, answer, { initiatorNonce })));
  return { connection, stream };
}

const refused = { code: "peerRefused" };

testEngines("the honest handshake of these tests is let in", async (engine) => {
  await using w = await world(engine);
  const peer = await link(w.b);
  const initiatorNonce = randomBytes(32);
  const answer = await peer.call("peerHello", hello(initiatorNonce));
  await peer.call("peerProve", await proof(w, answer, { initiatorNonce }));
  await peer.call("peerPing", {});
  assert.deepEqual(await refusals(w.b), {});
  peer.close();
});

testEngines(
  "a challenge that was signed for another server is refused, named as it is or forged",
  async (engine) => {
    await using w = await world(engine);
    // m.example passes b's nonce on to a.example, who signs it for m.example; then brings it here.
    const other = await FederationIdentity.read(await pemsFor(w.ca, "m.example"), Date.now());
    const initiatorNonce = randomBytes(32);
    const forM = { initiatorNonce, responderDomain: "m.example", responderLeafSha256: other.leafSha256 };
    const first = await link(w.b);
    const answer = await first.call("peerHello", hello(initiatorNonce));
    await assert.rejects(first.call("peerProve", await proof(w, answer, forM)), refused);
    const second = await link(w.b);
    const forged = await proof(w, await second.call("peerHello", hello(initiatorNonce)), forM);
    forged.responderLeafSha256 = w.b.identities.current.leafSha256;
    await assert.rejects(second.call("peerProve", forged), refused);
    assert.deepEqual(await refusals(w.b), { wrong_responder: 1, bad_signature: 1 });
  },
);

testEngines("a Hello for another server is refused", async (engine) => {
  await using w = await world(engine);
  await assert.rejects(
    (await link(w.b)).call("peerHello", hello(undefined, { responderDomain: "m.example" })),
    refused,
  );
  assert.deepEqual(await refusals(w.b), { wrong_responder: 1 });
});

testEngines("a proof of an earlier connection is refused", async (engine) => {
  await using w = await world(engine);
  const initiatorNonce = randomBytes(32);
  const first = await link(w.b);
  const replayed = await proof(w, await first.call("peerHello", hello(initiatorNonce)), { initiatorNonce });
  await first.call("peerProve", replayed);
  const second = await link(w.b);
  await second.call("peerHello", hello(initiatorNonce));
  await assert.rejects(second.call("peerProve", replayed), refused);
  assert.deepEqual(await refusals(w.b), { bad_signature: 1 });
  first.close();
});

testEngines("who does not prove anything in time is closed", async (engine) => {
  const clock = clockNow();
  await using w = await world(engine, { clock });
  const peer = await link(w.b);
  await peer.call("peerHello", hello());
  await clock.advance(PROVE_MS_MAX);
  await peer.closed;
  assert.deepEqual(await refusals(w.b), { timeout: 1 });
});

testEngines("requests before the proof are refused", async (engine) => {
  await using w = await world(engine);
  const peer = await link(w.b);
  await peer.call("peerHello", hello());
  await assert.rejects(peer.call("relay", { messages: [{}] }), refused);
  await assert.rejects((await link(w.b)).getBlob({}), refused);
  assert.deepEqual(await refusals(w.b), { protocol: 2 });
});

testEngines(
  "frames that are larger than a handshake's end the connection before the proof",
  async (engine) => {
    await using w = await world(engine);
    const connection = await dial(w.b);
    const stream = await connection.openStream();
    await stream.write(frame(1, "peerHello", hello(undefined, { serverVersion: "v".repeat(70_000) })));
    await connection.closed;
    const second = await dial(w.b);
    const header = new Uint8Array(4);
    new DataView(header.buffer).setUint32(0, FRAME_BODY_BYTES_MAX + 7);
    await (await second.openStream()).write(new Uint8Array([...header, 0, 0, 0, 1, 0, 101]));
    await second.closed;
    assert.deepEqual(await refusals(w.b), { protocol: 2 });
  },
);

/** A proven link of a.example. */
async function proven(w: Awaited<ReturnType<typeof world>>): Promise<PeerLink> {
  const peer = await link(w.b);
  const initiatorNonce = randomBytes(32);
  const answer = await peer.call("peerHello", hello(initiatorNonce));
  await peer.call("peerProve", await proof(w, answer, { initiatorNonce }));
  return peer;
}

testEngines("a peer has four connections and no more", async (engine) => {
  await using w = await world(engine);
  const links = [await proven(w), await proven(w), await proven(w), await proven(w)];
  await assert.rejects(proven(w), { code: "rateLimited" });
  assert.deepEqual(await refusals(w.b), { rate_limited: 1 });
  for (const each of links) each.close();
});

testEngines("connections beyond federation.connections_max are closed unheard", async (engine) => {
  await using w = await world(engine, { connectionsMax: 1 });
  const peer = await proven(w);
  const reason = await (await dial(w.b)).closed;
  assert.equal(reason.reason, "rateLimited");
  assert.deepEqual(await refusals(w.b), { rate_limited: 1 });
  peer.close();
});

testEngines(
  "messages beyond a peer's rate are refused with a time to retry, and none overtakes them",
  async (engine) => {
    const clock = clockNow();
    const relayed: string[] = [];
    await using w = await world(engine, { clock, peersPerSecond: 10, handlers: testHandlers(relayed) });
    const peer = await proven(w);
    await peer.call("relay", { messages: Array.from({ length: 100 }, () => ({})) });
    const twenty = { messages: Array.from({ length: 20 }, () => ({})) };
    const error = await peer.call("relay", twenty).then(() => null, (error) => error);
    assert.deepEqual([error.code, error.details], ["rateLimited", { retryAfterMs: 2000 }]);
    await clock.advance(1000);
    await assert.rejects(peer.call("relay", { messages: [{}] }), { code: "rateLimited" });
    await clock.advance(1000);
    await peer.call("relay", twenty);
    assert.deepEqual(relayed, ["a.example 100", "a.example 20"]);
    peer.close();
  },
);

testEngines("a peer that never reads its replies is closed", async (engine) => {
  const clock = clockNow();
  let asked = 0;
  const accountKey = new Uint8Array(4 << 20);
  const handlers = { ...testHandlers(), getAccount: async () => (asked++, { accountKey }) };
  await using w = await world(engine, { clock, handlers });
  const { connection, stream } = await provenConnection(w);
  for (let id = 3; id < 6; id++) await stream.write(frame(id, "peerGetAccount", {}));
  while (asked < 3) await clock.settle();
  await clock.advance(UNREAD_MS_MAX);
  // With a full window the close frame may stay behind: that the server lets go is what counts.
  while ((await w.b.metrics.peerConnections.get()).values[0]!.value > 0) await clock.settle();
  connection.close(0, "");
});

testEngines(
  "a peer that does not finish a frame in time is closed; whole frames before it do not count",
  async (engine) => {
    const clock = clockNow();
    await using w = await world(engine, { clock });
    const { connection, stream } = await provenConnection(w);
    assert.ok(await stream.read());
    await clock.advance(FRAME_DEADLINE_MS);
    const half = frame(3, "peerPing", { echo: new Uint8Array(20) });
    await stream.write(concat(frame(4, "peerPing", {}), half.subarray(0, 12)));
    assert.ok(await stream.read());
    await clock.settle();
    await clock.advance(FRAME_DEADLINE_MS);
    assert.equal((await connection.closed).reason, "protocolError");
    const { body } = await w.b.metrics.render();
    assert.match(body, /qpq_deadlines_missed_total\{deadline="frame"\} 1\n/);
    assert.deepEqual(await refusals(w.b), {});
  },
);

async function helloAnswer(stream: Stream): Promise<PeerHelloResponse> {
  const decoder = new FrameDecoder(() => FRAME_BODY_BYTES_MAX);
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
    for (const decoded of decoder.push(chunk)) {
      if (decoded.kind === "frame") return decodeReply(PEER_METHODS.peerHello.response, decoded.frame);
    }
  }
  throw new Error("The stream ended");
}

/** Which server is believed, what it is told before, and how pins follow it. */
import assert from "node:assert/strict";
import { hex } from "../../../mod/base/bytes.ts";
import {
  connectServer,
  type ConnectServerOptions,
  parseServerAddress,
  ServerIdentityError,
  type ServerLink,
} from "../../../mod/client/identity.ts";
import { inspectCertificate, makeLeaf } from "../../../mod/transport/tls.ts";
import type { ServerCertificate } from "../../../mod/transport/transport.ts";
import { type TestCertificates, testCertificates } from "../../support/certificates.ts";
import { type Exchange, type FramePeer, startFramePeer } from "../../support/frame_peer.ts";

const TOKEN = "the access token";

/** A peer that answers Hello, with what it was told. */
interface HelloPeer {
  readonly peer: FramePeer;
  /** The access token of each Hello, in order. */
  readonly tokens: string[];
  /** What the next Hello is answered with. */
  answer: Record<string, unknown>;
}

async function startHelloPeer(certificate: ServerCertificate, ca: ServerCertificate): Promise<HelloPeer> {
  const tokens: string[] = [];
  const answer = { certificateChain: chainOf(certificate, ca) };
  const onRequest = async (exchange: Exchange) => {
    tokens.push(exchange.request.accessToken as string);
    await exchange.reply(running.answer);
  };
  const running: HelloPeer = { peer: await startFramePeer({ certificate, onRequest }), tokens, answer };
  return running;
}

const leafHash = (certificate: ServerCertificate) =>
  inspectCertificate(certificate.certificatePem).leafSha256;
const chainOf = (...certificates: ServerCertificate[]) =>
  certificates.flatMap((one) => inspectCertificate(one.certificatePem).chainDer);

/** Connects with the token and closes again; gives what is remembered. */
async function connectOnce(
  running: HelloPeer,
  options: Partial<ConnectServerOptions>,
): Promise<ServerLink> {
  const link = await connectServer({ server: running.peer.server, accessToken: TOKEN, ...options });
  await link.connection.close();
  return link;
}

function identityTest(
  name: string,
  body: (running: HelloPeer, certificates: TestCertificates) => Promise<void>,
): void {
  Deno.test(name, async () => {
    const certificates = await testCertificates();
    const running = await startHelloPeer(certificates.leaf, certificates.ca);
    await using _peer = running.peer;
    await body(running, certificates);
  });
}

identityTest(
  "with a CA the token is given only after the chain was verified",
  async (running, { ca, leaf }) => {
    const link = await connectOnce(running, { choice: { ca: ca.certificatePem } });
    assert.deepEqual(running.tokens, ["", TOKEN]);
    assert.deepEqual(link.pinnedLeafSha256, leafHash(leaf));
  },
);

identityTest("a remembered server is pinned: one connection, with the token", async (running, { ca }) => {
  const choice = { ca: ca.certificatePem };
  const { trust } = await connectOnce(running, { choice });
  running.tokens.length = 0;
  await connectOnce(running, { choice, trust });
  await connectOnce(running, { trust });
  assert.deepEqual(running.tokens, [TOKEN, TOKEN]);
});

identityTest("another CA refuses the server and tells it nothing", async (running, { otherCa }) => {
  const choice = { ca: otherCa.certificatePem };
  await assert.rejects(connectOnce(running, { choice }), ServerIdentityError);
  assert.deepEqual(running.tokens, []);
});

identityTest(
  "a chain shown in-band that the CA did not sign is refused",
  async (running, { ca, otherCa }) => {
    const stranger = await makeLeaf({ ca: otherCa, names: ["127.0.0.1"], now: Date.now() });
    running.answer = { certificateChain: chainOf(stranger, otherCa) };
    await assert.rejects(connectOnce(running, { choice: { ca: ca.certificatePem } }), (error) => {
      assert(error instanceof ServerIdentityError);
      assert.equal(error.offered, hex(leafHash(stranger)));
      assert.match(error.message, /not signed by this CA/);
      return true;
    });
    assert.deepEqual(running.tokens, [""]);
  },
);

identityTest("a shown leaf that is not the one in use gets no token", async (running, { ca, nextLeaf }) => {
  running.answer = { certificateChain: chainOf(nextLeaf, ca) };
  await assert.rejects(connectOnce(running, { choice: { ca: ca.certificatePem } }), {
    name: "ServerIdentityError",
    message: /shows another certificate than it uses/,
  });
  assert.deepEqual(running.tokens, [""]);
});

identityTest("a fingerprint is enough, and the CA behind it is learnt", async (running, { ca, leaf }) => {
  const { trust } = await connectOnce(running, { choice: { fingerprint: leafHash(leaf) } });
  assert.equal(trust?.caPem?.trim(), ca.certificatePem.trim());
  assert.deepEqual(trust?.pins, [leafHash(leaf)]);
});

identityTest("another fingerprint is refused with both sides named", async (running) => {
  const wrong = new Uint8Array(32).fill(7);
  await assert.rejects(connectOnce(running, { choice: { fingerprint: wrong } }), (error) => {
    assert(error instanceof ServerIdentityError);
    assert.deepEqual(error.expected, [hex(wrong)]);
    assert.match(error.message, /expected fingerprint: 0707/);
    return true;
  });
  assert.deepEqual(running.tokens, []);
});

identityTest("an announced certificate is followed when it comes", async (running, certificates) => {
  const { ca, leaf, nextLeaf } = certificates;
  const choice = { fingerprint: leafHash(leaf) };
  running.answer = { certificateChain: chainOf(leaf), nextCertificateSha256: leafHash(nextLeaf) };
  const before = await connectOnce(running, { choice });
  assert.deepEqual(before.trust?.pins, [leafHash(leaf), leafHash(nextLeaf)]);
  running.peer.listener.replaceCertificate(nextLeaf);
  running.answer = { certificateChain: chainOf(nextLeaf, ca) };
  const after = await connectOnce(running, { choice, trust: before.trust });
  assert.deepEqual(after.pinnedLeafSha256, leafHash(nextLeaf));
  assert.deepEqual(after.trust?.pins, [leafHash(nextLeaf)]);
});

identityTest(
  "a rotation that was missed is followed if the known CA vouches for it",
  async (running, certificates) => {
    const { ca, leaf, nextLeaf } = certificates;
    const before = await connectOnce(running, { choice: { fingerprint: leafHash(leaf) } });
    running.peer.listener.replaceCertificate(nextLeaf);
    running.answer = { certificateChain: chainOf(nextLeaf, ca) };
    running.tokens.length = 0;
    const after = await connectOnce(running, { trust: before.trust });
    assert.deepEqual(after.trust?.pins, [leafHash(nextLeaf)]);
    assert.deepEqual(running.tokens, ["", TOKEN]); // verified before the token is given
  },
);

identityTest("a new choice replaces what is remembered", async (running, { ca, leaf }) => {
  const { trust } = await connectOnce(running, { choice: { fingerprint: leafHash(leaf) } });
  const stale = { ...trust!, pins: [new Uint8Array(32)] };
  const link = await connectOnce(running, { choice: { ca: ca.certificatePem }, trust: stale });
  assert.deepEqual(link.trust?.pins, [leafHash(leaf)]);
});

identityTest("without any identity a private server is refused, saying what to give", async (running) => {
  await assert.rejects(connectOnce(running, {}), { name: "ServerIdentityError", message: /--ca/ });
  assert.deepEqual(running.tokens, []);
});

Deno.test("parseServerAddress() reads names, IPv4 and IPv6 with and without port", () => {
  const read = (text: string) => {
    const { hostname, port } = parseServerAddress(text);
    return `${hostname} ${port}`;
  };
  assert.equal(read("chat.example.org"), "chat.example.org 7000");
  assert.equal(read("127.0.0.1:7001"), "127.0.0.1 7001");
  assert.equal(read("[::1]:7001"), "::1 7001");
  assert.equal(read("[::1]"), "::1 7000");
  assert.equal(read("2001:db8::1"), "2001:db8::1 7000");
  for (const wrong of ["", "a b", "host:", "host:0", "host:70000", "host:1:2x", "[::1"]) {
    assert.throws(() => parseServerAddress(wrong), TypeError, wrong);
  }
});

/** One connection seen as calls, against a peer whose every answer is written here. */
import assert from "node:assert/strict";
import { concat, sha256, utf8, utf8Text } from "../../../mod/base/bytes.ts";
import { QpqError } from "../../../mod/base/errors.ts";
import { CallTimeoutError, ClientConnection, ConnectionLostError } from "../../../mod/client/connection.ts";
import { connect } from "../../../mod/transport/deno_quic.ts";
import { FakeClock } from "../../support/fake_clock.ts";
import { type Exchange, type FramePeer, startFramePeer } from "../../support/frame_peer.ts";

/** A connection to `peer`; closed by the test. */
async function open(peer: FramePeer, clock?: FakeClock): Promise<ClientConnection> {
  const connection = await connect({
    ...peer.server,
    identity: { kind: "pinned", leafSha256: [peer.leafSha256] },
    idleTimeoutMs: 30_000,
  });
  return await ClientConnection.open(connection, clock ? { clock } : {});
}

/** Collects requests until there are `count`, then hands them to `then`. */
function gather(count: number, then: (exchanges: Exchange[]) => void) {
  const exchanges: Exchange[] = [];
  return (exchange: Exchange) => {
    if (exchanges.push(exchange) === count) then(exchanges);
  };
}

const echoOf = (exchange: Exchange) => ({ echo: exchange.request.echo as Uint8Array });

Deno.test("call() matches answers to requests whatever their order", async () => {
  const reversed = gather(20, (exchanges) => {
    for (const exchange of exchanges.reverse()) exchange.reply(echoOf(exchange));
  });
  await using peer = await startFramePeer({ onRequest: reversed });
  await using connection = await open(peer);
  connection.limitInFlight(20);
  const calls = Array.from({ length: 20 }, (_, i) => connection.call("ping", { echo: utf8(`ping ${i}`) }));
  const answers = await Promise.all(calls);
  assert.deepEqual(
    answers.map(({ echo }) => utf8Text(echo)),
    calls.map((_, i) => `ping ${i}`),
  );
});

Deno.test("call() rejects with the server's error, its details and its name", async () => {
  await using peer = await startFramePeer({
    onRequest: (exchange) => exchange.refuse("wrongEpoch", { retryAfterMs: 1500, currentEpoch: 7n }),
  });
  await using connection = await open(peer);
  await assert.rejects(connection.call("enqueue", {}), (error) => {
    assert(error instanceof QpqError);
    assert.equal(error.code, "wrongEpoch");
    assert.deepEqual(error.details, { retryAfterMs: 1500, currentEpoch: 7 });
    return true;
  });
});

Deno.test("call() shows the text of an error that this version does not know", async () => {
  await using peer = await startFramePeer({ onRequest: (exchange) => exchange.refuse(999) });
  await using connection = await open(peer);
  await assert.rejects(connection.call("ping", {}), { code: "internal", message: "from the future" });
});

Deno.test("call() rejects when the answer does not come in time, and the connection goes on", async () => {
  const clock = new FakeClock();
  const asked = Promise.withResolvers<Exchange>();
  let first = true;
  await using peer = await startFramePeer({
    onRequest(exchange) {
      if (!first) return exchange.reply(echoOf(exchange));
      first = false;
      asked.resolve(exchange);
    },
  });
  await using connection = await open(peer, clock);
  const late = connection.call("ping", { echo: utf8("late") }, { timeoutMs: 1000 });
  const refused = assert.rejects(late, CallTimeoutError);
  const exchange = await asked.promise;
  await clock.advance(1000);
  await refused;
  await exchange.reply({ echo: utf8("too late") });
  assert.equal(utf8Text((await connection.call("ping", { echo: utf8("next") })).echo), "next");
});

Deno.test("call() keeps at most the announced number of requests in flight", async () => {
  let open2 = 0;
  let most = 0;
  const batch: Exchange[] = [];
  await using peer = await startFramePeer({
    onRequest(exchange) {
      most = Math.max(most, ++open2);
      batch.push(exchange);
      if (batch.length < 3) return;
      open2 = 0;
      for (const one of batch.splice(0)) one.reply(echoOf(one));
    },
  });
  await using connection = await open(peer);
  connection.limitInFlight(3);
  await Promise.all(Array.from({ length: 12 }, () => connection.call("ping", {})));
  assert.equal(most, 3);
});

Deno.test("call() rejects with ConnectionLostError when the server goes away", async () => {
  await using peer = await startFramePeer({
    onRequest: (exchange) => exchange.connection.close(3, "shuttingDown"),
  });
  await using connection = await open(peer);
  connection.limitInFlight(1);
  const calls = [connection.call("ping", {}), connection.call("ping", {})];
  for (const call of calls) {
    await assert.rejects(call, (error) => {
      assert(error instanceof ConnectionLostError);
      assert.equal(error.closeCode, 3);
      assert.match(error.message, /shuttingDown/);
      return true;
    });
  }
  await assert.rejects(connection.call("ping", {}), ConnectionLostError);
  assert.equal(connection.isOpen, false);
});

Deno.test("subscribe() yields pushes and ends with the server's reason", async () => {
  await using peer = await startFramePeer({
    async onRequest(exchange) {
      await exchange.reply({ cursor: { nextSeq: 3n } });
      await exchange.reply({ entries: [{ seq: 1n }, { seq: 2n }] });
      await exchange.refuse("replaced");
    },
  });
  await using connection = await open(peer);
  const seqs: bigint[][] = [];
  await assert.rejects(async () => {
    for await (const batch of connection.subscribe({ after: 0n })) {
      seqs.push(batch.entries.map((entry) => entry.seq));
    }
  }, { code: "replaced" });
  assert.deepEqual(seqs, [[], [1n, 2n]]);
});

const blob = concat(...Array.from({ length: 50 }, (_, i) => new Uint8Array(4000).fill(i)));

async function* chunksOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += 7000) yield bytes.subarray(offset, offset + 7000);
}

Deno.test("putBlob() sends every byte behind its frame", async () => {
  let received: Uint8Array = new Uint8Array(0);
  await using peer = await startFramePeer({
    async onRequest(exchange) {
      const parts = [exchange.rest];
      const length = () => parts.reduce((sum, part) => sum + part.length, 0);
      while (length() < blob.length) parts.push((await exchange.stream.read())!);
      received = concat(...parts);
      await exchange.reply({ expiresAtMs: 5n });
    },
  });
  await using connection = await open(peer);
  const request = { sha256: await sha256(blob), size: BigInt(blob.length) };
  const { expiresAtMs } = await connection.putBlob(request, chunksOf(blob));
  assert.equal(expiresAtMs, 5n);
  assert.deepEqual(received, blob);
});

Deno.test("putBlob() stops sending when the server refuses", async () => {
  await using peer = await startFramePeer({
    async onRequest(exchange) {
      await exchange.refuse("blobQuotaExceeded"); // and reads nothing more
    },
  });
  await using connection = await open(peer);
  let ended = false;
  async function* endless() {
    try {
      while (true) yield blob;
    } finally {
      ended = true;
    }
  }
  await assert.rejects(connection.putBlob({ size: 1n << 40n }, endless()), { code: "blobQuotaExceeded" });
  assert(ended, "the body was not told to end");
});

Deno.test("getBlob() yields exactly the announced bytes", async () => {
  await using peer = await startFramePeer({
    async onRequest(exchange) {
      await exchange.reply({ size: BigInt(blob.length), length: BigInt(blob.length) });
      await exchange.stream.write(blob);
    },
  });
  await using connection = await open(peer);
  const download = await connection.getBlob({ sha256: await sha256(blob) });
  assert.equal(download.size, blob.length);
  assert.deepEqual(concat(...await Array.fromAsync(download.body)), blob);
});

Deno.test("getBlob() fails when bytes are missing at the end of the stream", async () => {
  await using peer = await startFramePeer({
    async onRequest(exchange) {
      await exchange.reply({ size: 10n, length: 10n });
      await exchange.stream.write(utf8("short"));
      await exchange.stream.closeWrite();
    },
  });
  await using connection = await open(peer);
  const download = await connection.getBlob({});
  await assert.rejects(Array.fromAsync(download.body), ConnectionLostError);
});

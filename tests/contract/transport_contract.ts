/**
 * What every engine of mod/transport promises, checked over real sockets on loopback. Beside the engine under test
 * only Deno's QUIC client appears, as the stranger who speaks another protocol.
 */
import assert from "node:assert/strict";
import type { Bytes } from "../../mod/base/bytes.ts";
import { concat, equal, randomBytes, utf8, utf8Text } from "../../mod/base/bytes.ts";
import { inspectCertificate, makeLeaf } from "../../mod/transport/tls.ts";
import type {
  Connection,
  ConnectOptions,
  Listener,
  ListenOptions,
  Stream,
} from "../../mod/transport/transport.ts";
import { testCertificates } from "../support/certificates.ts";
import { UdpRelay } from "../support/udp_relay.ts";

/** An engine: the two functions that it consists of. */
export interface TransportEngine {
  listen(options: ListenOptions): Listener | Promise<Listener>;
  connect(options: ConnectOptions): Promise<Connection>;
  /** Nothing is kept for an address that has not answered: there are no half-open handshakes of the mute. */
  readonly validatesAddresses?: true;
}

const IDLE_TIMEOUT_MS = 10_000;

/** A listener with its CA, and ways to reach it. */
class Fixture implements AsyncDisposable {
  constructor(readonly engine: TransportEngine, readonly listener: Listener, readonly caPem: string) {}

  static async open(engine: TransportEngine, options: Partial<ListenOptions> = {}): Promise<Fixture> {
    const { ca, leaf } = await testCertificates();
    const listener = await engine.listen({
      hostname: "127.0.0.1",
      port: 0,
      certificate: leaf,
      idleTimeoutMs: IDLE_TIMEOUT_MS,
      streamsMax: 8,
      handshakesMax: 64,
      ...options,
    });
    return new Fixture(engine, listener, ca.certificatePem);
  }

  connect(options: Partial<ConnectOptions> = {}): Promise<Connection> {
    return this.engine.connect({
      hostname: "127.0.0.1",
      port: this.listener.address.port,
      identity: { kind: "roots", caPem: this.caPem },
      idleTimeoutMs: IDLE_TIMEOUT_MS,
      ...options,
    });
  }

  /** A connection seen from both sides; nobody else may take connections meanwhile. */
  async pair(options: Partial<ConnectOptions> = {}): Promise<{ client: Connection; server: Connection }> {
    const [client, server] = await Promise.all([this.connect(options), first(this.listener.connections())]);
    return { client, server };
  }

  /** Echoes every stream of every connection until the listener stops. */
  async echo(): Promise<void> {
    const connections: Promise<void>[] = [];
    for await (const connection of this.listener.connections()) connections.push(echoStreams(connection));
    await Promise.all(connections);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.listener.close();
  }
}

async function first<Value>(values: AsyncIterable<Value>): Promise<Value> {
  for await (const value of values) return value;
  throw new Error("There is none");
}

async function echoStreams(connection: Connection): Promise<void> {
  const streams: Promise<void>[] = [];
  for await (const stream of connection.incomingStreams()) streams.push(echoStream(stream));
  await Promise.all(streams);
}

async function echoStream(stream: Stream): Promise<void> {
  try {
    for (let bytes = await stream.read(); bytes; bytes = await stream.read()) await stream.write(bytes);
  } catch {
    // The peer left; the test sees it on its side.
  }
  await stream.closeWrite();
}

async function readAll(stream: Stream): Promise<Bytes> {
  const parts: Bytes[] = [];
  for (let bytes = await stream.read(); bytes; bytes = await stream.read()) parts.push(bytes);
  return concat(...parts);
}

/** Sends `bytes` on a stream of its own and returns what comes back. */
async function roundTrip(connection: Connection, bytes: Uint8Array): Promise<Bytes> {
  const stream = await connection.openStream();
  const answer = readAll(stream);
  await stream.write(bytes);
  await stream.closeWrite();
  return await answer;
}

/** A UDP socket that closes with its block. */
function datagramSocket(): { conn: Deno.DatagramConn } & AsyncDisposable {
  const conn = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  return { conn, [Symbol.asyncDispose]: async () => conn.close() };
}

/** Registers the suite for one engine. */
export function transportContract(name: string, engine: TransportEngine): void {
  const check = (what: string, body: () => Promise<void>) => Deno.test(`transport ${name}: ${what}`, body);

  check("a listener speaks the protocol that it was given, and no other", async () => {
    await using fixture = await Fixture.open(engine, { alpn: "other/1" });
    await assert.rejects(fixture.connect(), { name: "ConnectError", problem: "protocol" });
    const { client, server } = await fixture.pair({ alpn: "other/1" });
    await client[Symbol.asyncDispose]();
    await server.closed;
  });

  check("the certificate has to be for serverName, whatever the address is", async () => {
    const { ca } = await testCertificates();
    const certificate = await makeLeaf({ ca, names: ["a.example"], now: Date.now() });
    await using fixture = await Fixture.open(engine, { certificate });
    const refused = { name: "ConnectError", problem: "certificate" };
    await assert.rejects(fixture.connect(), refused);
    await assert.rejects(fixture.connect({ serverName: "b.example" }), refused);
    const { client, server } = await fixture.pair({ serverName: "a.example" });
    await client[Symbol.asyncDispose]();
    await server.closed;
  });

  check("port 0 gives a real port, and both sides know each other's address", async () => {
    await using fixture = await Fixture.open(engine);
    const { client, server } = await fixture.pair();
    assert.notEqual(fixture.listener.address.port, 0);
    assert.deepEqual(client.remoteAddress, { hostname: "127.0.0.1", port: fixture.listener.address.port });
    assert.equal(server.remoteAddress.hostname, "127.0.0.1");
    await client[Symbol.asyncDispose]();
    await server.closed;
  });

  check("bytes come back whole, from one to megabytes", async () => {
    await using fixture = await Fixture.open(engine);
    const served = fixture.echo();
    {
      await using client = await fixture.connect();
      for (const length of [1, 2047, 2048, 2049, 65_536, 3_000_000]) {
        const sent = randomBytesOf(length);
        assert.ok(equal(await roundTrip(client, sent), sent), `${length} bytes differ`);
      }
    }
    fixture.listener.stopAccepting();
    await served;
  });

  check("a buffer that was read stays what it was", async () => {
    await using fixture = await Fixture.open(engine);
    const { client, server } = await fixture.pair();
    const out = await client.openStream();
    await out.write(utf8("first"));
    const stream = await first(server.incomingStreams());
    const kept = await stream.read();
    await out.write(utf8("other"));
    await stream.read();
    assert.equal(utf8Text(kept!), "first");
  });

  check("openStream() waits while the peer allows no more streams", async () => {
    await using fixture = await Fixture.open(engine, { streamsMax: 2 });
    const served = fixture.echo();
    await using client = await fixture.connect();
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => roundTrip(client, utf8(`stream ${index}`))),
    );
    assert.deepEqual(answers.map(utf8Text), Array.from({ length: 20 }, (_, index) => `stream ${index}`));
    client.close(0, "");
    fixture.listener.stopAccepting();
    await served;
  });

  check("connections at once do not mix", async () => {
    await using fixture = await Fixture.open(engine);
    const served = fixture.echo();
    await Promise.all(Array.from({ length: 10 }, async (_, index) => {
      await using client = await fixture.connect();
      const sent = new Uint8Array(50_000).fill(index);
      assert.ok(equal(await roundTrip(client, sent), sent));
    }));
    fixture.listener.stopAccepting();
    await served;
  });

  check("closeWrite() ends one direction and leaves the other", async () => {
    await using fixture = await Fixture.open(engine);
    const { client, server } = await fixture.pair();
    const ours = await client.openStream();
    await ours.write(utf8("question"));
    await ours.closeWrite();
    const theirs = await first(server.incomingStreams());
    assert.equal(utf8Text(await readAll(theirs)), "question");
    assert.equal(await theirs.read(), null);
    await theirs.write(utf8("answer"));
    await theirs.closeWrite();
    assert.equal(utf8Text(await readAll(ours)), "answer");
  });

  check("abort() ends the peer's reads and one's own", async () => {
    await using fixture = await Fixture.open(engine);
    const { client, server } = await fixture.pair();
    const ours = await client.openStream();
    await ours.write(utf8("x"));
    const theirs = await first(server.incomingStreams());
    assert.equal(utf8Text((await theirs.read())!), "x");
    const waiting = ours.read();
    ours.abort();
    assert.equal(await waiting, null);
    assert.equal(await theirs.read(), null);
    await assert.rejects(ours.write(utf8("y")), Error);
  });

  check("stopReading() ends the peer's writes and leaves one's own alone", async () => {
    await using fixture = await Fixture.open(engine);
    const { client, server } = await fixture.pair();
    const ours = await client.openStream();
    await ours.write(utf8("before "));
    const theirs = await first(server.incomingStreams());
    ours.stopReading();
    assert.equal(await ours.read(), null);
    await ours.write(utf8("after"));
    await ours.closeWrite();
    assert.equal(utf8Text(await readAll(theirs)), "before after");
    await assert.rejects(async () => {
      while (true) await theirs.write(new Uint8Array(1_000));
    });
  });

  check("close() shows code and reason to the peer and ends everything here", async () => {
    await using fixture = await Fixture.open(engine);
    const { client, server } = await fixture.pair();
    const stream = await client.openStream();
    await stream.write(utf8("x"));
    const theirs = await first(server.incomingStreams());
    await theirs.read();
    const waiting = Promise.all([stream.read(), theirs.read()]);
    client.close(42, "enough");
    client.close(43, "a second call changes nothing");
    assert.deepEqual(await client.closed, { code: 42, reason: "enough", by: "local" });
    assert.deepEqual(await server.closed, { code: 42, reason: "enough", by: "peer" });
    assert.deepEqual(await waiting, [null, null]);
    await assert.rejects(client.openStream(), Error);
    await assert.rejects(server.openStream(), Error);
    await assert.rejects(stream.write(utf8("y")), Error);
    await stream.closeWrite();
    stream.abort();
    for await (const _ of client.incomingStreams()) assert.fail("a stream after the end");
  });

  check("the listener's side can end a connection, and its streams end there", async () => {
    await using fixture = await Fixture.open(engine);
    const { client, server } = await fixture.pair();
    const streams = (async () => {
      for await (const _ of client.incomingStreams()) assert.fail("there is none");
    })();
    server.close(7, "not you");
    assert.deepEqual(await client.closed, { code: 7, reason: "not you", by: "peer" });
    await streams;
  });

  check("a peer that vanishes is noticed at the idle timeout", async () => {
    await using fixture = await Fixture.open(engine, { idleTimeoutMs: 400 });
    await using relay = new UdpRelay(fixture.listener.address.port);
    const { client, server } = await fixture.pair({ port: relay.port });
    const ours = await client.openStream();
    await ours.write(utf8("x"));
    const theirs = await first(server.incomingStreams());
    await theirs.read();
    const waiting = theirs.read();
    relay.cut();
    assert.equal((await server.closed).by, "timeout");
    assert.equal((await client.closed).by, "timeout");
    assert.equal(await waiting, null);
    await assert.rejects(theirs.write(utf8("y")), Error);
  });

  check("a silent connection is kept alive beyond the idle timeout", async () => {
    await using fixture = await Fixture.open(engine, { idleTimeoutMs: 300 });
    const { client, server } = await fixture.pair();
    // A second one without keep-alives on either side would be gone; its time is the measure.
    await using relay = new UdpRelay(fixture.listener.address.port);
    const lost = await fixture.pair({ port: relay.port });
    relay.cut();
    await Promise.all([lost.client.closed, lost.server.closed]);
    const stream = await client.openStream();
    await stream.write(utf8("still here"));
    const theirs = await first(server.incomingStreams());
    assert.equal(utf8Text((await theirs.read())!), "still here");
  });

  check("strangers and refused certificates end nothing but themselves", async () => {
    const failures: string[] = [];
    let allSeen = () => {};
    const seen = new Promise<void>((resolve) => allSeen = resolve);
    const onHandshakeFailure = (kind: string) => failures.push(kind) === 2 && allSeen();
    await using fixture = await Fixture.open(engine, { onHandshakeFailure });
    const served = fixture.echo();
    const { otherCa } = await testCertificates();
    await assert.rejects(
      fixture.connect({ identity: { kind: "roots", caPem: otherCa.certificatePem } }),
      { name: "ConnectError", problem: "certificate" },
    );
    const stranger = { hostname: "127.0.0.1", port: fixture.listener.address.port, caCerts: [fixture.caPem] };
    await assert.rejects(async () => await Deno.connectQuic({ ...stranger, alpnProtocols: ["h3"] }));
    await seen;
    assert.deepEqual(failures, ["failed", "failed"]);
    await using client = await fixture.connect();
    assert.equal(utf8Text(await roundTrip(client, utf8("well"))), "well");
    client.close(0, "");
    fixture.listener.stopAccepting();
    await served;
  });

  check("3,000 garbage datagrams disturb nobody", async () => {
    await using fixture = await Fixture.open(engine);
    const served = fixture.echo();
    await using client = await fixture.connect();
    await using socket = datagramSocket();
    const target = { transport: "udp", hostname: "127.0.0.1", port: fixture.listener.address.port } as const;
    for (let index = 0; index < 3_000; index++) {
      const packet = randomBytes(1 + (index * 37) % 1_400);
      // Every other one looks like the beginning of a handshake (long header, version 1).
      if (index % 2) packet.set([0xc0, 0, 0, 0, 1].slice(0, packet.length));
      await socket.conn.send(packet, target);
      if (index % 500 === 0) assert.equal(utf8Text(await roundTrip(client, utf8("busy"))), "busy");
    }
    await using next = await fixture.connect();
    assert.equal(utf8Text(await roundTrip(next, utf8("new"))), "new");
    assert.equal(utf8Text(await roundTrip(client, utf8("old"))), "old");
    client.close(0, "");
    next.close(0, "");
    fixture.listener.stopAccepting();
    await served;
  });

  check("replaceCertificate() serves the new one and keeps live connections", async () => {
    await using fixture = await Fixture.open(engine);
    const served = fixture.echo();
    const { leaf, nextLeaf } = await testCertificates();
    const pinned = (pem: string) => ({
      identity: { kind: "pinned", leafSha256: [inspectCertificate(pem).leafSha256] } as const,
    });
    await using old = await fixture.connect(pinned(leaf.certificatePem));
    fixture.listener.replaceCertificate(nextLeaf);
    for (let round = 0; round < 6; round++) {
      await using client = await fixture.connect(pinned(nextLeaf.certificatePem));
      assert.equal(utf8Text(await roundTrip(client, utf8("new"))), "new");
      await assert.rejects(fixture.connect(pinned(leaf.certificatePem)), { problem: "certificate" });
    }
    assert.equal(utf8Text(await roundTrip(old, utf8("old"))), "old");
    old.close(0, "");
    fixture.listener.stopAccepting();
    await served;
  });

  check("replaceCertificate() with an unusable one throws and keeps the present", async () => {
    await using fixture = await Fixture.open(engine);
    const { leaf, nextLeaf } = await testCertificates();
    for (
      const unusable of [
        { certificatePem: "", privateKeyPem: leaf.privateKeyPem },
        { certificatePem: leaf.certificatePem, privateKeyPem: "" },
        { certificatePem: leaf.certificatePem, privateKeyPem: nextLeaf.privateKeyPem },
      ]
    ) assert.throws(() => fixture.listener.replaceCertificate(unusable));
    const { client } = await fixture.pair();
    client.close(0, "");
  });

  check("stopAccepting() ends the iteration, refuses new connections and keeps the present", async () => {
    await using fixture = await Fixture.open(engine);
    const connections = fixture.listener.connections()[Symbol.asyncIterator]();
    const [client, next] = await Promise.all([fixture.connect(), connections.next()]);
    const served = echoStreams(next.value);
    fixture.listener.stopAccepting();
    assert.equal((await connections.next()).done, true);
    await assert.rejects(fixture.connect(), { name: "ConnectError", problem: "unreachable" });
    assert.equal(utf8Text(await roundTrip(client, utf8("still"))), "still");
    await client[Symbol.asyncDispose]();
    await served;
  });

  check("handshakes beyond the cap are refused, connections that nobody took yet among them", async () => {
    const failures: string[] = [];
    await using fixture = await Fixture.open(engine, {
      handshakesMax: 2,
      onHandshakeFailure: (kind) => failures.push(kind),
      onHandshakeRefused: (limit) => failures.push(limit),
    });
    const waiting = [await fixture.connect(), await fixture.connect()];
    await assert.rejects(fixture.connect(), { name: "ConnectError", problem: "unreachable" });
    assert.deepEqual(failures, ["handshakes", "refused"]);
    await first(fixture.listener.connections());
    const third = await fixture.connect();
    for (const connection of [...waiting, third]) connection.close(0, "");
  });

  check("handshakes beyond the rate are refused", async () => {
    const refused: string[] = [];
    await using fixture = await Fixture.open(engine, {
      handshakesPerSecondMax: 0.001,
      onHandshakeRefused: (limit) => refused.push(limit),
    });
    const { client } = await fixture.pair();
    await assert.rejects(fixture.connect(), { name: "ConnectError", problem: "unreachable" });
    assert.deepEqual(refused, ["handshakeRate"]);
    client.close(0, "");
  });

  check("half-open handshakes hold the cap only for a while", async () => {
    let late = 0;
    await using fixture = await Fixture.open(engine, {
      handshakesMax: 1,
      handshakeTimeoutMs: 100,
      onHandshakeLate: () => late++,
    });
    await using relay = new UdpRelay(fixture.listener.address.port);
    relay.muteServer();
    const abort = new AbortController();
    let pending = true;
    const halfOpen = assert.rejects(fixture.connect({ port: relay.port, signal: abort.signal }))
      .finally(() => pending = false);
    await relay.clientSpoke;
    let connection: Connection | undefined;
    while (!connection && pending) connection = await fixture.connect().catch(() => undefined);
    assert.ok(connection, "nobody gets in as long as a handshake is half-open");
    assert.equal(late, engine.validatesAddresses ? 0 : 1);
    connection.close(0, "");
    abort.abort();
    await halfOpen;
  });

  check("close() of the listener ends its connections", async () => {
    const fixture = await Fixture.open(engine);
    const { client, server } = await fixture.pair();
    const stream = await client.openStream();
    const waiting = stream.read();
    await Promise.all([fixture.listener.close(), fixture.listener.close()]);
    assert.equal((await client.closed).by, "peer");
    await server.closed;
    assert.equal(await waiting, null);
  });

  check(
    "write() waits for a peer that does not read, others go on, and it ends with the connection",
    async () => {
      await using fixture = await Fixture.open(engine);
      const { client, server } = await fixture.pair();
      const stuck = await client.openStream();
      const busy = await client.openStream();
      await stuck.write(utf8("x"));
      await busy.write(utf8("x"));
      const streams = server.incomingStreams()[Symbol.asyncIterator]();
      const theirStuck: Stream = (await streams.next()).value!;
      const theirBusy: Stream = (await streams.next()).value!;
      const echoed = echoStream(theirBusy);
      await busy.read();
      let state: "idle" | "waiting" = "idle";
      let writtenBytes = 0;
      const chunk = new Uint8Array(256 * 1024);
      const writing = (async () => {
        while (true) {
          state = "waiting";
          await stuck.write(chunk);
          state = "idle";
          writtenBytes += chunk.length;
        }
      })();
      const failed = assert.rejects(writing, Error);
      // Round trips are the clock here: a write that survives 50 of them without progress waits.
      for (let quiet = 0, seen = -1; quiet < 50; quiet = seen === writtenBytes ? quiet + 1 : 0) {
        seen = writtenBytes;
        await busy.write(utf8("ping"));
        assert.equal(utf8Text((await busy.read())!), "ping");
        assert.ok(writtenBytes < 64 * 1024 * 1024, "writes into a stream that nobody reads never wait");
      }
      assert.equal(state, "waiting");
      const before = writtenBytes;
      while (writtenBytes <= before + chunk.length) await theirStuck.read();
      client.close(0, "");
      await failed;
      // A close frame may wait behind unacknowledged data and never leave; the test need not wait for it.
      server.close(0, "");
      await echoed;
    },
  );

  check("connect() gives up at its time limit and when told to", async () => {
    await using deaf = datagramSocket();
    const { port } = deaf.conn.addr as Deno.NetAddr;
    await using fixture = await Fixture.open(engine);
    await assert.rejects(
      fixture.connect({ port, handshakeTimeoutMs: 50 }),
      { name: "ConnectError", problem: "unreachable" },
    );
    const abort = new AbortController();
    const attempt = fixture.connect({ port, signal: abort.signal });
    await deaf.conn.receive();
    abort.abort();
    await assert.rejects(attempt, { name: "ConnectError", problem: "failed" });
    await assert.rejects(fixture.connect({ signal: abort.signal }), {
      name: "ConnectError",
      problem: "failed",
    });
  });
}

/** Random bytes beyond what one call of the random source gives. */
function randomBytesOf(length: number): Bytes {
  const bytes = new Uint8Array(length);
  for (let offset = 0; offset < length; offset += 65_536) {
    crypto.getRandomValues(bytes.subarray(offset, offset + 65_536));
  }
  return bytes;
}

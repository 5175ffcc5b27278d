/** Engine quiche on a bad network and among hostile packets. */
import assert from "node:assert/strict";
import { equal, randomBytes } from "../../../mod/base/bytes.ts";
import { connect, listen } from "../../../mod/transport/quiche.ts";
import type { Connection, Listener } from "../../../mod/transport/transport.ts";
import { testCertificates } from "../../support/certificates.ts";
import { UdpProxy } from "../../support/udp_proxy.ts";

async function open(): Promise<Listener> {
  const { leaf } = await testCertificates();
  const bounds = { idleTimeoutMs: 10_000, streamsMax: 8, handshakesMax: 64 };
  return await listen({ hostname: "127.0.0.1", port: 0, certificate: leaf, ...bounds });
}

async function connectTo(port: number): Promise<Connection> {
  const { ca } = await testCertificates();
  const identity = { kind: "roots", caPem: ca.certificatePem } as const;
  return await connect({ hostname: "127.0.0.1", port, identity, idleTimeoutMs: 10_000 });
}

async function echoAll(listener: Listener): Promise<void> {
  for await (const connection of listener.connections()) echoStreams(connection);
}

async function echoStreams(connection: Connection): Promise<void> {
  for await (const stream of connection.incomingStreams()) {
    for (let bytes = await stream.read(); bytes; bytes = await stream.read()) await stream.write(bytes);
    await stream.closeWrite();
  }
}

async function echoed(connection: Connection, sent: Uint8Array): Promise<boolean> {
  const stream = await connection.openStream();
  const writing = stream.write(sent).then(() => stream.closeWrite());
  let length = 0;
  let same = true;
  for (let bytes = await stream.read(); bytes; bytes = await stream.read()) {
    same &&= equal(bytes, sent.subarray(length, length + bytes.length));
    length += bytes.length;
  }
  await writing;
  return same && length === sent.length;
}

Deno.test("a transfer survives 5 % of loss", async () => {
  await using listener = await open();
  const served = echoAll(listener);
  await using proxy = new UdpProxy(listener.address.port, { seed: 5, loss: 0.05 });
  const client = await connectTo(proxy.port);
  assert.ok(await echoed(client, new Uint8Array(300_000).map((_, index) => index * 7)));
  assert.ok(proxy.counts.lost > 0);
  client.close(0, "");
  listener.stopAccepting();
  await served;
});

/** Passes a connection's packets on and keeps copies of the client's. */
async function recorded(port: number): Promise<Uint8Array[]> {
  const packets: Uint8Array[] = [];
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const loop = (async () => {
    let client: Deno.Addr | undefined;
    for await (const [packet, from] of socket) {
      const fromServer = (from as Deno.NetAddr).port === port;
      if (!fromServer) packets.push(packet.slice());
      if (!fromServer) client = from;
      await socket.send(packet, fromServer ? client! : { transport: "udp", hostname: "127.0.0.1", port });
    }
  })();
  const connection = await connectTo((socket.addr as Deno.NetAddr).port);
  await echoed(connection, randomBytes(20_000));
  await connection[Symbol.asyncDispose]();
  socket.close();
  await loop;
  return packets;
}

Deno.test("10,000 random, truncated and replayed packets leave nothing behind", async () => {
  await using listener = await open();
  const served = echoAll(listener);
  const packets = await recorded(listener.address.port);
  const live = await connectTo(listener.address.port);
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const target = { transport: "udp", hostname: "127.0.0.1", port: listener.address.port } as const;
  for (let index = 0; index < 10_000; index++) {
    const known = packets[index % packets.length]!;
    const hostile = [randomBytes(1 + index % 1_400), known.subarray(0, 1 + index % known.length), known];
    await socket.send(hostile[index % 3]!, target);
    if (index % 1_000 === 0) assert.ok(await echoed(live, randomBytes(100)));
  }
  socket.close();
  assert.ok(await echoed(live, randomBytes(1_000)));
  const next = await connectTo(listener.address.port);
  for (const connection of [live, next]) connection.close(0, "");
  listener.stopAccepting();
  await served;
});

Deno.test("connections that are closed at once leave no handshakes behind", async () => {
  await using listener = await open();
  const served = echoAll(listener);
  for (let index = 0; index < 80; index++) (await connectTo(listener.address.port)).close(0, ""); // cap: 64
  listener.stopAccepting();
  await served;
});

/**
 * The limit that the network sets: frames of the size of an Enqueue to another process and an answer to each, on the
 * server's QUIC engine and by the load generator's own lanes, with nothing in between; and handshakes with nobody
 * behind them. Starts the other process by itself. Prints one JSON line:
 *
 *   deno run … tests/bench/echo.ts frames|handshakes --connections N --in-flight N [--seconds S] [--payload N]
 */
import { parseArgs } from "node:util";
import { randomBytes } from "../../mod/base/bytes.ts";
import { EnqueueTemplate, newRun } from "../../mod/client/bench/enqueue_template.ts";
import { FrameScanner } from "../../mod/client/bench/frame_scanner.ts";
import { Lane } from "../../mod/client/bench/lane.ts";
import { Meter } from "../../mod/client/bench/meter.ts";
import { CLOSED_LOOP } from "../../mod/client/bench/pace.ts";
import { runWorkers } from "../../mod/client/bench/workers.ts";
import { encodeFrame } from "../../mod/protocol/frame.ts";
import { connect, listen } from "../../mod/transport/deno_quic.ts";
import { parseFingerprint } from "../../mod/transport/fingerprint.ts";
import { inspectCertificate } from "../../mod/transport/tls.ts";
import type { Connection, Stream } from "../../mod/transport/transport.ts";
import { fingerprintText } from "../../mod/transport/fingerprint.ts";
import { testCertificates } from "../support/certificates.ts";

/** Bytes of an EnqueueResponse for one recipient. */
const REPLY = encodeFrame(0, 0, new Uint8Array(14));
const WARM_UP_SECONDS = 0.5;
const IDLE_TIMEOUT_MS = 30_000;

async function serve(): Promise<void> {
  const { leaf } = await testCertificates();
  const listener = listen({
    hostname: "127.0.0.1",
    port: 0,
    certificate: leaf,
    idleTimeoutMs: IDLE_TIMEOUT_MS,
    streamsMax: 16,
    handshakesMax: 16_384,
  });
  const fingerprint = fingerprintText(inspectCertificate(leaf.certificatePem).leafSha256);
  console.log(JSON.stringify({ port: listener.address.port, fingerprint }));
  for await (const connection of listener.connections()) serveConnection(connection);
}

async function serveConnection(connection: Connection): Promise<void> {
  for await (const stream of connection.incomingStreams()) echo(stream).catch(() => {}); // the client has left
}

/** All answers to what came in one read leave in one write. */
async function echo(stream: Stream): Promise<void> {
  let replies: number[] = [];
  const scanner = new FrameScanner((id) => replies.push(id));
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
    scanner.push(chunk);
    if (replies.length === 0) continue;
    const bytes = new Uint8Array(replies.length * REPLY.length);
    const view = new DataView(bytes.buffer);
    for (const [index, id] of replies.entries()) {
      bytes.set(REPLY, index * REPLY.length);
      view.setUint32(index * REPLY.length + 4, id);
    }
    replies = [];
    await stream.write(bytes);
  }
}

/** How the load looks. */
interface Shape {
  readonly connections: number;
  readonly inFlight: number;
  readonly seconds: number;
  readonly payloadBytes: number;
}

type Connect = () => Promise<Connection>;

async function frames(shape: Shape, connect: Connect, meter: Meter): Promise<void> {
  const { inFlight, payloadBytes } = shape;
  const template = new EnqueueTemplate({
    run: newRun(Date.now()),
    payloadBytes,
    recipients: [randomBytes(16)],
  });
  const connections = await Promise.all(Array.from({ length: shape.connections }, connect));
  const lanes = await Promise.all(
    connections.map(async (connection) =>
      new Lane(await connection.openStream(), {
        inFlight,
        meter,
        pace: CLOSED_LOOP,
        requests: (lane) => ({
          frameBytes: template.frameBytes,
          write: (into, at, slot) => template.write(into, at, { requestId: slot + 1, number: slot }),
          answered: (slot, _body, now) => {
            meter.end(now - lane.beganAt[slot]!);
            lane.release(slot);
          },
        }),
      })
    ),
  );
  await Promise.all(lanes.map((lane) => lane.run()));
}

async function handshakes(shape: Shape, connect: Connect, meter: Meter): Promise<void> {
  await runWorkers(shape.connections, {
    meter,
    pace: CLOSED_LOOP,
    work: async () => (await connect()).close(0, ""),
  });
}

async function load(kind: string, shape: Shape): Promise<void> {
  const args = [
    "run",
    "--quiet",
    "--cached-only",
    "--no-check",
    "--allow-all",
    import.meta.filename!,
    "serve",
  ];
  const server = new Deno.Command(Deno.execPath(), { args, stdin: "null", stdout: "piped" }).spawn();
  try {
    const reader = server.stdout.getReader();
    const { value } = await reader.read();
    const { port, fingerprint } = JSON.parse(new TextDecoder().decode(value));
    reader.releaseLock();
    const identity = { kind: "pinned", leafSha256: [parseFingerprint(fingerprint)!] } as const;
    const meter = new Meter();
    setTimeout(() => meter.measure(), WARM_UP_SECONDS * 1000);
    setTimeout(() => meter.stop(), (WARM_UP_SECONDS + shape.seconds) * 1000);
    const to: Connect = () =>
      connect({ hostname: "127.0.0.1", port, identity, idleTimeoutMs: IDLE_TIMEOUT_MS });
    await (kind === "handshakes" ? handshakes : frames)(shape, to, meter);
    const { operations, seconds, latency } = meter;
    console.log(JSON.stringify({ perSecond: operations / seconds, p50Ms: latency.quantileMs(0.5) }));
  } finally {
    server.kill("SIGKILL");
    await server.status;
    await server.stdout.cancel();
  }
}

if (import.meta.main) {
  const { values, positionals: [kind] } = parseArgs({
    allowPositionals: true,
    options: {
      connections: { type: "string", default: "1" },
      "in-flight": { type: "string", default: "256" },
      seconds: { type: "string", default: "2" },
      payload: { type: "string", default: "512" },
    },
  });
  if (kind === "serve") await serve();
  else {
    await load(kind!, {
      connections: Number(values.connections),
      inFlight: Number(values["in-flight"]),
      seconds: Number(values.seconds),
      payloadBytes: Number(values.payload),
    });
    Deno.exit(0); // the connections' sockets are of no further use
  }
}

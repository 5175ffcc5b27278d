/**
 * The attacks: how each is made, under which options, and by which limits (`qpq_rate_limit_hits_total`) and deadlines
 * (`qpq_deadlines_missed_total`) it has to be held. Where an option is set it is so that the limit is met within
 * seconds; everything else is a server's default.
 */
import { fromHex, randomBytes, sha256 } from "../../../mod/base/bytes.ts";
import { systemClock } from "../../../mod/base/clock.ts";
import { MLS_SUITE_X25519 } from "../../../mod/base/mls_suites.ts";
import { createKeyPackages } from "../../../mod/client/mls_key_packages.ts";
import { signThisDevice } from "../../../mod/client/session.ts";
import { METHODS } from "../../../mod/protocol/methods.ts";
import { RawStream, requestFrame } from "../../support/raw_stream.ts";
import { UdpRelay } from "../../support/udp_relay.ts";
import type { LimitName } from "../../../mod/server/limits.ts";
import type { Deadline } from "../../../mod/observe/metrics.ts";
import type { Attacker } from "./attacker_side.ts";
import { burn, goodFrames, malformedFrames } from "./frames.ts";
import type { ResumedDevice } from "./target.ts";

/** One way to hurt a server. */
export interface Attack {
  readonly name: string;
  /** Options of the server, as flags. */
  readonly flags: Readonly<Record<string, string>>;
  /** What has to have counted afterwards. */
  readonly limits: readonly LimitName[];
  readonly deadlines: readonly Deadline[];
  /** What an attacker's price is told for; null where it is none of both. */
  readonly unit: "connection" | "request" | null;
  /** Only for comparison: not a part of a quick run. */
  readonly comparison?: true;
  /** What does not belong to the attack. */
  prepare?(attacker: Attacker): Promise<void>;
  /** Attacks until told to stop. */
  run(attacker: Attacker): Promise<void>;
}

/** Without limits a flood of frames meets only what a frame costs. */
const UNLIMITED = { "limits-profile": "bench" };

/** All of them. */
export const ATTACKS: readonly Attack[] = [
  {
    name: "half handshakes",
    flags: { "limits-handshakes-max": "64" },
    limits: ["handshakes"],
    deadlines: ["handshake"],
    unit: "connection",
    run: halfHandshakes,
  },
  {
    name: "idle streams",
    flags: { "limits-hello-deadline": "2s" },
    limits: ["connectionRate"],
    deadlines: ["hello"],
    unit: "connection",
    run: idleStreams,
  },
  {
    name: "half frames",
    flags: { "limits-frame-deadline": "2s" },
    limits: [],
    deadlines: ["frame"],
    unit: "connection",
    run: halfFrames,
  },
  {
    name: "half uploads",
    flags: { "limits-upload-deadline": "2s", "limits-blob-uploads-max": "8" },
    limits: ["blobUploads", "blobUploadsAccount"],
    deadlines: ["upload"],
    unit: "request",
    run: halfUploads,
  },
  {
    name: "connections",
    flags: {},
    limits: ["connectionRate"],
    deadlines: [],
    unit: "connection",
    run: connections,
  },
  {
    name: "connections kept",
    flags: { "limits-connections-per-address": "50" },
    limits: ["connectionsPerAddress"],
    deadlines: [],
    unit: "connection",
    run: connectionsKept,
  },
  {
    name: "never acknowledges",
    flags: { "limits-queue-depth-max": "2000" },
    limits: ["queue"],
    deadlines: [],
    unit: "request",
    run: neverAcknowledges,
  },
  {
    name: "KeyPackages",
    flags: {},
    limits: ["claimRate"],
    deadlines: [],
    unit: "request",
    prepare: (attacker) => uploadKeyPackages(attacker),
    run: drainKeyPackages,
  },
  {
    name: "registrations",
    flags: {},
    limits: ["registrationRate"],
    deadlines: [],
    unit: "request",
    run: registrations,
  },
  {
    name: "queue stuffing",
    flags: { "limits-queue-depth-max": "2000", "limits-sender-bytes-per-day": "8388608" },
    limits: ["queue", "senderBytesPerDay"],
    deadlines: [],
    unit: "request",
    run: stuffQueues,
  },
  {
    name: "malformed frames",
    flags: {},
    limits: ["malformedRate"],
    deadlines: [],
    unit: "request",
    run: (attacker) => malformedFrames(attacker),
  },
  {
    name: "malformed frames, 40 connections",
    flags: {},
    limits: ["malformedRate"],
    deadlines: [],
    unit: "request",
    comparison: true,
    run: (attacker) => malformedFrames(attacker, 40),
  },
  {
    name: "malformed frames, no limits",
    flags: UNLIMITED,
    limits: [],
    deadlines: [],
    unit: "request",
    comparison: true,
    run: (attacker) => malformedFrames(attacker),
  },
  {
    name: "good frames, no limits",
    flags: UNLIMITED,
    limits: [],
    deadlines: [],
    unit: "request",
    comparison: true,
    run: goodFrames,
  },
  {
    name: "busy elsewhere",
    flags: {},
    limits: [],
    deadlines: [],
    unit: null,
    comparison: true,
    run: burn,
  },
];

/** Begins handshakes and never hears the server. */
async function halfHandshakes(attacker: Attacker): Promise<void> {
  await using relay = new UdpRelay(attacker.target.port);
  relay.muteServer();
  await attacker.loops(150, () => attacker.connect({ port: relay.port, handshakeTimeoutMs: 4_000 }));
}

/** Opens every stream a connection may have, and says a byte on each. */
async function idleStreams(attacker: Attacker): Promise<void> {
  await attacker.loops(100, async () => {
    const connection = await attacker.connect();
    for (let i = 0; i < 16; i++) {
      const stream = await Promise.race([connection.openStream(), connection.closed.then(() => null)]);
      await stream?.write(Uint8Array.of(0));
    }
    await connection.closed;
  });
}

/** Logged in, begins the largest frame there is on every stream, and goes on by a byte ten times a second. */
async function halfFrames(attacker: Attacker): Promise<void> {
  await attacker.loops(16, async (loop) => {
    const { transport } = await attacker.resume(loop % attacker.target.devices.length);
    let gone = false;
    transport.closed.then(() => gone = true);
    const header = new Uint8Array(10 + 50_000);
    new DataView(header.buffer).setUint32(0, 6 + (4 << 20));
    new DataView(header.buffer).setUint16(8, METHODS.enqueue.number);
    header[7] = 1;
    const streams = await Promise.all(Array.from({ length: 15 }, () => transport.openStream()));
    for (const stream of streams) await stream.write(header);
    while (!gone && !attacker.over) {
      await Promise.all(streams.map((stream) => stream.write(new Uint8Array(1)).catch(() => {})));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  });
}

/** Takes every place for uploads, and brings nothing. */
async function halfUploads(attacker: Attacker): Promise<void> {
  const { target } = attacker;
  const devices = await Promise.all(target.devices.map((_, index) => attacker.resume(index)));
  const announced = { sha256: await sha256(randomBytes(9)), size: 1_000_000n };
  const frame = requestFrame(1, "putBlob", announced);
  const upload = async ({ transport }: ResumedDevice) => {
    attacker.requests++;
    const raw = new RawStream(transport, await transport.openStream());
    await raw.stream.write(frame);
    attacker.answered((await raw.reply()).frame);
    raw.stream.abort();
    await new Promise((resolve) => setTimeout(resolve, 50));
  };
  // One account alone meets its own share first.
  await Promise.race([1, 2, 3].map(() => upload(devices[0]!)));
  await attacker.loops(15, (loop) => upload(devices[loop % devices.length]!));
}

/** Connects and hangs up. */
async function connections(attacker: Attacker): Promise<void> {
  await attacker.loops(16, async () => {
    const connection = await attacker.connect();
    connection.close(0, "");
  });
}

/** Connects, says Hello and stays. */
async function connectionsKept(attacker: Attacker): Promise<void> {
  const hello = requestFrame(1, "hello", { accessToken: attacker.target.accessToken });
  await attacker.loops(100, async () => {
    const connection = await attacker.connect();
    await (await connection.openStream()).write(hello);
    await connection.closed;
    await new Promise((resolve) => setTimeout(resolve, 200));
  });
}

/** Two accounts: one has a subscription with all credit there is and neither reads nor acknowledges, one sends to it. */
async function neverAcknowledges(attacker: Attacker): Promise<void> {
  const [deaf, sender] = [await attacker.resume(0), await attacker.resume(1)];
  const stream = await deaf.transport.openStream();
  await stream.write(requestFrame(1, "subscribe", { creditBytes: 0x7fff_ffff }));
  await attacker.loops(8, () => stuff(attacker, sender, { to: deaf.deviceId, bytes: 20_000 }));
}

/** Claims one account's packages, as fast as it goes. */
async function drainKeyPackages(attacker: Attacker): Promise<void> {
  const { target } = attacker;
  const { link } = await attacker.resume(1);
  const request = { accountId: fromHex(target.devices[0]!.accountId), suite: MLS_SUITE_X25519 };
  await attacker.loops(4, () => attacker.ask(link.connection, "fetchKeyPackages", request));
}

/** Begins registrations with the access token. */
async function registrations(attacker: Attacker): Promise<void> {
  const connection = await attacker.connect();
  const raw = new RawStream(connection, await connection.openStream());
  await raw.stream.write(requestFrame(1, "hello", { accessToken: attacker.target.accessToken }));
  await raw.reply();
  let id = 1;
  await attacker.loops(1, async () => {
    attacker.requests++;
    await raw.stream.write(requestFrame(++id, "registerStart", {
      userName: `mallory${id}`,
      suiteId: 1,
      registrationRequest: randomBytes(32),
    }));
    attacker.answered((await raw.reply()).frame);
  });
}

/** Many small messages to one device that is away; large ones to another. */
async function stuffQueues(attacker: Attacker): Promise<void> {
  const { target } = attacker;
  const [many, large] = [await attacker.resume(0), await attacker.resume(1)];
  const [first, second] = [2, 3].map((index) => fromHex(target.devices[index]!.deviceId));
  await Promise.all([
    attacker.loops(8, () => stuff(attacker, many, { to: first!, bytes: 100 })),
    attacker.loops(1, () => stuff(attacker, large, { to: second!, bytes: 500_000 })),
  ]);
}

async function stuff(
  attacker: Attacker,
  from: ResumedDevice,
  message: { to: Uint8Array; bytes: number },
): Promise<void> {
  const parts = [{ payload: randomBytes(message.bytes), recipients: [message.to] }];
  const request = { messageId: randomBytes(16), parts };
  const answer = await attacker.ask(from.link.connection, "enqueue", request) as
    | { statuses: number[] }
    | null;
  if (answer && answer.statuses[0] !== 1) attacker.refused++;
}

async function uploadKeyPackages(attacker: Attacker): Promise<void> {
  const { link, own, accountId } = await attacker.resume(0);
  await signThisDevice(link, {
    account: { accountId, userName: "", key: own.accountKey },
    device: own.device,
  });
  const identity = { accountId, deviceId: own.device.deviceId, key: own.device.key, domain: "" };
  const context = { identity, isTrusted: () => Promise.resolve(true), clock: systemClock };
  const make = (count: number, lastResort: boolean) =>
    createKeyPackages(context, { count, suite: MLS_SUITE_X25519, lastResort });
  const made = [...await make(20, false), ...await make(1, true)];
  const keyPackages = made.map(({ publicBytes, lastResort }) => ({ keyPackage: publicBytes, lastResort }));
  await link.connection.call("uploadKeyPackages", { keyPackages });
}

/** Attacks by frames as fast as they go: malformed ones, and for comparison good ones and no frames at all. */
import { concat } from "../../../mod/base/bytes.ts";
import { FRAME_BODY_BYTES_MAX, FrameDecoder } from "../../../mod/protocol/frame.ts";
import type { Connection, Stream } from "../../../mod/transport/transport.ts";
import { malformedFrame } from "../../fuzz/malformed.ts";
import { requestFrame } from "../../support/raw_stream.ts";
import type { Attacker } from "./attacker_side.ts";

/** Connections that attack at once; half of them are logged in. */
const CONNECTIONS = 4;
/** Frames written at a time. */
const BURST = 50;
/** The pause of one who was refused. */
const REFUSED_MS = 1_000;
/** Frames that are made before the attack, so that the attacker's processor time goes into sending them. */
const MADE = 5_000;

/** Random messages of every method, changed at random; a few bytes that are no frames at all. */
export function malformedFrames(attacker: Attacker, connections = CONNECTIONS): Promise<void> {
  const { random } = attacker;
  const made = Array.from({ length: MADE }, () => malformedFrame(random));
  return flood(attacker, connections, () => random.pick(made));
}

/** Pings: what a request costs at least. */
export function goodFrames(attacker: Attacker): Promise<void> {
  let id = 0;
  return flood(attacker, CONNECTIONS, () => requestFrame(1 + id++ % 0xffff, "ping", {}));
}

/** Nothing reaches the server: only the attacker's own processor time. */
export async function burn(attacker: Attacker): Promise<void> {
  const { random } = attacker;
  while (!attacker.done) {
    for (let i = 0; i < 100; i++) malformedFrame(random);
    await new Promise((resolve) => setTimeout(resolve));
  }
}

async function flood(attacker: Attacker, connections: number, frame: () => Uint8Array): Promise<void> {
  await attacker.loops(connections, async (loop) => {
    const connection = await openConnection(attacker, loop);
    let gone = false;
    connection.closed.then(() => gone = true);
    try {
      while (!gone && !attacker.done) {
        await Promise.race([burst(attacker, connection, frame), connection.closed]);
      }
    } finally {
      connection.close(0, ""); // or connections pile up, which is another attack
    }
  });
}

async function openConnection(attacker: Attacker, loop: number): Promise<Connection> {
  if (loop % 2 === 0) {
    // A frame that was changed at random may have been a good Logout.
    const device = await attacker.resume(loop / 2 % attacker.target.devices.length).catch(() => null);
    if (device) return device.transport;
  }
  const connection = await attacker.connect();
  const stream = await connection.openStream();
  await stream.write(requestFrame(1, "hello", { accessToken: attacker.target.accessToken }));
  // Who is refused and comes back at once floods with connections, which is another attack.
  if (!await stream.read()) await Promise.race([pause(REFUSED_MS), attacker.stopped]);
  return connection;
}

function pause(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs));
}

/** Frames on a stream of their own; the next come when these are answered, or are not waited for. */
async function burst(attacker: Attacker, connection: Connection, frame: () => Uint8Array): Promise<void> {
  const stream = await connection.openStream();
  await stream.write(concat(...Array.from({ length: BURST }, frame)));
  attacker.requests += BURST;
  if (attacker.random.oneIn(4)) return stream.abort();
  await stream.closeWrite();
  await readReplies(attacker, stream);
  stream.abort();
}

async function readReplies(attacker: Attacker, stream: Stream): Promise<void> {
  const decoder = new FrameDecoder(() => FRAME_BODY_BYTES_MAX);
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
    for (const decoded of decoder.push(chunk)) {
      if (decoded.kind === "frame") attacker.answered(decoded.frame);
    }
  }
}

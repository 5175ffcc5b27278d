import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import { ERRORS } from "../../../../mod/base/errors.ts";
import { Lane, type LaneRequests } from "../../../../mod/client/bench/lane.ts";
import { Meter } from "../../../../mod/client/bench/meter.ts";
import { CLOSED_LOOP, type Pace } from "../../../../mod/client/bench/pace.ts";
import { encodeFrame, FrameDecoder } from "../../../../mod/protocol/frame.ts";
import { ErrorResponseSchema } from "../../../../mod/protocol/qpq_pb.ts";
import { AsyncQueue } from "../../../../mod/transport/async_queue.ts";
import type { Stream } from "../../../../mod/transport/transport.ts";

/** The other end: keeps what is written, and answers when told. */
class Peer implements Stream {
  readonly writes: number[][] = [];
  readonly #chunks = new AsyncQueue<Uint8Array<ArrayBuffer>>();
  readonly #reading = this.#chunks[Symbol.asyncIterator]();
  aborted = false;

  async read(): Promise<Uint8Array<ArrayBuffer> | null> {
    const next = await this.#reading.next();
    return next.done ? null : next.value;
  }

  write(bytes: Uint8Array): Promise<void> {
    const frames = [...new FrameDecoder(() => 1 << 20).push(bytes.slice())];
    this.writes.push(frames.map(({ frame }) => frame.requestId));
    return Promise.resolve();
  }

  answer(...ids: readonly number[]): void {
    for (const id of ids) this.#chunks.push(encodeFrame(id, 0, new Uint8Array(0)));
  }

  refuse(id: number): void {
    const body = toBinary(ErrorResponseSchema, create(ErrorResponseSchema, { text: "no" }));
    this.#chunks.push(encodeFrame(id, ERRORS.overloaded.number, body));
  }

  end(): void {
    this.#chunks.end();
  }

  closeWrite(): Promise<void> {
    return Promise.resolve();
  }

  stopReading(): void {}

  abort(): void {
    this.aborted = true;
    this.#chunks.end();
  }
}

const FRAME_BYTES = encodeFrame(1, 40, new Uint8Array(4)).length;

/** Requests that are over with their replies. */
const requests = (meter: Meter) => (lane: Lane): LaneRequests => ({
  frameBytes: FRAME_BYTES,
  write: (into, at, slot) => into.set(encodeFrame(slot + 1, 40, new Uint8Array(4)), at),
  answered: (slot, _body, now) => {
    meter.end(now - lane.beganAt[slot]!);
    lane.release(slot);
  },
});

function start(options: { operationsMax?: number; inFlight: number; pace?: Pace }) {
  const meter = new Meter(
    options.operationsMax === undefined ? {} : { operationsMax: options.operationsMax },
  );
  meter.measure();
  const peer = new Peer();
  const { inFlight, pace = CLOSED_LOOP } = options;
  const lane = new Lane(peer, { inFlight, pace, meter, requests: requests(meter) });
  return { meter, peer, done: lane.run() };
}

/** Lets everything that is under way come to rest. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

Deno.test("a lane fills its slots in one write, and each as it gets free", async () => {
  const { meter, peer, done } = start({ inFlight: 3 });
  assert.deepEqual(peer.writes, [[1, 2, 3]]);
  peer.answer(2);
  await settle();
  assert.deepEqual(peer.writes, [[1, 2, 3], [2]]);
  meter.stop();
  peer.answer(1, 2, 3);
  await done;
  assert.equal(peer.writes.length, 2);
  assert.equal(meter.operations, 1);
  assert.ok(peer.aborted);
});

Deno.test("a lane ends after as many operations as there are to be", async () => {
  const { meter, peer, done } = start({ inFlight: 2, operationsMax: 3 });
  peer.answer(1);
  await settle();
  peer.answer(1, 2);
  await done;
  assert.equal(meter.operations, 3);
  assert.deepEqual(peer.writes.flat().length, 3);
});

Deno.test("a refusal is counted by its name, and its slot comes back", async () => {
  const { meter, peer, done } = start({ inFlight: 1, operationsMax: 2 });
  peer.refuse(1);
  while (peer.writes.length < 2) await new Promise((resolve) => setTimeout(resolve, 0));
  peer.answer(1);
  await done;
  assert.deepEqual(Object.fromEntries(meter.refused), { overloaded: 1 });
  assert.equal(meter.operations, 1);
});

Deno.test("a latency of an open loop begins when the operation was due", async () => {
  const due = performance.now() - 5_000;
  let taken = 0;
  const late: Pace = { isScheduled: true, take: () => taken++ === 0 ? due : NaN, msUntilDue: () => 1 };
  const { meter, peer, done } = start({ inFlight: 4, operationsMax: 1, pace: late });
  assert.deepEqual(peer.writes, [[1]]);
  peer.answer(1);
  await done;
  assert.ok(meter.latency.maxMs >= 5_000);
});

Deno.test("a lane whose connection ends fails", async () => {
  const { peer, done } = start({ inFlight: 2 });
  peer.answer(1);
  peer.end();
  await assert.rejects(done, /ended the connection while it was under load/);
});

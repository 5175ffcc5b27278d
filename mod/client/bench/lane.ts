/**
 * One stream full of pipelined requests, driven without a promise, a closure or an object for each of them: slots are
 * numbers, a request's id is its slot + 1, and what may be sent in one turn is one write.
 *
 * A slot is taken by {@link LaneRequests.write} and is free again after {@link Lane.release}, which a workload calls
 * when the operation is over: at the reply, or when the message has arrived at the other side.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { errorCodeOf } from "../../base/errors.ts";
import { CODE_OK } from "../../protocol/frame.ts";
import { ErrorResponseSchema } from "../../protocol/qpq_pb.ts";
import type { Stream } from "../../transport/transport.ts";
import { FrameScanner } from "./frame_scanner.ts";
import type { Meter } from "./meter.ts";
import type { Pace } from "./pace.ts";

/** A write takes no more requests than this, so that the first of many are on their way early. */
const WRITE_BYTES_MAX = 128 << 10;
/** A refused request's slot rests for as long as the server asks, and no less than this. */
const REST_MS_MIN = 20;
/** An open loop looks at the clock this often. */
const TICK_MS = 1;

/** What a lane sends, and who hears the answers. */
export interface LaneRequests {
  /** Bytes of each request's frame. */
  readonly frameBytes: number;
  /** Writes the frame for `slot` at `at`; its request id is `slot + 1`. */
  write(into: Uint8Array, at: number, slot: number): void;
  /** A reply that is no error. `now` is ms of performance.now(). */
  answered(slot: number, body: Uint8Array, now: number): void;
  /** The slot's request was refused; the lane has counted that and releases the slot. */
  refused?(slot: number): void;
}

/** What a lane runs by. */
export interface LaneOptions {
  readonly inFlight: number;
  readonly meter: Meter;
  readonly pace: Pace;
  readonly requests: (lane: Lane) => LaneRequests;
}

/** One stream. */
export class Lane {
  /** When the operation in a slot began: when it was due, in an open loop. */
  readonly beganAt: Float64Array;
  readonly #stream: Stream;
  readonly #options: LaneOptions;
  readonly #requests: LaneRequests;
  readonly #scanner: FrameScanner;
  readonly #free: Uint32Array;
  readonly #ended = Promise.withResolvers<void>();
  #freeCount: number;
  /** When the bytes at hand were read. */
  #now = 0;
  #writing = false;

  constructor(stream: Stream, options: LaneOptions) {
    const { inFlight } = options;
    this.#stream = stream;
    this.#options = options;
    this.#scanner = new FrameScanner((id, code, body) => this.#reply(id - 1, code, body));
    this.beganAt = new Float64Array(inFlight);
    this.#free = Uint32Array.from({ length: inFlight }, (_, index) => inFlight - 1 - index);
    this.#freeCount = inFlight;
    this.#requests = options.requests(this);
  }

  /** Works until the meter is stopped and nothing is in flight. Rejects when the stream ends before. */
  async run(): Promise<void> {
    const { meter, pace } = this.#options;
    meter.stopped.then(() => this.#endIfIdle());
    this.#read().catch((error) => this.#ended.reject(error));
    const ticker = pace.isScheduled ? setInterval(() => this.pump(), TICK_MS) : undefined;
    this.pump();
    try {
      await this.#ended.promise;
    } finally {
      clearInterval(ticker);
      this.#stream.abort();
    }
  }

  /** The operation of this slot is over. Call {@link pump} when this turn has no more of them. */
  release(slot: number): void {
    this.#free[this.#freeCount++] = slot;
  }

  /** Sends what may be sent. */
  pump(): void {
    if (!this.#writing) this.#writeAll().catch((error) => this.#ended.reject(error));
    this.#endIfIdle();
  }

  async #writeAll(): Promise<void> {
    this.#writing = true;
    try {
      for (let batch = this.#nextBatch(); batch; batch = this.#nextBatch()) await this.#stream.write(batch);
    } finally {
      this.#writing = false;
    }
  }

  /** The frames of all that is due and has room; null when nothing is. */
  #nextBatch(): Uint8Array | null {
    const { meter, pace } = this.#options;
    if (this.#freeCount === 0 || !meter.open) return null;
    const { frameBytes } = this.#requests;
    const most = Math.min(this.#freeCount, Math.max(1, Math.floor(WRITE_BYTES_MAX / frameBytes)));
    const now = performance.now();
    let batch: Uint8Array | null = null;
    let bytes = 0;
    while (bytes < most * frameBytes && meter.open) {
      const due = pace.take(now);
      if (Number.isNaN(due)) break;
      batch ??= new Uint8Array(most * frameBytes);
      const slot = this.#free[--this.#freeCount]!;
      this.beganAt[slot] = due;
      meter.begin();
      this.#requests.write(batch, bytes, slot);
      bytes += frameBytes;
    }
    return batch && batch.subarray(0, bytes);
  }

  async #read(): Promise<void> {
    for (let chunk = await this.#stream.read(); chunk; chunk = await this.#stream.read()) {
      this.#now = performance.now();
      this.#scanner.push(chunk);
      this.pump();
    }
    if (this.#freeCount < this.#options.inFlight || this.#options.meter.open) {
      throw new Error("The server ended the connection while it was under load");
    }
  }

  #reply(slot: number, code: number, body: Uint8Array): void {
    if (code === CODE_OK) return this.#requests.answered(slot, body, this.#now);
    const { retryAfterMs } = fromBinary(ErrorResponseSchema, body);
    this.refuse(slot, { name: errorCodeOf(code) ?? `error ${code}`, retryAfterMs });
  }

  /** The operation of this slot was refused: it counts as such, and the slot rests for a while. */
  refuse(slot: number, refusal: { name: string; retryAfterMs: number }): void {
    const { meter } = this.#options;
    this.#requests.refused?.(slot);
    meter.refuse(refusal.name);
    if (!meter.open) return this.release(slot);
    setTimeout(() => {
      this.release(slot);
      this.pump();
    }, Math.max(REST_MS_MIN, refusal.retryAfterMs));
  }

  #endIfIdle(): void {
    if (this.#freeCount === this.#options.inFlight && !this.#options.meter.open) this.#ended.resolve();
  }
}

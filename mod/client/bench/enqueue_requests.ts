/** Messages that one connection sends: each to the next recipient, or to all of them. */
import type { AckedLog } from "./acked_log.ts";
import { type EnqueueTemplate, refusalOf } from "./enqueue_template.ts";
import type { Lane, LaneRequests } from "./lane.ts";
import type { BenchContext, LoadOptions } from "./load.ts";
import type { Meter } from "./meter.ts";

/** The messages of a lane; one is over when the server has acknowledged it. */
export class EnqueueRequests implements LaneRequests {
  readonly frameBytes: number;
  readonly #lane: Lane;
  readonly #context: BenchContext;
  readonly #ackedLog: AckedLog | null;
  readonly #template: EnqueueTemplate;
  readonly #meter: Meter;
  /** Recipients that take turns; null: each message goes to all. */
  readonly #turns: readonly Uint8Array[] | null;
  readonly #numbers: Float64Array;
  readonly #recipients: Uint32Array;
  #turn: number;

  constructor(lane: Lane, parts: {
    context: BenchContext;
    template: EnqueueTemplate;
    meter: Meter;
    turns: readonly Uint8Array[] | null;
    first: number;
    options: LoadOptions;
  }) {
    const { inFlight } = parts.options;
    this.#lane = lane;
    this.#context = parts.context;
    this.#ackedLog = parts.context.ackedLog;
    this.#template = parts.template;
    this.#meter = parts.meter;
    this.#turns = parts.turns;
    this.#turn = parts.first;
    this.#numbers = new Float64Array(inFlight);
    this.#recipients = new Uint32Array(inFlight);
    this.frameBytes = parts.template.frameBytes;
  }

  write(into: Uint8Array, at: number, slot: number): void {
    const number = this.#numbers[slot] = this.#context.nextNumber();
    this.#template.write(into, at, { requestId: slot + 1, number });
    if (!this.#turns) return;
    const recipient = this.#recipients[slot] = this.#turn++ % this.#turns.length;
    this.#template.writeRecipient(into, at, this.#turns[recipient]!);
  }

  answered(slot: number, body: Uint8Array, now: number): void {
    const lane = this.#lane;
    const refusal = refusalOf(body);
    if (refusal) return lane.refuse(slot, { name: refusal, retryAfterMs: 0 });
    this.#ackedLog?.add(this.#numbers[slot]!, this.#turns ? this.#recipients[slot]! : "all");
    this.#meter.end(now - lane.beganAt[slot]!);
    lane.release(slot);
  }
}

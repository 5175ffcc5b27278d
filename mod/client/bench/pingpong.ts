/**
 * `pingpong`: a message from its sender's Enqueue until it has arrived at its recipient, who is subscribed or waits.
 * Each connection that sends has one that receives. Latency is the whole way, not the reply's.
 */
import { recipientOf } from "./bench_accounts.ts";
import { EnqueueTemplate, messageNumber, refusalOf } from "./enqueue_template.ts";
import type { Lane, LaneRequests } from "./lane.ts";
import { closeAll, makeLanes, runAll } from "./lanes.ts";
import type { BenchContext, Load, LoadOptions } from "./load.ts";
import type { Meter } from "./meter.ts";
import { Receiver } from "./receiver.ts";

/** Prepares `pingpong`. */
export async function preparePingpong(context: BenchContext, options: LoadOptions): Promise<Load> {
  const { accounts } = context;
  const receivers = await accounts.make(options.connections);
  const receiving = await accounts.connect(receivers);
  const sending = await accounts.connect(await accounts.make(options.connections));
  return {
    async run(meter) {
      const pairs: Pair[] = [];
      const requests = (lane: Lane, index: number) =>
        pairs[index] = new Pair(lane, { context, meter, options, recipient: recipientOf(receivers[index]!) });
      const lanes = await makeLanes(sending, { meter, options, requests });
      const sides = receiving.map(({ connection }, index) => new Receiver(connection, pairs[index]!));
      const lost = Promise.withResolvers<never>();
      lost.promise.catch(() => {}); // looked at below, once all have started
      await Promise.all(sides.map((side) => side.start(options.receive, lost.reject)));
      await Promise.race([runAll(lanes), lost.promise]);
      await Promise.all(sides.map((side) => side.stop()));
    },
    [Symbol.asyncDispose]: () => closeAll([...sending, ...receiving]),
  };
}

/** A sender and its recipient: a slot is free again when its message was both acknowledged and received. */
class Pair implements LaneRequests {
  readonly frameBytes: number;
  readonly #lane: Lane;
  readonly #context: BenchContext;
  readonly #meter: Meter;
  readonly #template: EnqueueTemplate;
  readonly #numbers: Float64Array;
  /** How many of reply and arrival each slot still waits for. */
  readonly #missing: Uint8Array;
  readonly #slots = new Map<number, number>();

  constructor(
    lane: Lane,
    parts: { context: BenchContext; meter: Meter; options: LoadOptions; recipient: Uint8Array },
  ) {
    const { context, recipient } = parts;
    const { inFlight, payloadBytes } = parts.options;
    this.#lane = lane;
    this.#context = context;
    this.#meter = parts.meter;
    this.#template = new EnqueueTemplate({ run: context.run, payloadBytes, recipients: [recipient] });
    this.#numbers = new Float64Array(inFlight);
    this.#missing = new Uint8Array(inFlight);
    this.frameBytes = this.#template.frameBytes;
  }

  write(into: Uint8Array, at: number, slot: number): void {
    const number = this.#numbers[slot] = this.#context.nextNumber();
    this.#slots.set(number, slot);
    this.#missing[slot] = 2;
    this.#template.write(into, at, { requestId: slot + 1, number });
  }

  answered(slot: number, body: Uint8Array): void {
    const refusal = refusalOf(body);
    if (refusal) this.#lane.refuse(slot, { name: refusal, retryAfterMs: 0 });
    else this.#oneLess(slot);
  }

  refused(slot: number): void {
    this.#slots.delete(this.#numbers[slot]!);
  }

  readonly onMessage = (payload: Uint8Array): void => {
    const number = messageNumber(payload, this.#context.run);
    const slot = number === undefined ? undefined : this.#slots.get(number);
    if (slot === undefined) return;
    this.#slots.delete(number!);
    this.#meter.end(performance.now() - this.#lane.beganAt[slot]!);
    this.#oneLess(slot);
  };

  readonly onTurn = (): void => this.#lane.pump();

  #oneLess(slot: number): void {
    if (--this.#missing[slot]! === 0) this.#lane.release(slot);
  }
}

/**
 * A link between the two servers of a simulation: requests arrive in order, replies may be late, lost or found to be
 * lost only after a while; what had arrived is still worked on when the link is gone.
 */
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type ErrorCode, QpqError } from "../../mod/base/errors.ts";
import type { CallingLink } from "../../mod/federation/outbox_sender.ts";
import { RelayOrder } from "../../mod/federation/relay_order.ts";
import {
  RelayRequestSchema,
  type RelayResponse,
  RelayResponseSchema,
} from "../../mod/protocol/federation_pb.ts";
import { type RelayMachine, type RelayProgram, SENDING } from "./relay_machine.ts";
import type { SimRandom } from "./sim_random.ts";

/** What goes wrong on links. */
export interface LinkFaults {
  readonly delayMsMax: number;
  /** Share of replies that never come. */
  readonly lost: number;
}

/** What a link is between. */
export interface LinkEnds {
  readonly from: RelayProgram;
  readonly sender: RelayMachine;
  readonly receiver: RelayMachine;
  readonly faults: () => LinkFaults;
  readonly random: SimRandom;
  /** A server with a bug keeps nothing of what it put off. */
  readonly forgets: boolean;
}

/** The sender's end. */
export class RelayLink {
  readonly #ends: LinkEnds;
  readonly #to: RelayProgram;
  readonly #order: RelayOrder;
  readonly #inFlight = new Set<(error: Error) => void>();
  #turn: Promise<unknown> = Promise.resolve();
  #lastArrival = 0;
  #open = true;

  constructor(ends: LinkEnds) {
    this.#ends = ends;
    this.#to = ends.receiver.running!;
    this.#order = new RelayOrder(this.#to.clock);
  }

  /** As the outbox takes it. */
  get calling(): CallingLink {
    return this as unknown as CallingLink;
  }

  /** Called by the outbox. A program that is no more never gets an answer. */
  async call(
    _: "relay",
    request: MessageInitShape<typeof RelayRequestSchema>,
    { timeoutMs }: { timeoutMs: number },
  ): Promise<RelayResponse> {
    const { from } = this.#ends;
    if (!this.#open) throw new QpqError("peerUnavailable", "The link is gone");
    const { promise, resolve, reject } = Promise.withResolvers<RelayResponse>();
    this.#inFlight.add(reject);
    const cancel = from.clock.after(timeoutMs, () => reject(new QpqError("peerUnavailable", "No reply")));
    this.#arrive(toBinary(RelayRequestSchema, create(RelayRequestSchema, request)), { resolve, reject });
    try {
      return await promise;
    } finally {
      cancel();
      this.#inFlight.delete(reject);
    }
  }

  /** What has arrived is still answered to nobody. */
  close(): void {
    this.#open = false;
    for (const reject of this.#inFlight) reject(new QpqError("peerUnavailable", "The link is gone"));
  }

  #arrive(
    bytes: Uint8Array,
    answer: { resolve: (response: RelayResponse) => void; reject: (error: Error) => void },
  ): void {
    const { clock } = this.#to;
    this.#lastArrival = Math.max(this.#lastArrival, clock.monotonic() + this.#delay());
    clock.after(this.#lastArrival - clock.monotonic(), () => {
      if (!this.#open) return;
      this.#turn = this.#turn.then(() => this.#work(bytes)).then(
        (response) => this.#reply(() => answer.resolve(fromBinary(RelayResponseSchema, response))),
        (error) => this.#reply(() => answer.reject(asReceived(error))),
      );
    });
  }

  async #work(bytes: Uint8Array): Promise<Uint8Array> {
    const request = fromBinary(RelayRequestSchema, bytes);
    const order = this.#ends.forgets ? new RelayOrder(this.#to.clock) : this.#order;
    const peer = { domain: SENDING, gone: new AbortController().signal, order };
    const response = await order.inRound(request.round, () => this.#to.relay.relay(peer, request));
    return toBinary(RelayResponseSchema, create(RelayResponseSchema, response));
  }

  #reply(tell: () => void): void {
    const { sender, from, random, faults } = this.#ends;
    if (random.chance(faults().lost)) return;
    from.clock.after(this.#delay(), () => {
      if (sender.running === from) tell();
    });
  }

  #delay(): number {
    return this.#ends.random.int(1, this.#ends.faults().delayMsMax);
  }
}

/** An error as its frame brings it. */
function asReceived(error: unknown): QpqError {
  const { code, details } = error instanceof QpqError
    ? error
    : { code: "internal" as ErrorCode, details: {} };
  return new QpqError(code, "The peer said so", details);
}

/**
 * Keeps the order for each recipient when a peer's messages cannot all be taken: what is for a recipient for whom an
 * earlier one was put off, is put off too, until the peer begins anew with the oldest that it has. A peer says so by
 * the round of a Relay, as another one may have been on the way when it was told. Within a Relay the store sees to it
 * (`behind`), so that its messages still share transactions.
 */
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import type { DeviceId, MessageId } from "../base/ids.ts";
import { HeldBackError } from "../delivery/held_back.ts";
import { isTemporary } from "./outbox_failures.ts";

/** Recipients that are kept apart; with more of them everything is put off. */
const DEVICES_MAX = 4096;

/** What of an incoming message matters for order. */
export interface Ordered {
  readonly messageId: MessageId;
  readonly recipients: ReadonlySet<DeviceId>;
}

/** What was put off on one link. */
export class RelayOrder {
  readonly #clock: Clock;
  readonly #devices = new Set<DeviceId>();
  #round = 0;
  /** A Relay was refused whole: so is what follows. */
  #refused: QpqError | null = null;
  /** Monotonic ms; for peers that do not count rounds. */
  #forgetAt = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Does `work` for a Relay, unless an earlier one of its round was refused whole. */
  async inRound<Result>(round: number, work: () => Promise<Result>): Promise<Result> {
    const begun = round === 0 ? this.#clock.monotonic() >= this.#forgetAt : round !== this.#round;
    if (begun) this.#forget();
    this.#round = round;
    if (this.#refused) throw this.#again(this.#refused);
    try {
      return await work();
    } catch (error) {
      this.#refused = error instanceof QpqError ? error : new QpqError("overloaded", "A Relay failed");
      this.#notBefore(this.#refused);
      throw error;
    }
  }

  /** Was an earlier message for one of the recipients put off? Then this one is too. */
  holdsBack({ recipients }: Ordered): boolean {
    return this.#refused !== null || !recipients.isDisjointFrom(this.#devices);
  }

  /** The message is to come again, for that reason. */
  putOff({ recipients }: Ordered, error: QpqError): void {
    for (const deviceId of recipients) this.#devices.add(deviceId);
    if (this.#devices.size > DEVICES_MAX) {
      this.#refused ??= new QpqError("overloaded", "Too much was put off");
    }
    this.#notBefore(error);
  }

  #notBefore({ details }: QpqError): void {
    this.#forgetAt = Math.max(this.#forgetAt, this.#clock.monotonic() + (details.retryAfterMs ?? 0));
  }

  #again({ code, message, details }: QpqError): QpqError {
    const leftMs = Math.ceil(this.#forgetAt - this.#clock.monotonic());
    // `internal` would count as one more failure at the message.
    const again = code === "internal" ? "overloaded" : code;
    const wait = details.retryAfterMs === undefined ? {} : { retryAfterMs: Math.max(1, leftMs) };
    return new QpqError(again, `An earlier Relay was refused: ${message}`, wait);
  }

  #forget(): void {
    this.#devices.clear();
    this.#refused = null;
    this.#forgetAt = 0;
  }
}

/**
 * Takes messages of a Relay, all at once, and says of each what became of it. `take` gets the messages that must be
 * accepted before, and gives a HeldBackError when one of them is not.
 */
export async function takeInOrder<Message extends Ordered, Taken>(
  messages: readonly Message[],
  { order, take }: {
    order: RelayOrder;
    take: (message: Message, behind: readonly MessageId[]) => Promise<Taken | QpqError>;
  },
): Promise<(Taken | QpqError)[]> {
  const results = new Map<Message, Taken | QpqError>();
  const putOff = (message: Message, error: QpqError) => {
    order.putOff(message, error);
    results.set(message, error);
  };
  const free = messages.filter((message) => {
    if (!order.holdsBack(message)) return true;
    putOff(message, new HeldBackError());
    return false;
  });
  /** Takes some; returns those that only waited for others that were refused for good. */
  const pass = async (some: readonly Message[]): Promise<Message[]> => {
    const behind = predecessors(some);
    const taken = await Promise.all(some.map((message, i) => take(message, behind[i]!)));
    return some.filter((message, i) => {
      const result = taken[i]!;
      if (result instanceof HeldBackError && !order.holdsBack(message)) return true;
      if (result instanceof QpqError && isTemporary(result.code)) putOff(message, result);
      else results.set(message, result);
      return false;
    });
  };
  // What is refused for good is so at the first try, so a second one leaves nothing.
  for (const message of await pass(await pass(free))) putOff(message, new HeldBackError());
  return messages.map((message) => results.get(message)!);
}

/** For each message, those before it that share a recipient with it: the nearest for each recipient. */
function predecessors(messages: readonly Ordered[]): MessageId[][] {
  const lastFor = new Map<DeviceId, MessageId>();
  return messages.map(({ messageId, recipients }) => {
    const before = new Set<MessageId>();
    for (const deviceId of recipients) {
      const last = lastFor.get(deviceId);
      if (last !== undefined) before.add(last);
      lastFor.set(deviceId, messageId);
    }
    return [...before];
  });
}

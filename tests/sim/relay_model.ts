/** What two servers have promised of messages from the one to the other, and how a broken promise is told. */

/** A promise was broken. */
export class BrokenRelayPromise extends Error {
  override name = "BrokenRelayPromise";
}

interface Sent {
  /** It lives so short that it may expire: nobody promises that it comes, nor that it did not when it is given up. */
  readonly mayExpire: boolean;
  readonly sender: string;
  readonly number: number;
  /** Devices that it has been accepted for; what became of each. */
  readonly recipients: ReadonlyMap<string, { delivered: boolean; failed: boolean }>;
}

/** Messages by their id, and what each recipient has. */
export class RelayModel {
  readonly #sent = new Map<string, Sent>();
  readonly #last = new Map<string, number>();
  accepted = 0;
  delivered = 0;
  failed = 0;

  /** A device begins to send; the number counts its messages. */
  sending(
    messageId: string,
    message: { sender: string; number: number; to: readonly string[]; mayExpire: boolean },
  ): void {
    const recipients = new Map(message.to.map((device) => [device, { delivered: false, failed: false }]));
    this.#sent.set(messageId, { ...message, recipients });
  }

  /** The sender was told that it waits for the other server. */
  relaying(): void {
    this.accepted++;
  }

  /** The sender was told that it does not. */
  refused(messageId: string): void {
    for (const state of this.#sent.get(messageId)!.recipients.values()) state.failed = true;
  }

  /** A recipient has read it. */
  received(device: string, messageId: string): void {
    const sent = this.#sent.get(messageId);
    const state = sent?.recipients.get(device);
    if (!sent || !state) throw new BrokenRelayPromise(`${device} got ${messageId}, which was not for it`);
    const what = `${sent.sender}'s number ${sent.number}`;
    if (state.delivered) throw new BrokenRelayPromise(`${device} got ${what} twice`);
    if (state.failed) {
      throw new BrokenRelayPromise(`${device} got ${what}, of which the sender was told it did not`);
    }
    const before = this.#last.get(device + sent.sender) ?? 0;
    if (sent.number < before) throw new BrokenRelayPromise(`${device} got ${what} after number ${before}`);
    this.#last.set(device + sent.sender, sent.number);
    state.delivered = true;
    this.delivered++;
  }

  /** The sender was told that a recipient does not get it. */
  notDelivered(device: string, messageId: string): void {
    const sent = this.#sent.get(messageId)!;
    const state = sent.recipients.get(device)!;
    const what = `${sent.sender}'s number ${sent.number} for ${device}`;
    if (state.failed) throw new BrokenRelayPromise(`The failure of ${what} was told twice`);
    if (state.delivered && !sent.mayExpire) {
      throw new BrokenRelayPromise(`${what} is said to have failed, but was delivered`);
    }
    state.failed = true;
    this.failed++;
  }

  /** All has calmed down: everything is there, or its sender knows. */
  check(): void {
    for (const { sender, number, recipients, mayExpire } of this.#sent.values()) {
      for (const [device, { delivered, failed }] of recipients) {
        if (delivered || failed || mayExpire) continue;
        throw new BrokenRelayPromise(
          `${sender}'s number ${number} neither came to ${device} nor was it told`,
        );
      }
    }
  }
}

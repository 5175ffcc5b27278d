/** The outboxes: one sender for each domain for which something waits. */
import { logger } from "../base/log.ts";
import { messageOf } from "../base/errors.ts";
import { RELAY_BYTES_MAX, RELAY_MESSAGES_MAX } from "../protocol/peer_methods.ts";
import type { OutboxSums, PeerStore } from "../store/store.ts";
import { allOf, readBody } from "./outbox_failures.ts";
import { PeerSender, type SenderDeps, type SenderState, settle } from "./outbox_sender.ts";

const log = logger("federation");

/** What the outboxes work with. */
export interface OutboxDeps extends SenderDeps {
  readonly store: PeerStore;
}

/** One domain's outbox, for an operator. */
export interface OutboxReport extends OutboxSums, SenderState {}

const NOT_SENDING: SenderState = { attempts: 0, nextAttemptAt: null, lastProblem: null };

/** All senders of a server. */
export class Outbox {
  readonly #deps: OutboxDeps;
  readonly #senders = new Map<string, PeerSender>();
  #unlisten = () => {};
  #stopping = false;

  constructor(deps: OutboxDeps) {
    this.#deps = deps;
  }

  /** Begins to send what waits, and what comes from now on. */
  async start(): Promise<void> {
    this.#unlisten = this.#deps.store.onRelaying((domains) => {
      for (const domain of domains) this.#wake(domain);
    });
    for (const { domain } of await this.#deps.store.outboxes()) this.#wake(domain);
  }

  /** Tries again at once: a domain, or all. Returns those that had been waiting. */
  async retry(domain: string | null): Promise<string[]> {
    const waiting = (await this.#deps.store.outboxes())
      .map((sums) => sums.domain).filter((each) => domain === null || each === domain);
    for (const each of waiting) {
      this.#wake(each);
      this.#senders.get(each)?.retry("anew");
    }
    return waiting;
  }

  /** Something was heard of a peer. */
  seen(domain: string): void {
    this.#senders.get(domain)?.seen();
  }

  /** Who is a peer has changed. */
  recheck(): void {
    for (const sender of this.#senders.values()) sender.recheck();
  }

  /** Gives up all that waits for a domain; its senders are told. Returns how many messages it was. */
  async drop(domain: string): Promise<number> {
    const bounds = { entriesMax: RELAY_MESSAGES_MAX, bytesMax: RELAY_BYTES_MAX };
    let dropped = 0;
    let after = 0;
    while (true) {
      const entries = await this.#deps.store.outboxAfter({ domain, after, ...bounds });
      if (entries.length === 0) return dropped;
      after = entries.at(-1)!.id;
      const settled = entries.map((entry) => ({ entry, failed: [allOf(readBody(entry), "peer_removed")] }));
      await settle(domain, { ...this.#deps, settled });
      dropped += entries.length;
    }
  }

  /** What waits, by domain, and what its sender does. */
  async reports(): Promise<OutboxReport[]> {
    return (await this.#deps.store.outboxes())
      .map((sums) => ({ ...sums, ...(this.#senders.get(sums.domain)?.state ?? NOT_SENDING) }));
  }

  /** Begins nothing more. Resolves when what is in flight was answered; what was not is sent again after a start. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#unlisten();
    const senders = [...this.#senders.values()];
    for (const sender of senders) sender.stop();
    await Promise.all(senders.map((sender) => sender.ended));
  }

  #wake(domain: string): void {
    if (this.#stopping) return;
    const sender = this.#senders.get(domain);
    if (sender) return sender.wake();
    const begun = new PeerSender(domain, this.#deps, () => {
      if (this.#senders.get(domain) === begun) this.#senders.delete(domain);
    });
    this.#senders.set(domain, begun);
    begun.ended.catch((error) => {
      this.#senders.delete(domain);
      log.error("sending to {peer} ended: {error}", { peer: domain, error: messageOf(error) });
    });
  }
}

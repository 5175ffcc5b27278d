/**
 * The links to other servers: one for each, made when it is asked for and kept. It is looked at again every hour, and
 * ends when the peer's certificate is no longer good or the peer is none any more. After a rotation of our own
 * certificate new calls go to a new link, and the old one ends when it has answered what it was asked.
 */
import type { Clock } from "../base/clock.ts";
import { messageOf, QpqError } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { Dialer } from "./dial.ts";
import type { Identities } from "./identity.ts";
import type { PeerLink } from "./link.ts";
import type { Peers } from "./peers.ts";
import { PeerRefused, reportRefusal } from "./refusal.ts";

const log = logger("federation");

/** How often certificates of open links are looked at again. */
export const RECHECK_MS = 3_600_000;
/** Whoever was just given a link may still call on it after it was replaced. */
const RETIRE_MS = 30_000;

/** What links need. */
export interface LinksOptions {
  readonly peers: Peers;
  readonly identities: Identities;
  readonly dialer: Dialer;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** All links that this server made. */
export class Links implements Disposable {
  readonly #options: LinksOptions;
  /** The one for new calls, by domain. */
  readonly #current = new Map<string, Promise<PeerLink>>();
  readonly #open = new Set<PeerLink>();
  readonly #ends: (() => void)[];
  #cancel: () => void = () => {};
  #ended = false;

  constructor(options: LinksOptions) {
    this.#options = options;
    this.#ends = [
      options.identities.onReplaced(() => this.#replaced()),
      options.peers.onChanged(() => this.#closeStrangers()),
    ];
    this.#schedule();
  }

  /** Links that are open, retiring ones included. */
  get open(): readonly PeerLink[] {
    return [...this.#open];
  }

  /**
   * The link to `domain`, made now if there is none. Throws `unknownDomain`, or `peerUnavailable`: backing off is the
   * caller's. Ask again for each call or batch.
   */
  to(domain: string): Promise<PeerLink> {
    const known = this.#current.get(domain);
    if (known) return known;
    const link = this.#make(domain);
    this.#current.set(domain, link);
    link.then(
      (made) => made.closed.then(() => this.#forget(domain, link)),
      () => this.#forget(domain, link),
    );
    return link;
  }

  /** Ends all links. */
  [Symbol.dispose](): void {
    this.#ended = true;
    this.#cancel();
    for (const end of this.#ends) end();
    for (const link of this.#open) link.close("shutting down");
    this.#current.clear();
  }

  #forget(domain: string, link: Promise<PeerLink>): void {
    if (this.#current.get(domain) === link) this.#current.delete(domain);
  }

  async #make(domain: string): Promise<PeerLink> {
    const { peers, dialer, metrics, identities } = this.#options;
    const identity = identities.current;
    let failure: unknown = new QpqError("peerUnavailable", `${domain} has no address`);
    for (const address of await peers.addressesOf(domain)) {
      try {
        const link = this.#opened(await dialer.dial(domain, address));
        // The rotation came in between: whoever asked may use it, and the next one gets a new link.
        if (identity !== identities.current) this.#retire(link);
        return link;
      } catch (error) {
        failure = error;
        if (error instanceof PeerRefused) reportRefusal(metrics, error, domain);
      }
    }
    const why = messageOf(failure);
    log.info("no link to {domain}: {why}", { domain, why });
    throw failure instanceof PeerRefused
      ? new QpqError("peerUnavailable", `${domain} did not prove who it is: ${why}`, { cause: failure })
      : failure;
  }

  #opened(link: PeerLink): PeerLink {
    const { metrics, peers } = this.#options;
    if (this.#ended || peers.refusalOf(link.domain)) {
      link.close("it is no longer wanted");
      throw new QpqError("peerUnavailable", `${link.domain} is no longer a peer, or the server stops`);
    }
    this.#open.add(link);
    metrics.peerLinks.set(this.#open.size);
    link.closed.then(() => {
      this.#open.delete(link);
      metrics.peerLinks.set(this.#open.size);
    });
    log.info("linked to {domain}", { domain: link.domain });
    return link;
  }

  #schedule(): void {
    if (this.#ended) return;
    this.#cancel = this.#options.clock.after(RECHECK_MS, () => {
      this.#schedule();
      this.#recheck();
    });
  }

  async #recheck(): Promise<void> {
    const { identities, clock, metrics } = this.#options;
    for (const link of this.#open) {
      try {
        await identities.current.verifyPeerChain(link.chain!, clock.now());
      } catch (error) {
        if (error instanceof PeerRefused) reportRefusal(metrics, error, link.domain);
        link.close(`its certificate is no longer good: ${messageOf(error)}`);
      }
    }
  }

  #replaced(): void {
    this.#current.clear();
    for (const link of this.#open) this.#retire(link);
    this.#recheck();
  }

  #retire(link: PeerLink): void {
    this.#options.clock.after(RETIRE_MS, () => {
      if (link.isOpen && link.callCount > 0) this.#retire(link);
      else link.close("a new link has taken its place");
    });
  }

  #closeStrangers(): void {
    for (const link of this.#open) {
      const refusal = this.#options.peers.refusalOf(link.domain);
      if (!refusal) continue;
      reportRefusal(this.#options.metrics, refusal, link.domain);
      link.close(refusal.message);
    }
  }
}

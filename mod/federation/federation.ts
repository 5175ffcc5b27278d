/**
 * Exchange with other servers, put together: who they are, links to them, what waits for them, what is answered to
 * them, and what this server asks of them for its clients. mod/server/start.ts makes one when `federation.domain` is
 * set; it ends in this order: the outbox sends nothing more, peers are no longer answered, links end.
 */
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { ServerNotice, Store } from "../store/store.ts";
import { BlobCache, type BlobRange } from "./blob_cache.ts";
import type { KnownDomains } from "./enqueue_split.ts";
import type { Links } from "./links.ts";
import { Outbox, type OutboxReport } from "./outbox.ts";
import type { DeliveryFailedInit } from "./outbox_failures.ts";
import { PeerMetrics } from "./peer_metrics.ts";
import type { Peers } from "./peers.ts";
import { Relay, type RelayDeps } from "./relay.ts";
import type { PeerBlob } from "./link.ts";
import { asToldToClients, Remote } from "./remote.ts";

const log = logger("federation");

/** What is in flight to peers when the server stops gets so long to be answered. */
const STOP_MS = 3_000;

/** What federation needs of the settings, at each moment. */
export interface FederationLimits {
  readonly outboxTtlMs: number;
  readonly recipientDomainsMax: number;
  readonly peerClaimsPerMinute: number;
  readonly blobCacheBytes: number;
}

/** The parts that it is put together from. */
export interface FederationDeps {
  readonly domain: string;
  readonly store: Store;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly peers: Peers;
  readonly links: Links;
  readonly limits: FederationLimits;
  readonly relay: Omit<RelayDeps, "store" | "clock" | "metrics" | "limits" | "onSeen"> & {
    readonly devicesMax: number;
  };
  /** Copies of other servers' blobs, with the bounds of the cache. */
  readonly cachedBlobs: RelayDeps["blobs"];
  readonly blobBytesMax: () => number;
  readonly notice: (failed: DeliveryFailedInit) => ServerNotice;
}

/** A peer, for an operator. */
export interface PeerReport {
  readonly domain: string;
  readonly address: string | null;
  readonly listed: boolean;
  readonly blocked: boolean;
  /** There is a link to it. */
  readonly link: boolean;
}

/** One server's exchange with others. */
export class Federation {
  readonly domain: string;
  readonly domains: KnownDomains;
  readonly remote: Remote;
  readonly relay: Relay;
  readonly outbox: Outbox;
  readonly #deps: FederationDeps;
  readonly #metrics: PeerMetrics;
  readonly #blobs: BlobCache;
  readonly #unlisten: (() => void)[];

  constructor(deps: FederationDeps) {
    const { domain, store, clock, peers, links, limits } = deps;
    this.#deps = deps;
    this.domain = domain;
    const isPeer = (other: string) => peers.refusalOf(other) === null;
    this.domains = {
      own: domain,
      isPeer,
      get domainsMax() {
        return limits.recipientDomainsMax;
      },
    };
    this.#metrics = new PeerMetrics(deps.metrics.registry, this.#listed());
    const linkTo = (other: string) => links.to(other);
    this.remote = new Remote({ clock, linkTo, isPeer });
    this.outbox = new Outbox({
      store,
      clock,
      linkTo,
      metrics: this.#metrics,
      standing: (other) => isPeer(other) ? "peer" : "held",
      notice: deps.notice,
      ttlMs: () => limits.outboxTtlMs,
    });
    this.relay = new Relay({
      ...deps.relay,
      store,
      clock,
      metrics: this.#metrics,
      limits: {
        get claimsPerMinute() {
          return limits.peerClaimsPerMinute;
        },
        get devicesMax() {
          return deps.relay.devicesMax;
        },
      },
      onSeen: (other) => this.outbox.seen(other),
    });
    this.#blobs = new BlobCache({
      blobs: deps.relay.blobs,
      cached: deps.cachedBlobs,
      clock,
      fetch: (other, sha256) => this.#fetchBlob(other, sha256),
      limits: {
        get bytesMax() {
          return limits.blobCacheBytes;
        },
        get blobBytesMax() {
          return deps.blobBytesMax();
        },
      },
    });
    this.#unlisten = [
      peers.onChanged(() => this.outbox.recheck()),
      deps.metrics.onCollect(() => this.#collect()),
    ];
  }

  /** Begins to send what waits. */
  async start(): Promise<void> {
    await this.outbox.start();
  }

  /** A blob of another server. */
  async blob(domain: string, range: BlobRange): Promise<PeerBlob> {
    return await this.#blobs.get(domain, range);
  }

  /** The settings were reloaded. */
  reloaded(): void {
    this.relay.updateLimits();
    this.#metrics.setPeers(this.#listed());
    this.#deps.peers.changed();
  }

  /** What waits, by domain. */
  reports(): Promise<OutboxReport[]> {
    return this.outbox.reports();
  }

  /** Who the peers are, those listed and those blocked. */
  peers(): PeerReport[] {
    const { peers, links } = this.#deps;
    const linked = new Set(links.open.map((link) => link.domain));
    const blocked = new Set(peers.blocked);
    const listed = new Map(peers.listed.map((entry) => [entry.domain, entry.address]));
    return [...new Set([...listed.keys(), ...blocked, ...linked])].sort().map((domain) => {
      const address = listed.get(domain);
      return {
        domain,
        address: address ? `${address.hostname}:${address.port}` : null,
        listed: listed.has(domain),
        blocked: blocked.has(domain),
        link: linked.has(domain),
      };
    });
  }

  /** Sends nothing more; waits a moment for what is in flight. */
  async stop(): Promise<void> {
    for (const end of this.#unlisten) end();
    let cancel = () => {};
    const late = new Promise<void>((resolve) => cancel = this.#deps.clock.after(STOP_MS, resolve));
    await Promise.race([this.outbox.stop(), late]);
    cancel();
    this.#blobs[Symbol.dispose]();
  }

  #listed(): string[] {
    return this.#deps.peers.listed.map(({ domain }) => domain);
  }

  async #collect(): Promise<void> {
    const { store, clock, links } = this.#deps;
    const now = clock.now();
    this.#metrics.setOutboxes((await store.outboxes()).map(({ domain, depth, bytes, oldestAcceptedAt }) => ({
      domain,
      depth,
      bytes,
      oldestSeconds: Math.max(0, now - oldestAcceptedAt) / 1000,
    })));
    this.#metrics.setLinks(links.open.map((link) => link.domain));
  }

  async #fetchBlob(domain: string, sha256: Uint8Array) {
    try {
      const link = await this.#deps.links.to(domain);
      return await link.getBlob({ sha256 });
    } catch (error) {
      log.debug("cannot fetch a blob of {peer}: {reason}", { peer: domain, reason: messageOf(error) });
      throw asToldToClients(domain, error);
    }
  }
}

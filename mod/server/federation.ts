/** Federation in the running server: made of its parts when `federation.domain` is set, and as administration sees it. */
import type { JsonObject } from "../admin/control.ts";
import type { LiveFederation } from "../admin/operations_live.ts";
import { QpqError } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import type { Settings } from "../config/options.ts";
import { Blobs } from "../delivery/blobs.ts";
import { Dialer, type PeerConnector } from "../federation/dial.ts";
import { Federation } from "../federation/federation.ts";
import type { FederationIdentity, IdentityPems } from "../federation/identity.ts";
import { Links } from "../federation/links.ts";
import { PeerListener, type PeerListenerOptions } from "../federation/peer_listener.ts";
import { Peers } from "../federation/peers.ts";
import { SrvResolver } from "../federation/srv.ts";
import type { BlobFiles } from "../store/blob_files.ts";
import { connect, listen } from "../transport/deno_quic.ts";
import type { ServerContext } from "./context.ts";
import { type WatchedIdentities, watchFederationIdentity } from "./federation_identity.ts";
import { atAddress } from "./listening.ts";
import { noticeMaker } from "./notices.ts";
import { federationPlaceOf, federationViewOf, type LiveSettings } from "./reload_settings.ts";

const log = logger("federation");

/** Copies of blobs being fetched at once; one owner has a quarter of them. */
const CACHE_UPLOADS_MAX = 128;
const DRAINING_RETRY_MS = 5_000;

/** What federation is made of, beside the server's context. */
export interface FederationParts {
  readonly settings: LiveSettings;
  readonly blobFiles: BlobFiles;
}

/** Federation of a running server. */
export class ServerFederation implements LiveFederation, AsyncDisposable {
  readonly federation: Federation;
  readonly listener: PeerListener;
  readonly #context: ServerContext;
  readonly #watched: WatchedIdentities;
  readonly #peers: Peers;
  readonly #links: Links;

  private constructor(
    context: ServerContext,
    parts: {
      federation: Federation;
      listener: PeerListener;
      watched: WatchedIdentities;
      peers: Peers;
      links: Links;
    },
  ) {
    this.#context = context;
    this.federation = parts.federation;
    this.listener = parts.listener;
    this.#watched = parts.watched;
    this.#peers = parts.peers;
    this.#links = parts.links;
  }

  /** Null when it is off; else `context` has it from now on. Throws with what to do when it cannot run. */
  static async start(context: ServerContext, parts: FederationParts): Promise<ServerFederation | null> {
    const place = federationPlaceOf(context.settings);
    if (!place) return null;
    const { clock, store, metrics } = context;
    const settings = parts.settings.view(federationViewOf);
    const engine = await engineOf(place.engine);
    const watched = await watchFederationIdentity(context.settings.dataDir, {
      clock,
      metrics,
      engine: place.engine,
    });
    const { identities } = watched;
    warnOfOtherName(place.domain, identities.current);
    const peers = new Peers({
      domain: place.domain,
      settings,
      srv: new SrvResolver({ clock, nameServer: place.dns }),
      blocked: await store.blockedPeers(),
    });
    const dialer = new Dialer({ domain: place.domain, identities, connector: engine, clock });
    const links = new Links({ peers, identities, dialer, clock, metrics });
    const federation = new Federation({
      domain: place.domain,
      store,
      clock,
      metrics,
      peers,
      links,
      limits: settings,
      relay: relayDeps(context),
      cachedBlobs: cacheOf(context, parts),
      blobBytesMax: () => context.settings.limits.blobBytesMax,
      notice: (failed) =>
        noticeMaker({ clock, ttlMs: () => context.settings.limits.ttlDefaultMs })({
          case: "deliveryFailed",
          value: failed,
        }),
    });
    let listener: PeerListener;
    try {
      listener = await atAddress(
        "listen on",
        place.listen,
        { protocol: "UDP", option: "federation.listen" },
        () =>
          PeerListener.open({
            domain: place.domain,
            listen: place.listen,
            identities,
            peers,
            handlers: federation.relay,
            settings,
            clock,
            metrics,
            engine,
          }),
      );
    } catch (error) {
      watched[Symbol.dispose]();
      links[Symbol.dispose]();
      await federation.stop();
      throw error;
    }
    const started = new ServerFederation(context, { federation, listener, watched, peers, links });
    context.federation = federation;
    await federation.start();
    log.info("listening for other servers", {
      domain: place.domain,
      listen: `${listener.address.hostname}:${listener.address.port}`,
    });
    return started;
  }

  async status(): Promise<JsonObject> {
    const { domain, outbox } = this.federation;
    const { federation } = this.#context.settings;
    const { info } = this.#watched.identities.current;
    const { hostname, port } = this.listener.address;
    return {
      enabled: true,
      domain,
      listen: `${hostname}:${port}`,
      engine: federation.engine,
      mode: federation.mode,
      certificateExpiresAt: info.notAfter,
      links: [...new Set(this.#links.open.map((link) => link.domain))].sort(),
      connections: [...this.listener.connectionsByPeer.keys()].sort(),
      blocked: [...this.#peers.blocked].sort(),
      outboxes: (await outbox.reports()).map((report): JsonObject => ({ ...report })),
    };
  }

  peers(): Promise<JsonObject[]> {
    const links = new Map(this.#links.open.map((link) => [link.domain, link]));
    return Promise.resolve(
      this.federation.peers().map((peer): JsonObject => ({
        ...peer,
        certificateExpiresAt: links.get(peer.domain)?.expiresAt ?? null,
      })),
    );
  }

  async retry(domain: string | null, when: "now" | "dryRun"): Promise<readonly string[]> {
    const { outbox } = this.federation;
    if (when === "now") return await outbox.retry(domain);
    return (await outbox.reports()).map((report) => report.domain)
      .filter((each) => domain === null || each === domain);
  }

  setBlocked(domain: string, state: "blocked" | "unblocked"): void {
    this.#peers.setBlocked(domain, state);
  }

  drop(domain: string): Promise<number> {
    return this.federation.outbox.drop(domain);
  }

  /** The settings were reloaded. */
  reloaded(): void {
    this.federation.reloaded();
  }

  /** Sends nothing more, answers nothing more, ends all links. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.listener.stopAccepting();
    await this.federation.stop();
    await this.listener[Symbol.asyncDispose]();
    this.#links[Symbol.dispose]();
    this.#watched[Symbol.dispose]();
  }
}

function warnOfOtherName(domain: string, { info }: FederationIdentity): void {
  if (info.names.includes(domain)) return;
  log.error("the federation certificate does not name {domain}: no other server will take it", { domain });
}

/** The engine's two ends. The native binding is only looked for when it is wanted: its absence is told with what to do. */
async function engineOf(
  name: Settings["federation"]["engine"],
): Promise<PeerConnector & PeerListenerOptions["engine"]> {
  if (name === "deno") return { connect, listen };
  const quiche = await import("../transport/quiche.ts");
  return {
    connect: quiche.connect,
    listen: quiche.listen,
    mutual: ({ caPem, certificatePem, privateKeyPem }: IdentityPems) => ({
      kind: "mutual",
      caPem,
      certificate: { certificatePem, privateKeyPem },
    }),
  };
}

function relayDeps(context: ServerContext) {
  const { delivery, keyPackages, blobs, limits, metrics } = context;
  return {
    delivery,
    keyPackages,
    blobs,
    get devicesMax() {
      return context.settings.limits.devicesMax;
    },
    refusal: () => {
      if (context.draining) {
        const retryAfterMs = DRAINING_RETRY_MS;
        return new QpqError("shuttingDown", "A peer asked while draining", { retryAfterMs });
      }
      return context.disk.refusal("enqueue");
    },
    mayClaim: (domain: string, target: string) => limits.claimForPeer(domain, target),
    onClaimLimit: () => metrics.rateLimitHit("peerClaims"),
  };
}

/** The same files and references, with the bounds of copies. */
function cacheOf({ store, clock }: ServerContext, { settings, blobFiles }: FederationParts): Blobs {
  const limits = settings.view(({ federation, limits }) => ({
    blobBytesMax: limits.blobBytesMax,
    blobQuotaBytes: federation.blobCacheBytes,
    ttlDefaultMs: federation.blobCacheTtlMs,
    ttlMaxMs: federation.blobCacheTtlMs,
    uploadsMax: CACHE_UPLOADS_MAX,
    beyondTtlMs: 0,
  }));
  return new Blobs({ store, files: blobFiles, clock, limits });
}

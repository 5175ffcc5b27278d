/**
 * The door for other servers: accepts connections within bounds, serves those that prove to be peers, and looks at
 * their certificates again every hour. What it answers is in peer_connection.ts.
 */
import { limitKey, maskAddress, type NetAddress } from "../base/address.ts";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { RequestsInFlight } from "../base/requests_in_flight.ts";
import type { Metrics } from "../observe/metrics.ts";
import { CLOSE_CODES } from "../protocol/close_codes.ts";
import { PEER_ALPN } from "../protocol/peer_methods.ts";
import type { Connection, Listener, ListenOptions } from "../transport/transport.ts";
import type { Identities } from "./identity.ts";
import { RECHECK_MS } from "./links.ts";
import { PeerConnection } from "./peer_connection.ts";
import type { PeerHandlers } from "./peer_handlers.ts";
import { PeerLimiter, type PeerRates } from "./peer_limits.ts";
import type { Peers } from "./peers.ts";
import { PeerRefused, RefusalLog } from "./refusal.ts";
import { reportRefusedInitiator } from "./tls_refusal.ts";

const log = logger("federation");

/** Connections of one peer. */
export const CONNECTIONS_PER_PEER_MAX = 4;
/** Connections that have not proven anything yet: all, and of one address (IPv6: a /64). */
const UNPROVEN_MAX = 64;
const UNPROVEN_PER_ADDRESS_MAX = 16;
/** Streams of one connection: calls, and blobs beside them. */
const STREAMS_MAX = 8;
const HANDSHAKES_PER_SECOND_MAX = 100;
const IDLE_MS = 20_000;

/** What a listener for peers needs. */
export interface PeerListenerOptions {
  readonly domain: string;
  readonly listen: NetAddress;
  readonly identities: Identities;
  readonly peers: Peers;
  readonly handlers: PeerHandlers;
  readonly settings: PeerRates & { readonly connectionsMax: number; readonly frameDeadlineMs: number };
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly engine: {
    listen(options: ListenOptions): Listener | Promise<Listener>;
    /** TLS shows the initiator's certificate, if it has one to show. */
    readonly mutual?: unknown;
  };
}

/** Listens for other servers. */
export class PeerListener implements AsyncDisposable {
  readonly options: PeerListenerOptions;
  readonly limiter: PeerLimiter;
  readonly refusals: RefusalLog;
  /** Requests of all peers. */
  readonly inFlight = new RequestsInFlight();
  readonly #listener: Listener;
  readonly #connections = new Set<PeerConnection>();
  readonly #ends: (() => void)[];
  #cancel: () => void = () => {};
  #ended = false;

  private constructor(options: PeerListenerOptions, listener: Listener, refusals: RefusalLog) {
    this.options = options;
    this.refusals = refusals;
    this.limiter = new PeerLimiter(options.settings, options);
    this.#listener = listener;
    this.#ends = [
      options.identities.onReplaced((identity) => {
        const { pems } = identity;
        listener.replaceCertificate(pems, options.engine.mutual ? { clientCaPem: pems.caPem } : {});
        this.#recheck();
      }),
      options.peers.onChanged(() => this.#closeStrangers()),
    ];
    this.#schedule();
    this.#acceptAll().catch((error) =>
      log.error("accepting other servers ended: {error}", { error: messageOf(error) })
    );
  }

  /** Throws when the address or the certificate cannot be used. */
  static async open(options: PeerListenerOptions): Promise<PeerListener> {
    const { identities, metrics, clock } = options;
    const { pems } = identities.current;
    const refusals = new RefusalLog(options);
    const listener = await options.engine.listen({
      ...options.listen,
      certificate: pems,
      alpn: PEER_ALPN,
      idleTimeoutMs: IDLE_MS,
      streamsMax: STREAMS_MAX,
      handshakesMax: UNPROVEN_MAX,
      handshakesPerSecondMax: HANDSHAKES_PER_SECOND_MAX,
      onHandshakeFailure: (kind) => metrics.handshakeFailure(kind),
      onCertificateRefused: (refused, from) =>
        void reportRefusedInitiator(refusals, identities.current, { ...refused, from, now: clock.now() }),
      // An initiator of engine deno has none to show, and proves itself with PeerProve.
      ...(options.engine.mutual ? { clientCaPem: pems.caPem, clientCertificate: "optional" } : {}),
    });
    return new PeerListener(options, listener, refusals);
  }

  /** With the real port. */
  get address(): NetAddress {
    return this.#listener.address;
  }

  /** Is it still taking connections? */
  get accepting(): boolean {
    return this.#listener.accepting;
  }

  /** Connections of proven peers, by domain. */
  get connectionsByPeer(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>();
    for (const { peer } of this.#connections) {
      if (peer) counts.set(peer.domain, (counts.get(peer.domain) ?? 0) + 1);
    }
    return counts;
  }

  /** Takes no more connections; those that are open go on. */
  stopAccepting(): void {
    this.#listener.stopAccepting();
  }

  /** Ends everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended = true;
    this.#cancel();
    for (const end of this.#ends) end();
    for (const connection of this.#connections) connection.close("shuttingDown");
    await this.#listener.close();
  }

  async #acceptAll(): Promise<void> {
    for await (const connection of this.#listener.connections()) this.#admit(connection);
  }

  #admit(connection: Connection): void {
    const { metrics } = this.options;
    const { hostname } = connection.remoteAddress;
    const refusal = this.#refusal(limitKey(hostname));
    if (refusal) {
      this.refusals.report(refusal, maskAddress(hostname));
      return connection.close(CLOSE_CODES.rateLimited, "rateLimited");
    }
    const served = new PeerConnection(this, connection);
    this.#connections.add(served);
    metrics.peerConnections.set(this.#connections.size);
    served.run()
      .catch((error) => log.error("a peer's connection failed: {error}", { error: messageOf(error) }))
      .finally(() => {
        connection.close(CLOSE_CODES.done, "");
        this.#connections.delete(served);
        metrics.peerConnections.set(this.#connections.size);
      });
  }

  #refusal(address: string): PeerRefused | null {
    const { connectionsMax } = this.options.settings;
    if (this.#connections.size >= connectionsMax) {
      return new PeerRefused("rate_limited", `${connectionsMax} connections are open`);
    }
    const unproven = [...this.#connections].filter(({ peer }) => peer === null);
    const same = unproven.filter((connection) => connection.addressKey === address).length;
    if (unproven.length < UNPROVEN_MAX && same < UNPROVEN_PER_ADDRESS_MAX) return null;
    return new PeerRefused("rate_limited", "Too many connections have not proven anything yet");
  }

  /** Is there room for one more connection of this peer, which is not counted yet? */
  hasRoomFor(domain: string): boolean {
    return (this.connectionsByPeer.get(domain) ?? 0) < CONNECTIONS_PER_PEER_MAX;
  }

  #schedule(): void {
    if (this.#ended) return;
    this.#cancel = this.options.clock.after(RECHECK_MS, () => {
      this.#schedule();
      this.#recheck();
    });
  }

  async #recheck(): Promise<void> {
    const { identities, clock } = this.options;
    for (const connection of this.#connections) {
      if (!connection.peer) continue;
      try {
        await identities.current.verifyPeerChain(connection.peer, clock.now());
      } catch (error) {
        connection.end(error instanceof PeerRefused ? error : new PeerRefused("protocol", messageOf(error)));
      }
    }
  }

  #closeStrangers(): void {
    for (const connection of this.#connections) {
      const refusal = connection.peer && this.options.peers.refusalOf(connection.peer.domain);
      if (refusal) connection.end(refusal);
    }
  }
}

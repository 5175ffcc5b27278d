/** Servers as far as links between them go: identities of one authority, a listener, links; no delivery behind. */
import { FakeClock } from "./fake_clock.ts";
import { type Clock, systemClock } from "../../mod/base/clock.ts";
import { Dialer } from "../../mod/federation/dial.ts";
import { FederationIdentity, Identities, type IdentityPems } from "../../mod/federation/identity.ts";
import { Links } from "../../mod/federation/links.ts";
import type { PeerHandlers } from "../../mod/federation/peer_handlers.ts";
import { PeerListener } from "../../mod/federation/peer_listener.ts";
import { Peers, type PeerSettings } from "../../mod/federation/peers.ts";
import { SrvResolver } from "../../mod/federation/srv.ts";
import { Metrics } from "../../mod/observe/metrics.ts";
import * as deno from "../../mod/transport/deno_quic.ts";
import * as quiche from "../../mod/transport/quiche.ts";
import { makeCa, makeLeaf } from "../../mod/transport/tls.ts";
import type { ServerCertificate } from "../../mod/transport/transport.ts";

/** The engines of federation, as the server sets them up. */
export const PEER_ENGINES = {
  deno: { connect: deno.connect, listen: deno.listen },
  quiche: {
    connect: quiche.connect,
    listen: quiche.listen,
    mutual: ({ caPem, certificatePem, privateKeyPem }: IdentityPems) => ({
      kind: "mutual" as const,
      caPem,
      certificate: { certificatePem, privateKeyPem },
    }),
  },
};

/** One of them. */
export type PeerEngineName = keyof typeof PEER_ENGINES;

/** A test for each engine. */
export function testEngines(name: string, run: (engine: PeerEngineName) => Promise<void>): void {
  for (const engine of ["deno", "quiche"] as const) Deno.test(`${engine}: ${name}`, () => run(engine));
}

/** What the handlers of a test server answer; `relayed` keeps what came. */
export function testHandlers(relayed: string[] = []): PeerHandlers {
  return {
    relay: async (peer, { messages }) => {
      relayed.push(`${peer.domain} ${messages.length}`);
      return { results: messages.map(() => ({ code: 0 })) };
    },
    submitCommit: async () => ({ replayed: false }),
    claim: async () => ({ userName: "bob" }),
    getAccount: async () => ({ userName: "bob" }),
    getBlob: async () => ({ size: 5, length: 5, body: chunks() }),
  };
}

async function* chunks(): AsyncGenerator<Uint8Array> {
  yield new TextEncoder().encode("he");
  yield new TextEncoder().encode("llo");
}

/** A frame that was begun has to be whole by then. */
export const FRAME_DEADLINE_MS = 120_000;

/** An authority of a test. */
export async function authority(name = "Federation CA"): Promise<ServerCertificate> {
  return await makeCa({ commonName: name, now: Date.now() });
}

/** The files of a server's identity. */
export async function pemsFor(
  ca: ServerCertificate,
  domain: string,
  more: { caPem?: string; crlPem?: string; lifeMs?: number; now?: number } = {},
): Promise<IdentityPems> {
  const { lifeMs, now = Date.now() } = more;
  const leaf = await makeLeaf({
    ca,
    names: [domain],
    now,
    mutual: true,
    ...(lifeMs === undefined ? {} : { lifeMs }),
  });
  return { ...leaf, caPem: more.caPem ?? ca.certificatePem, crlPem: more.crlPem ?? null };
}

/** How a test server differs. */
export interface TestPeerOptions {
  readonly engine?: PeerEngineName;
  readonly clock?: Clock;
  readonly handlers?: PeerHandlers;
  readonly peersPerSecond?: number;
  readonly connectionsMax?: number;
  readonly dns?: { hostname: string; port: number };
}

/** One server. */
export class TestPeer implements AsyncDisposable {
  readonly settings: { mode: PeerSettings["mode"]; peers: string[] } = { mode: "allowlist", peers: [] };
  readonly links: Links;
  #refusedCount = 0;
  #onRefused: () => void = () => {};

  private constructor(
    readonly domain: string,
    readonly identities: Identities,
    readonly peers: Peers,
    readonly metrics: Metrics,
    readonly listener: PeerListener,
    readonly dialer: Dialer,
    readonly clock: Clock,
  ) {
    this.links = new Links({ peers, identities, dialer, clock, metrics });
    const count = metrics.peerRefused;
    metrics.peerRefused = (reason) => {
      count.call(metrics, reason);
      this.#refusedCount++;
      this.#onRefused();
    };
  }

  /** Begins to listen on loopback. */
  static async start(domain: string, pems: IdentityPems, options: TestPeerOptions = {}): Promise<TestPeer> {
    const clock = options.clock ?? systemClock;
    const metrics = new Metrics({ version: "0", methods: [], limits: ["peerRequests", "peerBytes"], clock });
    const identities = new Identities(await FederationIdentity.read(pems, clock.now()), clock);
    const settings = { mode: "allowlist" as PeerSettings["mode"], peers: [] as string[] };
    const srv = new SrvResolver({ clock, nameServer: options.dns ?? null });
    const peers = new Peers({ domain, settings, srv });
    const engine = PEER_ENGINES[options.engine ?? "deno"];
    const listener = await PeerListener.open({
      domain,
      listen: { hostname: "127.0.0.1", port: 0 },
      identities,
      peers,
      handlers: options.handlers ?? testHandlers(),
      settings: {
        peerMessagesPerSecond: options.peersPerSecond ?? 1000,
        peerBytesPerDay: 1 << 30,
        connectionsMax: options.connectionsMax ?? 64,
        frameDeadlineMs: FRAME_DEADLINE_MS,
      },
      clock,
      metrics,
      engine,
    });
    const dialer = new Dialer({ domain, identities, connector: engine, clock });
    const peer = new TestPeer(domain, identities, peers, metrics, listener, dialer, clock);
    Object.assign(peer, { settings });
    return peer;
  }

  /** This server takes `other` for a peer at its address. */
  knows(other: { domain: string; listener: { address: { port: number } } }): void {
    this.settings.peers = [
      ...this.settings.peers,
      `${other.domain}=127.0.0.1:${other.listener.address.port}`,
    ];
    this.peers.changed();
  }

  /** How often something was refused here, by reason; zeros left out. */
  async refusals(): Promise<Record<string, number>> {
    const { body } = await this.metrics.render();
    const found = [...body.matchAll(/^qpq_federation_refused_total\{reason="(\w+)"\} (\d+)$/gm)];
    return Object.fromEntries(
      found.map(([, reason, count]) => [reason!, Number(count)] as const).filter(([, count]) => count > 0),
    );
  }

  /** The same, once it is `count` or more: the other side may know of its refusal first. */
  async refusalsOnce(count: number): Promise<Record<string, number>> {
    while (this.#refusedCount < count) await new Promise<void>((resolve) => this.#onRefused = resolve);
    return await this.refusals();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.links[Symbol.dispose]();
    await this.listener[Symbol.asyncDispose]();
  }
}

/** A fake clock that shows the time of certificates made now. */
export function clockNow(): FakeClock {
  return new FakeClock({ now: Date.now() });
}

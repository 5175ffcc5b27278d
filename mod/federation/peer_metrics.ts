/**
 * Metrics of federation, by peer. The label `peer` is a closed set: the allowlist in force, and `other` for all else
 * (servers that an open mode lets in, and what is left in the outbox for removed ones).
 */
import { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** Why a message did not reach a device, for good. */
export const FAILURES = [
  "expired",
  "unknown_device",
  "queue_full",
  "blocked",
  "refused",
  "peer_removed",
] as const;

/** One of {@link FAILURES}. */
export type Failure = (typeof FAILURES)[number];

/** Why an attempt is repeated later: no link, or the peer asked for it. */
export const PUT_OFF = ["unreachable", "refused"] as const;

/** Where a message went. */
export type Direction = "in" | "out";

const OTHER = "other";

/** From acceptance here to acceptance there, in seconds: a network's round trip … a night's outage. */
const RELAY_BUCKETS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60, 600, 3600, 86_400];

/** What is shown of one peer's outbox. */
export interface OutboxFigures {
  readonly domain: string;
  readonly depth: number;
  readonly bytes: number;
  /** Of the oldest message; 0 without one. */
  readonly oldestSeconds: number;
}

/** The metrics of one server's federation. */
export class PeerMetrics {
  readonly #peers = new Set<string>();
  readonly #depth: Gauge<"peer">;
  readonly #bytes: Gauge<"peer">;
  readonly #oldest: Gauge<"peer">;
  readonly #linkUp: Gauge<"peer">;
  readonly #relayed: Counter<"peer" | "direction">;
  readonly #failed: Counter<"peer" | "reason">;
  readonly #putOff: Counter<"peer" | "reason">;
  readonly #seconds: Histogram<"peer">;

  constructor(registry: Registry, peers: readonly string[]) {
    const registers = [registry];
    const gauge = (name: string, help: string) =>
      new Gauge({ name: `qpq_federation_${name}`, help, labelNames: ["peer"], registers });
    this.#depth = gauge("outbox_entries", "Messages accepted for a peer and not delivered yet");
    this.#bytes = gauge("outbox_bytes", "Bytes of the messages that wait for a peer");
    this.#oldest = gauge("outbox_oldest_seconds", "Age of the oldest message that waits for a peer");
    this.#linkUp = gauge("link_up", "1 while there is an authenticated link to the peer");
    this.#relayed = new Counter({
      name: "qpq_federation_relayed_total",
      help: "Messages that a peer accepted (out), or that were accepted of it (in)",
      labelNames: ["peer", "direction"],
      registers,
    });
    this.#failed = new Counter({
      name: "qpq_federation_failed_total",
      help: "Recipients on a peer that a message did not reach, for good",
      labelNames: ["peer", "reason"],
      registers,
    });
    this.#putOff = new Counter({
      name: "qpq_federation_put_off_total",
      help: "Attempts to deliver that are repeated later",
      labelNames: ["peer", "reason"],
      registers,
    });
    this.#seconds = new Histogram({
      name: "qpq_federation_relay_seconds",
      help: "From a message's acceptance here to its acceptance by the peer",
      labelNames: ["peer"],
      buckets: RELAY_BUCKETS,
      registers,
    });
    this.setPeers(peers);
  }

  /** The allowlist in force. Series of peers that left it end. */
  setPeers(peers: readonly string[]): void {
    const wanted = new Set([...peers, OTHER]);
    for (const peer of [...this.#peers]) if (!wanted.has(peer)) this.#remove(peer);
    for (const peer of wanted) if (!this.#peers.has(peer)) this.#add(peer);
  }

  /** Sets the gauges of every peer; those of several others are summed up. */
  setOutboxes(outboxes: readonly OutboxFigures[]): void {
    const sums = new Map([...this.#peers].map((peer) => [peer, { depth: 0, bytes: 0, oldest: 0 }]));
    for (const { domain, depth, bytes, oldestSeconds } of outboxes) {
      const sum = sums.get(this.#labelOf(domain))!;
      sum.depth += depth;
      sum.bytes += bytes;
      sum.oldest = Math.max(sum.oldest, oldestSeconds);
    }
    for (const [peer, { depth, bytes, oldest }] of sums) {
      this.#depth.set({ peer }, depth);
      this.#bytes.set({ peer }, bytes);
      this.#oldest.set({ peer }, oldest);
    }
  }

  /** Domains with a link now. */
  setLinks(domains: readonly string[]): void {
    const up = new Set(domains.map((domain) => this.#labelOf(domain)));
    for (const peer of this.#peers) this.#linkUp.set({ peer }, up.has(peer) ? 1 : 0);
  }

  relayed(domain: string, direction: Direction): void {
    this.#relayed.inc({ peer: this.#labelOf(domain), direction });
  }

  relaySeconds(domain: string, seconds: number): void {
    this.#seconds.observe({ peer: this.#labelOf(domain) }, Math.max(0, seconds));
  }

  failed(domain: string, reason: Failure, recipients: number): void {
    this.#failed.inc({ peer: this.#labelOf(domain), reason }, recipients);
  }

  putOff(domain: string, reason: (typeof PUT_OFF)[number]): void {
    this.#putOff.inc({ peer: this.#labelOf(domain), reason });
  }

  #labelOf(domain: string): string {
    return this.#peers.has(domain) ? domain : OTHER;
  }

  #add(peer: string): void {
    this.#peers.add(peer);
    for (const gauge of [this.#depth, this.#bytes, this.#oldest, this.#linkUp]) gauge.set({ peer }, 0);
    for (const direction of ["in", "out"]) this.#relayed.inc({ peer, direction }, 0);
    for (const reason of FAILURES) this.#failed.inc({ peer, reason }, 0);
    for (const reason of PUT_OFF) this.#putOff.inc({ peer, reason }, 0);
    this.#seconds.zero({ peer });
  }

  #remove(peer: string): void {
    this.#peers.delete(peer);
    for (const metric of [this.#depth, this.#bytes, this.#oldest, this.#linkUp]) metric.remove({ peer });
    for (const direction of ["in", "out"]) this.#relayed.remove({ peer, direction });
    for (const reason of FAILURES) this.#failed.remove({ peer, reason });
    for (const reason of PUT_OFF) this.#putOff.remove({ peer, reason });
    this.#seconds.remove({ peer });
  }
}

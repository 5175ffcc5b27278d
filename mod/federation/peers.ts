/** Who is a peer, where it is, and whom the operator blocked. */
import type { NetAddress } from "../base/address.ts";
import { QpqError } from "../base/errors.ts";
import { type PeerEntry, tryParsePeerEntry } from "../base/peer_entry.ts";
import { PeerRefused } from "./refusal.ts";
import type { SrvResolver } from "./srv.ts";

/** Read whenever they are needed: a reload changes them. */
export interface PeerSettings {
  readonly mode: "allowlist" | "open";
  /** As options.ts reads them. */
  readonly peers: readonly string[];
}

/** The other servers. */
export class Peers {
  readonly #domain: string;
  readonly #settings: PeerSettings;
  readonly #srv: SrvResolver;
  readonly #blocked: Set<string>;
  readonly #listeners = new Set<() => void>();
  #parsedFrom: readonly string[] | null = null;
  #entries = new Map<string, PeerEntry>();

  constructor(
    options: { domain: string; settings: PeerSettings; srv: SrvResolver; blocked?: Iterable<string> },
  ) {
    this.#domain = options.domain;
    this.#settings = options.settings;
    this.#srv = options.srv;
    this.#blocked = new Set(options.blocked);
  }

  /** The allowlist. */
  get listed(): readonly PeerEntry[] {
    return [...this.#allowlist().values()];
  }

  /** Domains that the operator blocked. */
  get blocked(): readonly string[] {
    return [...this.#blocked];
  }

  /** Blocks or unblocks for this process; the store keeps it. Open links of a blocked peer end. */
  setBlocked(domain: string, state: "blocked" | "unblocked"): void {
    if (state === "blocked") this.#blocked.add(domain);
    else this.#blocked.delete(domain);
    this.changed();
  }

  /** The settings were reloaded: links of those who are no peers any more end. */
  changed(): void {
    for (const listener of this.#listeners) listener();
  }

  /** Told when somebody may have ceased to be a peer; the result ends it. */
  onChanged(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Why `domain` is no peer; null when it may be one. In open mode every domain may. */
  refusalOf(domain: string): PeerRefused | null {
    if (this.#blocked.has(domain)) return new PeerRefused("blocked", `${domain} is blocked`);
    const known = this.#allowlist().has(domain) || this.#settings.mode === "open";
    if (known && domain !== this.#domain) return null;
    return new PeerRefused("unknown_domain", `${domain} is not in federation.peers`);
  }

  /** Returns when `domain` is a peer that may come in; throws PeerRefused. A stranger must have SRV records. */
  async admit(domain: string): Promise<void> {
    const refusal = this.refusalOf(domain);
    if (refusal) throw refusal;
    if (this.#allowlist().has(domain)) return;
    try {
      await this.#srv.lookup(domain);
    } catch (cause) {
      throw new PeerRefused("unknown_domain", `${domain} has no SRV record that names a server`, { cause });
    }
  }

  /** Where to reach `domain`, best first; throws `unknownDomain` or `peerUnavailable`. */
  async addressesOf(domain: string): Promise<readonly NetAddress[]> {
    const refusal = this.refusalOf(domain);
    if (refusal) throw new QpqError("unknownDomain", refusal.message, { cause: refusal });
    const address = this.#allowlist().get(domain)?.address;
    return address ? [address] : await this.#srv.lookup(domain);
  }

  #allowlist(): ReadonlyMap<string, PeerEntry> {
    const { peers } = this.#settings;
    if (peers !== this.#parsedFrom) {
      this.#parsedFrom = peers;
      this.#entries = new Map(peers.flatMap((text) => {
        const entry = tryParsePeerEntry(text);
        return entry ? [[entry.domain, entry] as const] : [];
      }));
    }
    return this.#entries;
  }
}

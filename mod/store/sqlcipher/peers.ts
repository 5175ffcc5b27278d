/**
 * Other servers as the worker knows them: their keys, the sums of their outboxes and the numbers of the messages that
 * came from them. Kept in memory and written when the transaction commits, as the ledger does it (which calls this).
 */
import type { Connection, Prepared } from "./connection.ts";

/** A peer. As a sender its key is negative, in the place of an account's and of a device's. */
export interface Peer {
  readonly key: number;
  readonly domain: string;
  readonly account: number;
  readonly device: number;
  depth: number;
  bytes: number;
  sentNext: number;
  dirty: boolean;
}

interface PeerRow {
  id: number;
  domain: string;
  depth: number;
  bytes: number;
  sent_next: number;
}

interface Daily {
  day: number;
  bytes: number;
  guards: number;
}

const COLUMNS = "id, domain, depth, bytes, sent_next";

/** The peers that were touched lately. */
export class Peers {
  readonly #find: Prepared<PeerRow>;
  readonly #findByKey: Prepared<PeerRow>;
  readonly #findDaily: Prepared<Daily>;
  readonly #insert: Prepared<never>;
  readonly #update: Prepared<never>;
  readonly #byDomain = new Map<string, Peer>();
  readonly #byKey = new Map<number, Peer>();
  #dirty: Peer[] = [];
  /** Domains whose outboxes got messages in this transaction. */
  readonly relaying = new Set<string>();

  constructor(connection: Connection) {
    this.#find = connection.prepare(`SELECT ${COLUMNS} FROM peers WHERE domain = ?`);
    this.#findByKey = connection.prepare(`SELECT ${COLUMNS} FROM peers WHERE id = ?`);
    this.#findDaily = connection.prepare("SELECT day, bytes, guards FROM daily WHERE account = ?");
    this.#insert = connection.prepare("INSERT INTO peers (domain) VALUES (?)");
    this.#update = connection.prepare("UPDATE peers SET depth = ?, bytes = ?, sent_next = ? WHERE id = ?");
  }

  /** How many are in memory. */
  get size(): number {
    return this.#byKey.size;
  }

  /** The peer, if the store has heard of it. */
  find(domain: string): Peer | undefined {
    const known = this.#byDomain.get(domain);
    if (known) return known;
    const row = this.#find.get(domain);
    return row && this.#keep(row);
  }

  /** The peer; one that is new gets a row. */
  get(domain: string): Peer {
    const known = this.find(domain);
    if (known) return known;
    return this.#keep({ id: this.#insert.insert(domain), domain, depth: 0, bytes: 0, sent_next: 1 });
  }

  /** The peer with this (positive) key. */
  byKey(key: number): Peer | undefined {
    const known = this.#byKey.get(key);
    if (known) return known;
    const row = this.#findByKey.get(key);
    return row && this.#keep(row);
  }

  /** What is kept of a peer's latest day, by its (negative) key as a sender. */
  daily(account: number): Daily {
    return this.#findDaily.get(account) ?? { day: 0, bytes: 0, guards: 0 };
  }

  #keep({ id, domain, depth, bytes, sent_next }: PeerRow): Peer {
    const peer: Peer = {
      ...{ key: id, domain, account: -id, device: -id },
      ...{ depth, bytes, sentNext: sent_next, dirty: false },
    };
    this.#byDomain.set(domain, peer);
    this.#byKey.set(id, peer);
    return peer;
  }

  /** Has the peer written at the next flush. */
  changed(peer: Peer): void {
    if (peer.dirty) return;
    peer.dirty = true;
    this.#dirty.push(peer);
  }

  /** Writes what has changed. */
  flush(): void {
    for (const peer of this.#dirty) {
      this.#update.run(peer.depth, peer.bytes, peer.sentNext, peer.key);
      peer.dirty = false;
    }
    this.#dirty.length = 0;
  }

  /** Domains that got messages since the last call. */
  takeRelaying(): string[] {
    const domains = [...this.relaying];
    this.relaying.clear();
    return domains;
  }

  /** Forgets everything, as after a rollback. */
  clear(): void {
    this.#byDomain.clear();
    this.#byKey.clear();
    this.#dirty.length = 0;
    this.relaying.clear();
  }
}

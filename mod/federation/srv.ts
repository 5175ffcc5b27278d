/**
 * Where a domain's server is, by its SRV records (RFC 2782) `_qpq-federation._udp.<domain>`. Deno does not tell the
 * records' time to live, so that answers are kept for five minutes.
 */
import type { NetAddress } from "../base/address.ts";
import type { Clock } from "../base/clock.ts";
import { messageOf, QpqError } from "../base/errors.ts";

const CACHE_MS = 5 * 60_000;
/** That there is none, or no answer, is asked again earlier. */
const FAILURE_CACHE_MS = 15_000;
const CACHE_ENTRIES_MAX = 4096;
const QUERY_MS_MAX = 5_000;
const TARGETS_MAX = 16;

type Answer = { targets: readonly Deno.SrvRecord[] } | { failure: QpqError };

/** What finds SRV records. */
export interface SrvOptions {
  readonly clock: Clock;
  /** The name server, by IP address; null: the system's. */
  readonly nameServer: NetAddress | null;
  /** Numbers in [0, 1). */
  readonly random?: () => number;
}

/** Finds servers by DNS. */
export class SrvResolver {
  readonly #options: SrvOptions;
  readonly #cache = new Map<string, { answer: Promise<Answer>; until: number }>();

  constructor(options: SrvOptions) {
    this.#options = options;
  }

  /** The addresses in the order to try them; `peerUnavailable` when there is no record or no answer. */
  async lookup(domain: string): Promise<NetAddress[]> {
    const answer = await this.#cached(domain);
    if ("failure" in answer) throw answer.failure;
    return inOrder(answer.targets, this.#options.random ?? Math.random)
      .map(({ target, port }) => ({ hostname: target.replace(/\.$/, ""), port }));
  }

  #cached(domain: string): Promise<Answer> {
    const now = this.#options.clock.monotonic();
    const known = this.#cache.get(domain);
    if (known && now < known.until) return known.answer;
    this.#cache.delete(domain);
    if (this.#cache.size >= CACHE_ENTRIES_MAX) this.#cache.delete(this.#cache.keys().next().value!);
    const entry = { answer: this.#query(domain), until: now + CACHE_MS };
    entry.answer.then((answer) => {
      if ("failure" in answer) entry.until = this.#options.clock.monotonic() + FAILURE_CACHE_MS;
    });
    this.#cache.set(domain, entry);
    return entry.answer;
  }

  async #query(domain: string): Promise<Answer> {
    const name = `_qpq-federation._udp.${domain}`;
    const { nameServer } = this.#options;
    try {
      const records = await Deno.resolveDns(name, "SRV", {
        signal: AbortSignal.timeout(QUERY_MS_MAX),
        ...(nameServer ? { nameServer: { ipAddr: nameServer.hostname, port: nameServer.port } } : {}),
      });
      // A single record with the root as its target: the service is decidedly not there.
      const targets = records.filter(({ target, port }) => target !== "." && target !== "" && port > 0);
      if (targets.length > 0) return { targets: bestOf(targets) };
      return {
        failure: new QpqError("peerUnavailable", `${domain} says that it has no such server (${name})`),
      };
    } catch (cause) {
      const why = cause instanceof Deno.errors.NotFound
        ? `There is no SRV record ${name}`
        : `The SRV record ${name} cannot be had: ${messageOf(cause)}`;
      return { failure: new QpqError("peerUnavailable", why, { cause }) };
    }
  }
}

/** As many as are tried: an answer may hold thousands, a megabyte of them, and anybody can have many domains. */
function bestOf(records: readonly Deno.SrvRecord[]): Deno.SrvRecord[] {
  return records.toSorted((a, b) => a.priority - b.priority).slice(0, TARGETS_MAX);
}

/** By priority; among equals at random by weight (RFC 2782). */
function inOrder(records: readonly Deno.SrvRecord[], random: () => number): Deno.SrvRecord[] {
  const left = [...records];
  const ordered: Deno.SrvRecord[] = [];
  while (left.length > 0) {
    const priority = Math.min(...left.map((record) => record.priority));
    const equals = left.filter((record) => record.priority === priority);
    const sum = equals.reduce((total, { weight }) => total + weight, 0);
    let at = random() * sum;
    const chosen = equals.find(({ weight }) => (at -= weight) < 0) ?? equals.at(-1)!;
    ordered.push(chosen);
    left.splice(left.indexOf(chosen), 1);
  }
  return ordered;
}

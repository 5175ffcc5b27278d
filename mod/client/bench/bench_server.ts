/** The server under load: connections to it, verified once and pinned from then on. */
import { connect } from "../../transport/deno_quic.ts";
import type { Connection } from "../../transport/transport.ts";
import { connectServer, type ConnectServerOptions, type ServerLink, type ServerTrust } from "../identity.ts";

const IDLE_TIMEOUT_MS = 30_000;

/** How a bench reaches its server; `trust` is what a former bench left. */
export type BenchTarget = Pick<ConnectServerOptions, "server" | "choice" | "trust" | "accessToken">;

/** Makes connections. */
export class BenchServer {
  readonly #target: BenchTarget;
  #trust: ServerTrust | null;

  constructor(target: BenchTarget) {
    this.#target = target;
    this.#trust = target.trust ?? null;
  }

  /** What later connections are verified by; null before the first, or when the public roots vouch. */
  get trust(): ServerTrust | null {
    return this.#trust;
  }

  /** Where it is. */
  get address(): BenchTarget["server"] {
    return this.#target.server;
  }

  /** One more connection, after Hello. */
  async connect(): Promise<ServerLink> {
    const { choice, ...target } = this.#target;
    const known = this.#trust ? { trust: this.#trust } : { choice };
    const link = await connectServer({ ...target, ...known, clientVersion: "qpq-client/bench" });
    this.#trust = link.trust;
    return link;
  }

  /** One more connection, without Hello. {@link connect} must have learnt how the server is recognised. */
  async handshake(): Promise<Connection> {
    const leafSha256 = this.#trust?.pins;
    const identity = leafSha256 ? { kind: "pinned", leafSha256 } as const : { kind: "roots" } as const;
    return await connect({ ...this.#target.server, identity, idleTimeoutMs: IDLE_TIMEOUT_MS });
  }
}

/**
 * `work` on each of `items`, at most `atOnce` at a time; results in order. Begins nothing after a failure, and fails when
 * the others have ended.
 */
export async function inParallel<Item, Result>(
  items: readonly Item[],
  atOnce: number,
  work: (item: Item, index: number) => Promise<Result>,
): Promise<Result[]> {
  const results = new Array<Result>(items.length);
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const index = next++;
      try {
        results[index] = await work(items[index]!, index);
      } catch (error) {
        next = items.length;
        throw error;
      }
    }
  };
  // All of them: what one still makes after another has failed is to be cleaned up as well.
  const ended = await Promise.allSettled(Array.from({ length: Math.min(atOnce, items.length) }, worker));
  for (const each of ended) if (each.status === "rejected") throw each.reason;
  return results;
}

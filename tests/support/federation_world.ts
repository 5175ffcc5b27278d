/** Real servers of several domains on loopback, in this process, that trust one federation CA and know each other. */
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../../mod/base/clock.ts";
import type { NetAddress } from "../../mod/base/address.ts";
import { addressText } from "../../mod/base/address.ts";
import { makeCa, makeLeaf } from "../../mod/transport/tls.ts";
import type { ServerCertificate } from "../../mod/transport/transport.ts";
import { startTestServer, type TestServer } from "./test_server.ts";

/** How the servers of a world differ from others. */
export interface WorldOptions {
  /** Flags of all servers. */
  readonly flags?: Readonly<Record<string, string>>;
  /** Flags of one of them. */
  readonly flagsOf?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly clock?: Clock;
  /** Where `from` is told that `to` is; null: not in its list. By default where it is. */
  readonly addressFor?: (from: string, to: string, real: NetAddress) => NetAddress | null;
}

/** One of them. */
export interface Member {
  readonly domain: string;
  readonly dataDir: string;
  server: TestServer;
  running: boolean;
}

/** The servers, by domain. */
export class FederationWorld implements AsyncDisposable {
  readonly members = new Map<string, Member>();
  readonly #ca: ServerCertificate;
  readonly #options: WorldOptions;

  private constructor(ca: ServerCertificate, options: WorldOptions) {
    this.#ca = ca;
    this.#options = options;
  }

  /** Starts a server for each domain, and tells each where the others are. */
  static async start(domains: readonly string[], options: WorldOptions = {}): Promise<FederationWorld> {
    const ca = await makeCa({ commonName: "Federation CA", now: (options.clock ?? Date).now() });
    const world = new FederationWorld(ca, options);
    for (const domain of domains) await world.#add(domain);
    await world.introduce();
    return world;
  }

  /** The CA of all. */
  get ca(): ServerCertificate {
    return this.#ca;
  }

  /** The running server of a domain. */
  at(domain: string): TestServer {
    return this.#member(domain).server;
  }

  /** What administration sees of a domain's federation. */
  federationAt(domain: string) {
    return this.at(domain).server.admin.federation!;
  }

  /**
   * Waits until `count` messages wait in a server's outboxes, by domain ({} for none): a recipient has its message
   * before the sender's server has taken it off its list.
   */
  async outboxesHold(domain: string, count: Readonly<Record<string, number>>): Promise<void> {
    const { store } = this.at(domain).server.context;
    const settle = store.settleOutbox;
    const holds = async () => {
      const sums = await store.outboxes();
      return isDeepStrictEqual(Object.fromEntries(sums.map((sum) => [sum.domain, sum.depth])), count);
    };
    let next = Promise.withResolvers<void>();
    store.settleOutbox = (settled) => settle.call(store, settled).finally(() => next.resolve());
    try {
      while (!await holds()) {
        await next.promise;
        next = Promise.withResolvers();
      }
    } finally {
      store.settleOutbox = settle;
    }
  }

  /** Nothing leaves a server's outboxes, as if it were not read, until the result is called. */
  holdOutboxes(domain: string): () => void {
    const { store } = this.at(domain).server.context;
    const outboxAfter = store.outboxAfter;
    const { promise, resolve } = Promise.withResolvers<void>();
    store.outboxAfter = async (range) => {
      await promise;
      return await outboxAfter.call(store, range);
    };
    return resolve;
  }

  /** Tells every running server where the others are now. */
  async introduce(): Promise<void> {
    for (const { domain, dataDir, server, running } of this.members.values()) {
      if (!running) continue;
      await Deno.writeTextFile(join(dataDir, "qpq.toml"), this.#config(domain));
      await server.server.admin.reload();
    }
  }

  /** Ends a server; its data folder stays. */
  async stop(domain: string): Promise<void> {
    const member = this.#member(domain);
    member.running = false;
    await member.server.stop();
  }

  /** Starts it again, on another port, and tells the others. */
  async restart(domain: string): Promise<void> {
    const member = this.#member(domain);
    member.server = await this.#serve(domain, member.dataDir);
    member.running = true;
    await this.introduce();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { server } of this.members.values()) await server.stop();
    for (const { dataDir } of this.members.values()) await Deno.remove(dataDir, { recursive: true });
  }

  /** A certificate for `domain`. */
  async certificateFor(domain: string, ca = this.#ca): Promise<ServerCertificate> {
    return await makeLeaf({ ca, names: [domain], now: (this.#options.clock ?? Date).now(), mutual: true });
  }

  async #add(domain: string): Promise<void> {
    const dataDir = await Deno.makeTempDir({ prefix: "qpq-federation-" });
    const folder = join(dataDir, "tls", "federation", "v1");
    await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
    const { certificatePem, privateKeyPem } = await this.certificateFor(domain);
    await Deno.writeTextFile(join(folder, "cert.pem"), certificatePem);
    await Deno.writeTextFile(join(folder, "key.pem"), privateKeyPem, { mode: 0o600 });
    await Deno.writeTextFile(join(folder, "ca.pem"), this.#ca.certificatePem);
    await Deno.writeTextFile(join(dataDir, "tls", "federation", "current"), "v1\n");
    await Deno.writeTextFile(join(dataDir, "qpq.toml"), this.#config(domain));
    this.members.set(domain, {
      domain,
      dataDir,
      server: await this.#serve(domain, dataDir),
      running: true,
    });
  }

  async #serve(domain: string, dataDir: string): Promise<TestServer> {
    return await startTestServer({
      dataDir,
      flags: {
        config: join(dataDir, "qpq.toml"),
        "federation-domain": domain,
        "federation-listen": "127.0.0.1:0",
        ...this.#options.flags,
        ...this.#options.flagsOf?.[domain],
      },
      ...(this.#options.clock ? { clock: this.#options.clock } : {}),
    });
  }

  #config(domain: string): string {
    const peers = [...this.members.values()].flatMap((other) => {
      if (other.domain === domain) return [];
      const real = other.server.server.federationAddress!;
      const { addressFor } = this.#options;
      const address = addressFor ? addressFor(domain, other.domain, real) : real;
      return address === null ? [] : [`${other.domain}=${addressText(address)}`];
    });
    return peers.length === 0 ? "" : `[federation]\npeers = ${JSON.stringify(peers)}\n`;
  }

  #member(domain: string): Member {
    const member = this.members.get(domain);
    if (!member) throw new Error(`There is no server ${domain}`);
    return member;
  }
}

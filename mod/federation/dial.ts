/**
 * Making a link. Engine `deno` verifies in two steps: Deno's QUIC cannot trust a CA set only, nor show the responder's
 * chain. So the chain is fetched first, verified here, and the link is made again with that leaf pinned before
 * anything is signed. An engine with mutual TLS needs one step.
 */
import { addressText, type NetAddress } from "../base/address.ts";
import { equal, randomBytes, sha256 } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { messageOf, QpqError } from "../base/errors.ts";
import { VERSION } from "../base/version.ts";
import { PEER_ALPN } from "../protocol/peer_methods.ts";
import { ConnectError } from "../transport/connect_error.ts";
import type { Connection, ConnectOptions, ServerIdentity } from "../transport/transport.ts";
import { makeProof, NONCE_BYTES } from "./handshake.ts";
import type { FederationIdentity, Identities, IdentityPems, PeerChain } from "./identity.ts";
import { PeerLink } from "./link.ts";
import { PeerRefused } from "./refusal.ts";
import { refusalOfResponder, refusalOfWords } from "./tls_refusal.ts";

const HANDSHAKE_CALL_MS = 10_000;
const IDLE_MS = 20_000;

/** How connections to other servers are made. */
export interface PeerConnector {
  connect(options: ConnectOptions): Promise<Connection>;
  /** Given when TLS authenticates both: what to connect with. */
  readonly mutual?: (pems: IdentityPems) => ServerIdentity;
}

/** Makes links; keeps the leaves that were verified. */
export class Dialer {
  readonly #domain: string;
  readonly #identities: Identities;
  readonly #connector: PeerConnector;
  readonly #clock: Clock;
  readonly #pins = new Map<string, PeerChain>();

  constructor(
    options: { domain: string; identities: Identities; connector: PeerConnector; clock: Clock },
  ) {
    this.#domain = options.domain;
    this.#identities = options.identities;
    this.#connector = options.connector;
    this.#clock = options.clock;
  }

  /**
   * A proven link to `domain` at an address. Throws PeerRefused when who answers there is not the peer, else
   * `peerUnavailable`.
   */
  async dial(domain: string, address: NetAddress): Promise<PeerLink> {
    const identity = this.#identities.current;
    try {
      if (this.#connector.mutual) return await this.#mutual(identity, domain, address);
      const pin = this.#pins.get(domain);
      if (pin && await this.#isGood(identity, pin)) {
        try {
          return await this.#pinned(identity, pin, address);
        } catch (error) {
          // It has another certificate by now.
          if (!(error instanceof ConnectError) || error.problem !== "certificate") throw error;
        }
      }
      const chain = await this.#fetchChain(identity, domain, address);
      this.#pins.set(domain, chain);
      return await this.#pinned(identity, chain, address);
    } catch (error) {
      if (error instanceof PeerRefused || (error instanceof QpqError && error.code === "peerUnavailable")) {
        throw error;
      }
      throw new QpqError("peerUnavailable", `${domain} at ${addressText(address)}: ${messageOf(error)}`, {
        cause: error,
        ...(error instanceof QpqError ? error.details : {}),
      });
    }
  }

  async #isGood(identity: FederationIdentity, chain: PeerChain): Promise<boolean> {
    try {
      await identity.verifyPeerChain(chain, this.#clock.now());
      return true;
    } catch {
      return false; // the first way says why
    }
  }

  /** The first step: nothing is signed, and what is believed is decided by our own look at the chain. */
  async #fetchChain(identity: FederationIdentity, domain: string, address: NetAddress): Promise<PeerChain> {
    const link = await this.#link(domain, address, { kind: "roots", caPem: identity.pems.caPem })
      .catch((error) => {
        throw refusalOfWords(error) ?? error;
      });
    try {
      const { certificateChain } = await this.#hello(link, randomBytes(NONCE_BYTES));
      const chain = { domain, chainDer: certificateChain.map((der) => der.slice()) };
      await identity.verifyPeerChain(chain, this.#clock.now());
      return chain;
    } finally {
      link.close();
    }
  }

  /** The second step: only the holder of the verified leaf's key can be at the other end. */
  async #pinned(identity: FederationIdentity, chain: PeerChain, address: NetAddress): Promise<PeerLink> {
    const { domain } = chain;
    const responderLeafSha256 = await sha256(chain.chainDer[0]!);
    const link = await this.#link(domain, address, { kind: "pinned", leafSha256: [responderLeafSha256] });
    return await closedOnFailure(link, async () => {
      const initiatorNonce = randomBytes(NONCE_BYTES);
      const hello = await this.#hello(link, initiatorNonce);
      const leaf = hello.certificateChain[0];
      if (!leaf || !equal(leaf, chain.chainDer[0]!)) {
        throw new PeerRefused("wrong_responder", "PeerHello shows another certificate than TLS");
      }
      await this.#prove(link, { identity, initiatorNonce, responderLeafSha256, hello });
      link.proven(chain, hello.limits?.requestsInFlightMax ?? 1);
    });
  }

  async #prove(
    link: PeerLink,
    { identity, hello, initiatorNonce, responderLeafSha256 }: {
      identity: FederationIdentity;
      hello: { responderNonce: Uint8Array };
      initiatorNonce: Uint8Array;
      responderLeafSha256: Uint8Array;
    },
  ): Promise<void> {
    const proof = await makeProof(identity, {
      responderNonce: hello.responderNonce,
      initiatorNonce,
      responderLeafSha256,
      initiatorDomain: this.#domain,
      responderDomain: link.domain,
    });
    await link.call("peerProve", proof, { timeoutMs: HANDSHAKE_CALL_MS });
  }

  async #mutual(identity: FederationIdentity, domain: string, address: NetAddress): Promise<PeerLink> {
    const connection = await this.#connect(domain, address, this.#connector.mutual!(identity.pems))
      .catch(async (error) => {
        throw await refusalOfResponder(identity, { error, domain, now: this.#clock.now() }) ?? error;
      });
    const chain = { domain, chainDer: connection.peerChainDer ?? [] };
    const link = await PeerLink.open(connection, { domain, clock: this.#clock });
    return await closedOnFailure(link, async () => {
      await identity.verifyPeerChain(chain, this.#clock.now());
      const initiatorNonce = randomBytes(NONCE_BYTES);
      const hello = await this.#hello(link, initiatorNonce);
      if (!hello.proven) { // its engine cannot ask for a certificate
        const responderLeafSha256 = await sha256(chain.chainDer[0]!);
        await this.#prove(link, { identity, initiatorNonce, responderLeafSha256, hello });
      }
      link.proven(chain, hello.limits?.requestsInFlightMax ?? 1);
    });
  }

  async #link(domain: string, address: NetAddress, identity: ServerIdentity): Promise<PeerLink> {
    const connection = await this.#connect(domain, address, identity);
    return await PeerLink.open(connection, { domain, clock: this.#clock });
  }

  #connect(domain: string, address: NetAddress, identity: ServerIdentity): Promise<Connection> {
    return this.#connector.connect({
      ...address,
      identity,
      alpn: PEER_ALPN,
      serverName: domain,
      idleTimeoutMs: IDLE_MS,
    });
  }

  async #hello(link: PeerLink, initiatorNonce: Uint8Array) {
    const hello = await link.call("peerHello", {
      domain: this.#domain,
      responderDomain: link.domain,
      initiatorNonce,
      serverVersion: VERSION,
    }, { timeoutMs: HANDSHAKE_CALL_MS });
    if (hello.domain !== link.domain) {
      throw new PeerRefused("wrong_name", `It calls itself ${hello.domain.slice(0, 253)}`);
    }
    if (hello.responderNonce.length !== NONCE_BYTES) {
      throw new PeerRefused("protocol", `Its nonce has ${hello.responderNonce.length} bytes`);
    }
    return hello;
  }
}

async function closedOnFailure(link: PeerLink, work: () => Promise<void>): Promise<PeerLink> {
  try {
    await work();
    return link;
  } catch (error) {
    link.close();
    throw error;
  }
}

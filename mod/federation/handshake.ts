/**
 * How two servers make sure of each other with engine `deno`: what is signed, and the responder's judgement. TLS has
 * shown the responder's certificate to the initiator; PeerProve shows the initiator's to the responder. What is signed
 * names both domains, both nonces and the responder's leaf, so that it is good for one connection to one server.
 */
import { type Bytes, concat, equalConstantTime, randomBytes, utf8 } from "../base/bytes.ts";
import { signContent } from "../base/sign_with_label.ts";
import { tryNormaliseDomain } from "../base/user_address.ts";
import { VERSION } from "../base/version.ts";
import type { PeerHelloRequest, PeerLimits, PeerProveRequest } from "../protocol/federation_pb.ts";
import type { PeerResponseInit } from "../protocol/peer_methods.ts";
import { verifyByLeafKey } from "../transport/leaf_key.ts";
import type { FederationIdentity, PeerChain } from "./identity.ts";
import { PeerRefused } from "./refusal.ts";

/** Bytes of a nonce. */
export const NONCE_BYTES = 32;

/** What a proof is about. */
export interface Proof {
  readonly responderNonce: Uint8Array;
  readonly initiatorNonce: Uint8Array;
  readonly responderLeafSha256: Uint8Array;
  readonly initiatorDomain: string;
  readonly responderDomain: string;
}

/** The bytes that the initiator signs. */
export function proofContent(proof: Proof): Bytes {
  return signContent(
    "qpq federation",
    proof.responderNonce,
    proof.initiatorNonce,
    proof.responderLeafSha256,
    text(proof.initiatorDomain),
    text(proof.responderDomain),
  );
}

/** Two bytes of length, then ASCII. */
function text(domain: string): Bytes {
  const bytes = utf8(domain);
  return concat(Uint8Array.of(bytes.length >> 8, bytes.length & 255), bytes);
}

/** The initiator's proof. */
export async function makeProof(identity: FederationIdentity, proof: Proof) {
  return {
    certificateChain: [...identity.info.chainDer],
    signature: await identity.sign(proofContent(proof)),
    responderLeafSha256: proof.responderLeafSha256,
  };
}

/** What the responder's side of a handshake needs. */
export interface ResponderOptions {
  readonly domain: string;
  readonly limits: Omit<PeerLimits, "$typeName" | "$unknown">;
  /** Of the moment when the connection was accepted. */
  readonly identity: FederationIdentity;
  /** Leaves that the connection may have been served with. */
  readonly servedLeaves: readonly Uint8Array[];
  /** Throws {@link PeerRefused} for a domain that is no peer. */
  readonly admit: (domain: string) => Promise<void>;
  readonly now: () => number;
  /** The initiator's chain, when TLS has shown it. */
  readonly tlsChainDer: readonly Uint8Array[] | null;
}

/** The responder's side of one connection's handshake. */
export class HandshakeResponder {
  readonly #options: ResponderOptions;
  readonly #responderNonce = randomBytes(NONCE_BYTES);
  #hello: { domain: string; initiatorNonce: Uint8Array } | null = null;
  #proofs = 0;
  #peer: PeerChain | null = null;

  constructor(options: ResponderOptions) {
    this.#options = options;
  }

  /** Who was proven to be there; null before. */
  get peer(): PeerChain | null {
    return this.#peer;
  }

  /** Whom the initiator claims to be, proven or not. */
  get claimed(): string | null {
    return this.#hello?.domain ?? null;
  }

  /** PeerHello. Throws PeerRefused. */
  async hello(request: PeerHelloRequest): Promise<PeerResponseInit<"peerHello">> {
    const { domain, limits, identity, admit } = this.#options;
    if (this.#hello) throw new PeerRefused("protocol", "PeerHello came twice");
    if (tryNormaliseDomain(request.domain) !== request.domain) {
      throw new PeerRefused("protocol", "PeerHello names no domain in normal form");
    }
    if (request.initiatorNonce.length !== NONCE_BYTES) {
      throw new PeerRefused("protocol", `The nonce has ${request.initiatorNonce.length} bytes`);
    }
    this.#hello = { domain: request.domain, initiatorNonce: request.initiatorNonce.slice() };
    if (request.responderDomain !== domain) {
      throw new PeerRefused("wrong_responder", `It wants ${request.responderDomain.slice(0, 253)}`);
    }
    await admit(request.domain);
    const { tlsChainDer } = this.#options;
    if (tlsChainDer) await this.#proven({ domain: request.domain, chainDer: tlsChainDer });
    return {
      domain,
      responderNonce: this.#responderNonce,
      certificateChain: [...identity.info.chainDer],
      serverVersion: VERSION,
      limits,
      proven: tlsChainDer !== null,
    };
  }

  /** PeerProve. Throws PeerRefused. */
  async prove(request: PeerProveRequest): Promise<void> {
    if (!this.#hello) throw new PeerRefused("protocol", "PeerProve came before PeerHello");
    if (this.#proofs++ > 0) throw new PeerRefused("protocol", "PeerProve came twice");
    const { domain, servedLeaves } = this.#options;
    const chainDer = request.certificateChain.map((der) => der.slice());
    const peer = { domain: this.#hello.domain, chainDer };
    await this.#options.identity.verifyPeerChain(peer, this.#options.now());
    const served = servedLeaves.find((leaf) => equalConstantTime(leaf, request.responderLeafSha256));
    if (!served) throw new PeerRefused("wrong_responder", "What was signed names another certificate");
    const content = proofContent({
      responderNonce: this.#responderNonce,
      initiatorNonce: this.#hello.initiatorNonce,
      responderLeafSha256: served,
      initiatorDomain: this.#hello.domain,
      responderDomain: domain,
    });
    if (!await verifyByLeafKey(chainDer[0]!, { signature: request.signature, content })) {
      throw new PeerRefused(
        "bad_signature",
        "The signature is not one of this connection by that certificate",
      );
    }
    await this.#proven(peer);
  }

  async #proven(peer: PeerChain): Promise<void> {
    if (this.#options.tlsChainDer) {
      await this.#options.identity.verifyPeerChain(peer, this.#options.now());
    }
    // It may have been blocked meanwhile.
    await this.#options.admit(peer.domain);
    this.#peer = peer;
  }
}

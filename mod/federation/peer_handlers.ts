/** What is done for other servers: implemented above the protocol, called for proven peers only. */
import type { PeerRequestOf, PeerResponseInit } from "../protocol/peer_methods.ts";
import type { PeerBlob } from "./link.ts";
import type { RelayOrder } from "./relay_order.ts";

/** Who asks. */
export interface Peer {
  /** Proven; the origin of whatever it relays. */
  readonly domain: string;
  /** Aborted when its connection is gone. */
  readonly gone: AbortSignal;
  /** What was put off on its connection. */
  readonly order: RelayOrder;
}

/** One handler for each method; they throw QpqError. */
export interface PeerHandlers {
  /** Called one after another for each connection, in the order of the requests. */
  relay(peer: Peer, request: PeerRequestOf<"relay">): Promise<PeerResponseInit<"relay">>;
  submitCommit(peer: Peer, request: PeerRequestOf<"submitCommit">): Promise<PeerResponseInit<"submitCommit">>;
  claim(peer: Peer, request: PeerRequestOf<"peerClaim">): Promise<PeerResponseInit<"peerClaim">>;
  getAccount(
    peer: Peer,
    request: PeerRequestOf<"peerGetAccount">,
  ): Promise<PeerResponseInit<"peerGetAccount">>;
  getBlob(peer: Peer, request: PeerRequestOf<"peerGetBlob">): Promise<PeerBlob>;
}

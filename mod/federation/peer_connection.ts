/** One connection of another server: who it is, its bounds in time, its end. Streams are in peer_stream.ts. */
import { limitKey, maskAddress } from "../base/address.ts";
import { messageOf } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { ConnectionInFlight } from "../base/requests_in_flight.ts";
import { CLOSE_CODES, type CloseCode } from "../protocol/close_codes.ts";
import { FRAME_BODY_BYTES_MAX, FrameError } from "../protocol/frame.ts";
import { RELAY_MESSAGES_MAX } from "../protocol/peer_methods.ts";
import type { Connection } from "../transport/transport.ts";
import { HandshakeResponder } from "./handshake.ts";
import type { PeerChain } from "./identity.ts";
import type { Peer } from "./peer_handlers.ts";
import type { PeerListener } from "./peer_listener.ts";
import { PeerStream } from "./peer_stream.ts";
import { PeerRefused } from "./refusal.ts";
import { RelayOrder } from "./relay_order.ts";

const log = logger("federation");

/** Who has not proven anything by then is closed. */
export const PROVE_MS_MAX = 10_000;
/** Whoever was refused has this long to read why. */
const LINGER_MS = 1_000;
/** Requests of a connection being worked on; more are left unread. */
export const REQUESTS_IN_FLIGHT_MAX = 64;

/** The responder's side of a link. */
export class PeerConnection {
  readonly server: PeerListener;
  readonly addressKey: string;
  readonly inFlight: ConnectionInFlight;
  readonly handshake: HandshakeResponder;
  readonly #connection: Connection;
  readonly #gone = new AbortController();
  readonly #cancelProve: () => void;
  readonly #order: RelayOrder;
  #relays: Promise<void> = Promise.resolve();
  #refused = false;

  constructor(server: PeerListener, connection: Connection) {
    const { domain, identities, peers, clock } = server.options;
    this.server = server;
    this.#connection = connection;
    this.#order = new RelayOrder(clock);
    this.addressKey = limitKey(connection.remoteAddress.hostname);
    this.inFlight = new ConnectionInFlight(server.inFlight, this.#gone.signal);
    this.handshake = new HandshakeResponder({
      domain,
      limits: {
        frameBytesMax: FRAME_BODY_BYTES_MAX,
        messagesMax: RELAY_MESSAGES_MAX,
        requestsInFlightMax: REQUESTS_IN_FLIGHT_MAX,
      },
      identity: identities.current,
      servedLeaves: identities.servedLeaves(),
      admit: (peer) => this.#admit(peer, peers),
      now: () => clock.now(),
      // Without one, as with an initiator of engine deno, PeerProve is wanted.
      tlsChainDer: connection.peerChainDer?.length ? connection.peerChainDer : null,
    });
    this.#cancelProve = clock.after(PROVE_MS_MAX, () => {
      if (!this.peer) this.end(new PeerRefused("timeout", "PeerProve did not come in time"));
    });
  }

  /** Null until it is proven. */
  get peer(): PeerChain | null {
    return this.handshake.peer;
  }

  /** For handlers. Throws before the proof. */
  get proven(): Peer {
    if (!this.peer) throw new PeerRefused("protocol", "A request came before PeerProve");
    return { domain: this.peer.domain, gone: this.#gone.signal, order: this.#order };
  }

  /** Aborted when the connection has ended. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** It was refused, and nothing more is answered. */
  get refused(): boolean {
    return this.#refused;
  }

  /** Serves until the connection has ended. */
  async run(): Promise<void> {
    this.#connection.closed.then(() => {
      this.#gone.abort();
      this.inFlight.wake();
    });
    try {
      for await (const stream of this.#connection.incomingStreams()) {
        new PeerStream(this, stream).serve().catch((error) => this.#streamFailed(error));
      }
      await this.#connection.closed;
    } finally {
      this.#gone.abort();
      this.#cancelProve();
    }
  }

  /** Runs `work` when all earlier Relays of this connection are done. */
  inTurn<Value>(work: () => Promise<Value>): Promise<Value> {
    const result = this.#relays.then(work);
    this.#relays = result.then(() => {}, () => {});
    return result;
  }

  /** Counts and logs why it is no peer, once, and ends the connection when a reply had time to leave. */
  refuse(refusal: PeerRefused): void {
    if (this.#refused || this.gone.aborted) return;
    this.#refused = true;
    this.#report(refusal);
    this.server.options.clock.after(LINGER_MS, () => this.close("protocolError"));
  }

  /** Like refuse(), at once. */
  end(refusal: PeerRefused): void {
    if (!this.#refused && !this.gone.aborted) this.#report(refusal);
    this.#refused = true;
    this.close(refusal.reason === "timeout" ? "loginTimeout" : "sessionEnded");
  }

  /** Ends it as a frame was not whole in time. */
  missedFrame(): void {
    this.server.options.metrics.deadlineMissed("frame");
    log.debug("a frame of {peer} was not whole in time", { peer: this.peer?.domain ?? "nobody yet" });
    this.close("protocolError");
  }

  close(code: CloseCode): void {
    this.#connection.close(CLOSE_CODES[code], code);
  }

  #report(refusal: PeerRefused): void {
    const { hostname } = this.#connection.remoteAddress;
    const peer = this.handshake.claimed ?? maskAddress(hostname);
    this.server.refusals.report(refusal, peer);
  }

  async #admit(domain: string, peers: { admit(domain: string): Promise<void> }): Promise<void> {
    await peers.admit(domain);
    if (this.server.hasRoomFor(domain)) return;
    throw new PeerRefused("rate_limited", `${domain} has as many connections as it may`);
  }

  #streamFailed(error: unknown): void {
    if (this.gone.aborted) return;
    if (error instanceof FrameError) this.end(new PeerRefused("protocol", error.message));
    else log.debug("a peer's stream ended: {reason}", { reason: messageOf(error) });
  }
}

/**
 * What the rest of the program knows of a network: listeners, connections, streams of bytes. One file an
 * engine; all engines pass tests/contract/transport_contract.ts. Nothing here knows frames.
 */
import type { NetAddress } from "../base/address.ts";
import type { Bytes } from "../base/bytes.ts";
import type { RefusedCertificate } from "./connect_error.ts";

/** ALPN of this protocol. */
export const ALPN = "qpq/1";

/** Certificate chain (leaf first) and private key of a listener, PEM. */
export interface ServerCertificate {
  readonly certificatePem: string;
  readonly privateKeyPem: string;
}

/** Why a connection ended, as far as it is known. */
export interface CloseReason {
  readonly code: number;
  readonly reason: string;
  /** Who ended it: this side, the peer, the idle timeout, or an error of the transport. */
  readonly by?: "local" | "peer" | "timeout" | "transport";
}

/** Bounds of a listener's connections. */
export interface ListenOptions {
  readonly hostname: string;
  /** 0: any free port. */
  readonly port: number;
  readonly certificate: ServerCertificate;
  /** The protocol that is spoken here; {@link ALPN} by default. */
  readonly alpn?: string;
  /** Connections that are silent for longer are dropped; the engine sends keep-alives at a third of it. */
  readonly idleTimeoutMs: number;
  /** Bidirectional streams that a peer may have open in one connection. */
  readonly streamsMax: number;
  /** Handshakes in progress and connections that nobody took yet; more are refused without a look at who asks. */
  readonly handshakesMax: number;
  /** A handshake that takes longer no longer counts, so that half-open ones cannot hold the cap; 3 s by default. */
  readonly handshakeTimeoutMs?: number;
  /** Handshakes begun in a second, all addresses together; more are refused in the same way. No limit by default. */
  readonly handshakesPerSecondMax?: number;
  /** Asked of the operating system for the UDP socket. Default: 4 MiB. */
  readonly udpBufferBytesWanted?: number;
  /** Clients are asked for a certificate of these CAs (PEM). Engine `quiche` only; `deno` throws TypeError. */
  readonly clientCaPem?: string;
  /** May a client have none? What it shows is judged all the same. `required` by default. */
  readonly clientCertificate?: "required" | "optional";
  /** Called for every handshake that failed or was refused; never throws. */
  readonly onHandshakeFailure?: (kind: "refused" | "failed", error?: unknown) => void;
  /** Called for a handshake that failed as the client's certificate was refused; never throws. Engine `quiche` only. */
  readonly onCertificateRefused?: (refused: RefusedCertificate, from: NetAddress) => void;
  /** Called for a handshake that is no longer counted, as it takes too long; it may still succeed. Never throws. */
  readonly onHandshakeLate?: () => void;
  /** Called with the cap that refuses a handshake; never throws. */
  readonly onHandshakeRefused?: (limit: HandshakeLimit) => void;
}

/** Handshakes in progress; in a second. */
export type HandshakeLimit = "handshakes" | "handshakeRate";

/** Accepts connections. */
export interface Listener extends AsyncDisposable {
  /** Where it listens, with the real port. */
  readonly address: NetAddress;
  /** UDP receive buffer that the kernel reports (Linux: twice what was asked for); null where it cannot be raised. */
  readonly udpBufferBytes?: number | null;
  /** False once it was stopped or has failed. */
  readonly accepting: boolean;
  /** New connections as they finish their handshake; ends at stopAccepting or close. To be iterated once. */
  connections(): AsyncIterable<Connection>;
  /**
   * New connections get this certificate, and are judged by `clientCaPem` when it is given (mutual TLS); present ones
   * live on. Throws, and keeps the old, when it is unusable.
   */
  replaceCertificate(certificate: ServerCertificate, more?: { clientCaPem?: string }): void;
  /** Stops accepting; connections live on, new ones are refused at once. */
  stopAccepting(): void;
  /** Stops accepting and drops what is left. Waits until the close frames are likely sent. */
  close(): Promise<void>;
}

/** How a client checks who answers. */
export type ServerIdentity =
  /** Public roots, and this CA (PEM) beside them: not enough alone to trust a private CA only. */
  | { readonly kind: "roots"; readonly caPem?: string }
  /** The leaf's SHA-256 (DER), any of these; name and CA do not matter, the leaf's dates do. */
  | { readonly kind: "pinned"; readonly leafSha256: readonly Uint8Array[] }
  /** Only these CAs; this side shows a certificate of its own within TLS. Engine `quiche` only. */
  | { readonly kind: "mutual"; readonly caPem: string; readonly certificate: ServerCertificate };

/** Where and how to connect. */
export interface ConnectOptions {
  readonly hostname: string;
  readonly port: number;
  readonly identity: ServerIdentity;
  /** The protocol to speak; {@link ALPN} by default. */
  readonly alpn?: string;
  /** The name that is sent (SNI) and that the certificate has to be for; `hostname` by default. */
  readonly serverName?: string;
  readonly idleTimeoutMs: number;
  /** How long to wait for an answer; 10 s by default. */
  readonly handshakeTimeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** One QUIC connection. */
export interface Connection extends AsyncDisposable {
  /** The peer. Never log it in full. */
  readonly remoteAddress: NetAddress;
  /** The peer's certificates, leaf first, when TLS has authenticated it too; names are not judged. */
  readonly peerChainDer?: readonly Uint8Array[] | null;
  /** Resolves, never rejects, when the connection has ended for whatever reason. */
  readonly closed: Promise<CloseReason>;
  /** Opens a bidirectional stream; waits while the peer allows no more. */
  openStream(): Promise<Stream>;
  /** Streams that the peer opens; ends with the connection, never throws. To be iterated once. */
  incomingStreams(): AsyncIterable<Stream>;
  /** Ends the connection; the peer sees code and reason unless the frame gets lost. Never throws. */
  close(code: number, reason: string): void;
}

/** A bidirectional stream of bytes. One reader, one writer. */
export interface Stream {
  /**
   * The next bytes; null at the peer's FIN or when the stream or connection is gone. A FIN says nothing about
   * completeness. The buffer is the caller's to keep. Memory while waiting is small, and grows when busy.
   */
  read(): Promise<Bytes | null>;
  /** Resolves when the bytes are handed to QUIC and there is room for more. Rejects when the stream is gone. */
  write(bytes: Uint8Array): Promise<void>;
  /** FIN: nothing more will be written. Never throws. */
  closeWrite(): Promise<void>;
  /** Tells the peer to send no more (STOP_SENDING); what was written still arrives. Never throws. */
  stopReading(): void;
  /** Drops both directions at once. Never throws. */
  abort(): void;
}

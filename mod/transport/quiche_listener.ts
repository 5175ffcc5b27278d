/**
 * The listener on quiche. Addresses are validated by Retry before anything is kept for them: the token is a MAC of
 * the address, both connection ids and its end, under a key that lives as long as the listener.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import type { NetAddress } from "../base/address.ts";
import { concat, hex, randomBytes, utf8 } from "../base/bytes.ts";
import { systemClock } from "../base/clock.ts";
import { RateLimiter } from "../base/rate_limiter.ts";
import { AsyncQueue } from "./async_queue.ts";
import { closeFramesSent } from "./deno_quic_connection.ts";
import { refusedCertificate } from "./quiche_alerts.ts";
import { QuicheConnection } from "./quiche_connection.ts";
import { type Host, ID_BYTES, QuicheEndpoint } from "./quiche_endpoint.ts";
import { loadQuiche, makeConfig, type NativeConfig, type Quiche } from "./quiche_native.ts";
import type { Connection, HandshakeLimit, Listener, ListenOptions, ServerCertificate } from "./transport.ts";
import { ALPN } from "./transport.ts";
import { raiseUdpBuffers } from "./udp_buffers.ts";

const UDP_BUFFER_BYTES = 4 * 1024 * 1024;
const HANDSHAKE_TIMEOUT_MS = 3_000;
/** A client's first packet is at least this long, so that answers amplify nothing (RFC 9000 §14.1). */
const INITIAL_BYTES_MIN = 1_200;
const TOKEN_LIFE_MS = 10_000;
const MAC_BYTES = 32;
/** Types of packets and the error code, as quiche numbers them. */
const INITIAL = 0;
const CONNECTION_REFUSED = 2;

/** Listens for connections. Rejects without the binding, with an address in use, or with an unusable certificate. */
export async function listen(options: ListenOptions): Promise<Listener> {
  return new QuicheListener(await loadQuiche(), options);
}

class QuicheListener implements Listener {
  readonly address: NetAddress;
  readonly udpBufferBytes: number | null;
  readonly #quiche: Quiche;
  readonly #options: ListenOptions;
  readonly #endpoint: QuicheEndpoint;
  readonly #accepted = new AsyncQueue<QuicheConnection>();
  readonly #tokenKey = randomBytes(32);
  readonly #rate: RateLimiter;
  #config: NativeConfig;
  /** Undefined: clients need no certificate. */
  #clientCaPem: string | undefined;
  /** Those not up yet, with what ends them. */
  readonly #handshakes = new Map<QuicheConnection, ReturnType<typeof setTimeout>>();
  #accepting = true;

  constructor(quiche: Quiche, options: ListenOptions) {
    this.#quiche = quiche;
    this.#options = options;
    const perSecond = options.handshakesPerSecondMax ?? Infinity;
    this.#rate = new RateLimiter({
      clock: systemClock,
      keysMax: 1,
      perSecond,
      burst: Math.max(1, perSecond),
    });
    this.#clientCaPem = options.clientCaPem;
    this.#config = this.#configure(options.certificate, options.clientCaPem);
    this.#endpoint = new QuicheEndpoint(options);
    this.#endpoint.onStranger = (packet, from) => this.#stranger(packet, from);
    this.#endpoint.onEnded = (connection) => this.#endHandshake(connection);
    const { host, port } = this.#endpoint.local;
    this.address = { hostname: host, port };
    this.udpBufferBytes = raiseUdpBuffers(port, options.udpBufferBytesWanted ?? UDP_BUFFER_BYTES);
  }

  get accepting(): boolean {
    return this.#accepting;
  }

  #configure(certificate: ServerCertificate, peerCaPem: string | undefined): NativeConfig {
    const { alpn = ALPN, idleTimeoutMs, streamsMax, clientCertificate } = this.#options;
    const config = makeConfig(this.#quiche, { alpn, idleTimeoutMs, streamsMax, peerCaPem, certificate });
    // What the binding sets insists on a certificate; quiche's own setting takes none, and judges what there is.
    if (clientCertificate === "optional") config.verifyPeer(true);
    return config;
  }

  replaceCertificate(
    certificate: ServerCertificate,
    { clientCaPem = this.#clientCaPem }: { clientCaPem?: string } = {},
  ): void {
    this.#config = this.#configure(certificate, clientCaPem);
    this.#clientCaPem = clientCaPem;
  }

  connections(): AsyncIterable<Connection> {
    return this.#accepted;
  }

  stopAccepting(): void {
    this.#accepting = false;
    for (const connection of this.#accepted.end()) connection.close(0, "shutting down");
  }

  async close(): Promise<void> {
    this.stopAccepting();
    for (const connection of [...this.#endpoint.connections.values()]) connection.close(0, "shutting down");
    await this.#endpoint.close();
    await closeFramesSent();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** A packet of no known connection: only a whole first packet is answered. */
  #stranger(packet: Uint8Array, from: Host): void {
    if (packet.length < INITIAL_BYTES_MIN) return;
    try {
      const header = this.#quiche.Header.fromSlice(packet, ID_BYTES);
      if (header.ty === INITIAL) this.#first(header, packet, from);
    } catch {
      // Not a packet of QUIC.
    }
  }

  #first(header: ReturnType<Quiche["Header"]["fromSlice"]>, packet: Uint8Array, from: Host): void {
    const { scid, dcid, version, token } = header;
    if (!this.#quiche.versionIsSupported(version)) {
      return this.#answer((out) => this.#quiche.negotiateVersion(scid, dcid, out), from);
    }
    if (!token?.length) {
      const id = randomBytes(ID_BYTES);
      const made = this.#token(from, { id, firstId: dcid, end: Date.now() + TOKEN_LIFE_MS });
      return this.#answer((out) => this.#quiche.retry(scid, dcid, id, made, version, out), from);
    }
    const firstId = this.#firstId(token, { id: dcid, from });
    if (firstId) this.#accept(packet, { id: dcid, firstId, from });
  }

  #answer(write: (out: Uint8Array) => number, to: Host): void {
    const buffer = this.#endpoint.takeBuffer();
    this.#endpoint.send(buffer, write(buffer), to);
  }

  /** MAC ‖ end ‖ the id that the client chose first. */
  #token(from: Host, it: { id: Uint8Array; firstId: Uint8Array; end: number }): Uint8Array {
    const rest = concat(utf8(String(it.end).padStart(16, "0")), it.firstId);
    return concat(this.#mac(from, it.id, rest), rest);
  }

  #mac(from: Host, id: Uint8Array, rest: Uint8Array): Uint8Array {
    const mac = createHmac("sha256", this.#tokenKey);
    return new Uint8Array(mac.update(`${from.host} ${from.port} ${hex(id)} `).update(rest).digest());
  }

  #firstId(token: Uint8Array, { id, from }: { id: Uint8Array; from: Host }): Uint8Array | null {
    if (token.length <= MAC_BYTES + 16 || id.length !== ID_BYTES) return null;
    const rest = token.slice(MAC_BYTES);
    if (!timingSafeEqual(this.#mac(from, id, rest), token.slice(0, MAC_BYTES))) return null;
    const end = Number(new TextDecoder().decode(rest.subarray(0, 16)));
    return end > Date.now() ? rest.slice(16) : null;
  }

  /** The cap that refuses one more. Connections that nobody took yet count too: that bounds their queue. */
  #usedUp(): HandshakeLimit | null {
    if (this.#handshakes.size + this.#accepted.length >= this.#options.handshakesMax) return "handshakes";
    return this.#rate.take("all") === 0 ? null : "handshakeRate";
  }

  #accept(packet: Uint8Array, it: { id: Uint8Array; firstId: Uint8Array; from: Host }): void {
    const limit = this.#usedUp();
    if (limit) this.#options.onHandshakeRefused?.(limit);
    const id = it.id.slice();
    const native = this.#quiche.Connection.accept(
      id,
      it.firstId,
      this.#endpoint.local,
      it.from,
      this.#config,
    );
    const connection = new QuicheConnection(this.#endpoint, native, {
      key: hex(id),
      remote: it.from,
      isServer: true,
      idleTimeoutMs: this.#options.idleTimeoutMs,
    });
    if (limit || !this.#accepting) {
      connection.receive(packet, it.from);
      connection.refuse(CONNECTION_REFUSED);
      return this.#options.onHandshakeFailure?.("refused");
    }
    const timeoutMs = this.#options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS;
    const late = () => {
      this.#options.onHandshakeLate?.();
      connection.refuse(CONNECTION_REFUSED);
    };
    this.#handshakes.set(connection, setTimeout(late, timeoutMs));
    this.#endpoint.connections.set(connection.key, connection);
    connection.established.then(() => this.#established(connection));
    connection.receive(packet, it.from);
  }

  #established(connection: QuicheConnection): void {
    if (connection.ended) return;
    this.#endHandshake(connection);
    if (this.#accepting) this.#accepted.push(connection);
    else connection.close(0, "shutting down");
  }

  /** It is up, or has failed before. */
  #endHandshake(connection: QuicheConnection): void {
    const timer = this.#handshakes.get(connection);
    if (timer === undefined) return;
    clearTimeout(timer);
    this.#handshakes.delete(connection);
    if (connection.isUp) return;
    this.#options.onHandshakeFailure?.("failed");
    const refused = refusedCertificate(connection);
    if (refused) this.#options.onCertificateRefused?.(refused, connection.remoteAddress);
  }
}

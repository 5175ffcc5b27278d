/**
 * The transport on Deno's own QUIC (quinn): listen() and connect() of transport.ts.
 *
 * Certificates are replaced by a second `endpoint.listen()` on the same endpoint. What really happens (2.9.6): the
 * accept loop of the first listener goes on to take every connection, and a plain `accept()` answers with the
 * newest certificate; so one loop is enough, and the listeners of replaced certificates are only kept. They must
 * be: collecting one switches the whole endpoint off. A certificate that cannot be used throws and changes nothing.
 *
 * No getter of a QuicIncoming is ever read: each of them consumes it. So nobody can be refused by address before the
 * handshake; handshakes have a global cap, and addresses are looked at by whoever takes the connection.
 */
import { unlessAborted } from "../base/abort.ts";
import { addressText, type NetAddress } from "../base/address.ts";
import { systemClock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { RateLimiter } from "../base/rate_limiter.ts";
import { AsyncQueue } from "./async_queue.ts";
import { ConnectError } from "./connect_error.ts";
import { closeFramesSent, DenoQuicConnection } from "./deno_quic_connection.ts";
import { weighEndedConnection } from "./ended_connections.ts";
import { normalHost } from "./host_names.ts";
import { resolveHost } from "./resolve_host.ts";
import type {
  Connection,
  ConnectOptions,
  HandshakeLimit,
  Listener,
  ListenOptions,
  ServerCertificate,
} from "./transport.ts";
import { ALPN } from "./transport.ts";
import { raiseUdpBuffers } from "./udp_buffers.ts";

const UDP_BUFFER_BYTES = 4 * 1024 * 1024;
const CONNECT_TIMEOUT_MS = 10_000;
const HANDSHAKE_TIMEOUT_MS = 3_000;
/** Handshakes that no longer count still hold memory until the idle timeout; this many times the cap of them may. */
const STALE_HANDSHAKES = 4;
/** How long an address is tried alone before the next one is tried beside it (RFC 8305 §5). */
const NEXT_ADDRESS_MS = 250;
/** The serverCertificateHashes and the plain TLS options that Deno's types do not list. */
type ConnectQuicOptions = Deno.ConnectQuicOptions<false> & {
  serverCertificateHashes?: { algorithm: "sha-256"; value: Uint8Array }[];
};

/** Listens for connections. Throws when the address is in use or the certificate cannot be used. */
export function listen(options: ListenOptions): Listener {
  if (options.clientCaPem !== undefined) {
    throw new TypeError("Engine deno cannot ask for client certificates");
  }
  return new DenoQuicListener(options);
}

class DenoQuicListener implements Listener {
  readonly address: NetAddress;
  readonly udpBufferBytes: number | null;
  readonly #options: ListenOptions;
  readonly #endpoint: Deno.QuicEndpoint;
  /** All that ever were: see the head of the file. */
  readonly #listeners: Deno.QuicListener[] = [];
  readonly #accepted = new AsyncQueue<DenoQuicConnection>();
  readonly #loop: Promise<void>;
  readonly #handshakeRate: RateLimiter;
  #freshHandshakes = 0;
  #allHandshakes = 0;
  #accepting = true;
  #closing: Promise<void> | undefined;

  constructor(options: ListenOptions) {
    this.#options = options;
    const perSecond = options.handshakesPerSecondMax ?? Infinity;
    const burst = Math.max(1, perSecond);
    this.#handshakeRate = new RateLimiter({ clock: systemClock, keysMax: 1, perSecond, burst });
    this.#endpoint = new Deno.QuicEndpoint({ hostname: options.hostname, port: options.port });
    const { hostname, port } = this.#endpoint.addr;
    this.address = { hostname, port };
    this.udpBufferBytes = raiseUdpBuffers(port, options.udpBufferBytesWanted ?? UDP_BUFFER_BYTES);
    try {
      this.replaceCertificate(options.certificate);
    } catch (error) {
      this.#endpoint.close();
      throw error;
    }
    this.#loop = this.#acceptAll(this.#listeners[0]!);
  }

  get accepting(): boolean {
    return this.#accepting;
  }

  replaceCertificate(certificate: ServerCertificate): void {
    this.#listeners.push(this.#endpoint.listen({
      cert: certificate.certificatePem,
      key: certificate.privateKeyPem,
      alpnProtocols: [this.#options.alpn ?? ALPN],
      maxConcurrentBidirectionalStreams: this.#options.streamsMax,
      maxConcurrentUnidirectionalStreams: 0,
      ...timeouts(this.#options.idleTimeoutMs),
    }));
  }

  connections(): AsyncIterable<Connection> {
    return this.#accepted;
  }

  stopAccepting(): void {
    this.#accepting = false;
    for (const connection of this.#accepted.end()) connection.close(0, "shutting down");
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.stopAccepting();
    this.#endpoint.close({ closeCode: 0, reason: "shutting down" });
    await this.#loop;
    await closeFramesSent();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Ends when the endpoint is closed. A handshake that fails ends nothing but itself. */
  async #acceptAll(listener: Deno.QuicListener): Promise<void> {
    try {
      for await (const incoming of listener) {
        const limit = this.#usedUp();
        if (limit) this.#options.onHandshakeRefused?.(limit);
        if (this.#accepting && !limit) this.#handshake(incoming);
        else this.#refuse(incoming);
      }
    } catch (error) {
      // Only a closed endpoint ends the iteration; anything else would be a listener that is deaf without a word.
      if (this.#accepting) this.#options.onHandshakeFailure?.("failed", error);
      this.#accepting = false;
    }
  }

  #refuse(incoming: Deno.QuicIncoming): void {
    try {
      incoming.refuse();
    } catch {
      // The peer gave up in between.
    }
    this.#options.onHandshakeFailure?.("refused");
  }

  /** The cap that refuses one more. Connections that nobody took yet count too: that bounds their queue. */
  #usedUp(): HandshakeLimit | null {
    const { handshakesMax } = this.#options;
    const isRoom = this.#freshHandshakes + this.#accepted.length < handshakesMax &&
      this.#allHandshakes < handshakesMax * (1 + STALE_HANDSHAKES);
    if (!isRoom) return "handshakes";
    return this.#handshakeRate.take("all") === 0 ? null : "handshakeRate";
  }

  async #handshake(incoming: Deno.QuicIncoming): Promise<void> {
    let fresh = true;
    const endFreshness = () => {
      if (fresh) this.#freshHandshakes--;
      fresh = false;
    };
    const late = () => {
      endFreshness();
      this.#options.onHandshakeLate?.();
    };
    const timer = setTimeout(late, this.#options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS);
    this.#freshHandshakes++;
    this.#allHandshakes++;
    try {
      const connection = new DenoQuicConnection(await incoming.accept());
      connection.closed.then(weighEndedConnection);
      if (this.#accepting) this.#accepted.push(connection);
      else connection.close(0, "shutting down");
    } catch (error) {
      this.#options.onHandshakeFailure?.("failed", error);
    } finally {
      clearTimeout(timer);
      endFreshness();
      this.#allHandshakes--;
    }
  }
}

/** Both sides keep the connection alive; who receives in between need not, so it costs one packet, not two. */
function timeouts(idleTimeoutMs: number): Deno.QuicTransportOptions {
  return { maxIdleTimeout: idleTimeoutMs, keepAliveInterval: Math.max(1, Math.floor(idleTimeoutMs / 3)) };
}

/**
 * Connects to a server; rejects with a ConnectError. A host name's addresses are tried one beside another, the first
 * that answers wins. With several failures the one that says most is reported.
 */
export async function connect(options: ConnectOptions): Promise<Connection> {
  if (options.identity.kind === "mutual") throw new TypeError("Engine deno has no mutual TLS");
  const where = addressText(options);
  const timeoutMs = options.handshakeTimeoutMs ?? CONNECT_TIMEOUT_MS;
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, ...(options.signal ? [options.signal] : [])]);
  const timer = setTimeout(
    () => stop.abort(new ConnectError("unreachable", `Nobody answers at ${where} within ${timeoutMs} ms`)),
    timeoutMs,
  );
  try {
    signal.throwIfAborted();
    const addresses = await unlessAborted(resolveHost(options.hostname), signal);
    return await firstConnection(addresses, { ...options, signal });
  } catch (error) {
    if (error instanceof ConnectError) throw error;
    if (options.signal?.aborted) {
      throw new ConnectError("failed", `Connecting to ${where} was given up`, { cause: error });
    }
    throw explain(error, options);
  } finally {
    clearTimeout(timer);
  }
}

async function firstConnection(
  addresses: readonly string[],
  options: ConnectOptions & { signal: AbortSignal },
): Promise<Connection> {
  const race = new AbortController();
  const signal = AbortSignal.any([race.signal, options.signal]);
  let next: Promise<void> = Promise.resolve();
  const attempts = addresses.map((address) => {
    const begin = next;
    const attempt = begin.then(() => connectTo(address, { ...options, signal }));
    next = Promise.race([begin.then(() => pause(NEXT_ADDRESS_MS, signal)), attempt.then(() => {}, () => {})]);
    return attempt;
  });
  try {
    const winner = await Promise.any(attempts);
    for (const attempt of attempts) {
      attempt.then((connection) => connection !== winner && connection.close(0, ""), () => {});
    }
    return winner;
  } catch (error) {
    const failures = error instanceof AggregateError ? error.errors : [error];
    const known = failures.map((failure) => explain(failure, options));
    throw known.find((failure) => failure.problem === "certificate") ??
      known.find((failure) => failure.problem !== "unreachable") ?? known[0] ??
      new ConnectError("unreachable", `The name ${options.hostname} has no address`);
  } finally {
    race.abort();
  }
}

async function connectTo(
  address: string,
  options: ConnectOptions & { signal: AbortSignal },
): Promise<DenoQuicConnection> {
  options.signal.throwIfAborted();
  const endpoint = new Deno.QuicEndpoint({ hostname: address.includes(":") ? "::" : "0.0.0.0", port: 0 });
  // The only way to end a handshake. An endpoint of one's own also keeps sessions from being resumed, which would
  // skip the look at the certificate.
  const giveUp = () => endpoint.close();
  options.signal.addEventListener("abort", giveUp, { once: true });
  try {
    const alpn = options.alpn ?? ALPN;
    const wanted: ConnectQuicOptions = {
      hostname: address,
      port: options.port,
      serverName: normalHost(options.serverName ?? options.hostname),
      alpnProtocols: [alpn],
      endpoint,
      maxConcurrentUnidirectionalStreams: 0,
      ...timeouts(options.idleTimeoutMs),
    };
    const { identity } = options;
    if (identity.kind === "pinned") {
      wanted.serverCertificateHashes = identity.leafSha256.map((value) => ({ algorithm: "sha-256", value }));
    } else if (identity.caPem !== undefined) wanted.caCerts = [identity.caPem];
    const conn = await Deno.connectQuic(wanted);
    const connection = new DenoQuicConnection(conn);
    if (conn.protocol === alpn) return connection;
    connection.close(0, "wrong protocol");
    throw new ConnectError("protocol", `${addressText(options)} does not speak ${alpn}`);
  } catch (error) {
    endpoint.close();
    options.signal.throwIfAborted();
    throw error;
  } finally {
    options.signal.removeEventListener("abort", giveUp);
  }
}

/** What a failed handshake means, in words. Texts of quinn and rustls are matched loosely, by their stable parts. */
function explain(error: unknown, options: ConnectOptions): ConnectError {
  if (error instanceof ConnectError) return error;
  const where = addressText(options);
  const text = messageOf(error);
  const problem = (kind: ConnectError["problem"], message: string) =>
    new ConnectError(kind, message, { cause: error });
  if (/invalid peer certificate/.test(text)) {
    // A leaf that is not pinned appears as one of an unknown issuer; dates are judged for pinned ones too.
    const unknown = options.identity.kind === "pinned" && /UnknownIssuer/.test(text);
    const why = unknown
      ? "it is not the one that was pinned"
      : certificateReason(text.replace(/^.*invalid peer certificate: */, ""));
    return problem("certificate", `The certificate of ${where} is refused: ${why}`);
  }
  if (/error 120|known protocol|ALPN/i.test(text)) {
    return problem(
      "protocol",
      `${where} does not speak ${options.alpn ?? ALPN}; it may be another or a newer server`,
    );
  }
  if (/refused/i.test(text)) {
    return problem("unreachable", `${where} refused the connection; it is busy or shutting down`);
  }
  if (/timed out|unreachable|no route|address family|cannot assign/i.test(text)) {
    return problem("unreachable", `Nobody answers at ${where}`);
  }
  return problem("failed", `Connecting to ${where} failed: ${text}`);
}

function certificateReason(text: string): string {
  if (/UnknownIssuer|BadSignature/.test(text)) return "it is not signed by a CA that is trusted here";
  if (/CaUsedAsEndEntity/.test(text)) return "it is a CA certificate, and no server's";
  if (/^certificate expired|Expired/.test(text)) return "it has expired";
  if (/not valid yet|NotValidYet/.test(text)) {
    return "it is not valid yet (or this computer's clock is wrong)";
  }
  return text;
}

function pause(delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, delayMs);
    signal.addEventListener("abort", done, { once: true });
  });
}

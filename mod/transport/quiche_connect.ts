/** connect() on quiche: one socket for each connection; what a failed handshake means, in words. */
import { unlessAborted } from "../base/abort.ts";
import { addressText } from "../base/address.ts";
import { equal, hex, randomBytes } from "../base/bytes.ts";
import { messageOf } from "../base/errors.ts";
import { ConnectError } from "./connect_error.ts";
import { isIpAddress, nameMatches, normalHost } from "./host_names.ts";
import { resolveHost } from "./resolve_host.ts";
import { alertText, certificateAlert, refusedCertificate } from "./quiche_alerts.ts";
import { QuicheConnection } from "./quiche_connection.ts";
import { ID_BYTES, QuicheEndpoint } from "./quiche_endpoint.ts";
import { loadQuiche, makeConfig } from "./quiche_native.ts";
import { chainPem, inspectCertificate } from "./tls.ts";
import type { Connection, ConnectOptions } from "./transport.ts";
import { ALPN } from "./transport.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const STREAMS_MAX = 100;
/** Codes of RFC 9000 §20.1; alerts of TLS from 0x100 on. */
const CONNECTION_REFUSED = 2;
const NO_APPLICATION_PROTOCOL = 0x100 + 120;

/**
 * Connects to a server; rejects with a ConnectError. TLS 1.3 is done here before the server has judged the
 * certificate that it was shown: a refusal of that comes as the end of the connection.
 */
export async function connect(options: ConnectOptions): Promise<Connection> {
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
    const text = options.signal?.aborted ? "was given up" : `failed: ${messageOf(error)}`;
    throw new ConnectError("failed", `Connecting to ${where} ${text}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

/** Tries all addresses at once; the first that answers wins. */
async function firstConnection(
  addresses: readonly string[],
  options: ConnectOptions & { signal: AbortSignal },
): Promise<Connection> {
  const attempts = addresses.map((address) => connectTo(address, options));
  try {
    const winner = await Promise.any(attempts);
    for (const attempt of attempts) attempt.then((it) => it !== winner && it.close(0, ""), () => {});
    return winner;
  } catch (error) {
    const failures: unknown[] = error instanceof AggregateError ? error.errors : [error];
    throw failures.find((it) => it instanceof ConnectError && it.problem !== "unreachable") ?? failures[0];
  }
}

async function connectTo(
  address: string,
  options: ConnectOptions & { signal: AbortSignal },
): Promise<QuicheConnection> {
  const quiche = await loadQuiche();
  const { identity, idleTimeoutMs, signal } = options;
  signal.throwIfAborted();
  const peerCaPem = identity.kind === "pinned" ? null : identity.caPem;
  if (peerCaPem === undefined) throw new TypeError("Engine quiche knows no public roots: it needs a CA");
  const config = makeConfig(quiche, {
    alpn: options.alpn ?? ALPN,
    idleTimeoutMs,
    streamsMax: STREAMS_MAX,
    peerCaPem,
    ...(identity.kind === "mutual" ? { certificate: identity.certificate } : {}),
  });
  const endpoint = new QuicheEndpoint({ hostname: localFor(address), port: 0 });
  const id = randomBytes(ID_BYTES);
  const name = normalHost(options.serverName ?? options.hostname);
  const remote = { host: address, port: options.port };
  const native = quiche.Connection.connect(
    isIpAddress(name) ? null : name,
    id,
    endpoint.local,
    remote,
    config,
  );
  const connection = new QuicheConnection(endpoint, native, {
    key: hex(id),
    remote,
    isServer: false,
    idleTimeoutMs,
  });
  endpoint.connections.set(connection.key, connection);
  connection.closed.then(() => endpoint.close());
  connection.touch();
  try {
    await unlessAborted(connection.established, signal);
    if (connection.ended) throw explain(connection, { ...options, reason: (await connection.closed).reason });
    checkPeer(connection, { ...options, name });
    return connection;
  } catch (error) {
    connection.close(0, "");
    await endpoint.close();
    signal.throwIfAborted();
    throw error;
  }
}

/** quiche compares the local address of every packet, so that it has to stay the same: any, but for loopback. */
function localFor(address: string): string {
  if (address.includes(":")) return address === "::1" ? "::1" : "::";
  return address.startsWith("127.") ? "127.0.0.1" : "0.0.0.0";
}

/** What BoringSSL has not judged: the pin and its dates, and names that are addresses. */
function checkPeer(connection: QuicheConnection, options: ConnectOptions & { name: string }): void {
  const chainDer = connection.peerChainDer ?? [];
  const refused = (why: string) =>
    new ConnectError("certificate", `The certificate of ${addressText(options)} is refused: ${why}`, {
      refused: { chainDer, alert: null },
    });
  const leaf = inspectCertificate(chainPem(chainDer));
  if (options.identity.kind === "pinned") {
    if (!options.identity.leafSha256.some((pin) => equal(pin, leaf.leafSha256))) {
      throw refused("it is not the one that was pinned");
    }
    if (leaf.notAfter < Date.now()) throw refused("it has expired");
    if (leaf.notBefore > Date.now()) throw refused("it is not valid yet (or this computer's clock is wrong)");
  } else if (!leaf.names.some((name) => nameMatches(name, options.name))) {
    throw refused(`it is not for ${options.name}`);
  }
}

function explain(connection: QuicheConnection, options: ConnectOptions & { reason: string }): ConnectError {
  const where = addressText(options);
  const { code = -1, isApp = false, byPeer = false } = connection.failure ?? {};
  if (isApp || code < 0) {
    return new ConnectError("unreachable", `Nobody answers at ${where}: ${options.reason}`);
  }
  if (code === CONNECTION_REFUSED) {
    return new ConnectError("unreachable", `${where} refused the connection; it is busy or shutting down`);
  }
  if (code === NO_APPLICATION_PROTOCOL) {
    return new ConnectError("protocol", `${where} does not speak ${options.alpn ?? ALPN}`);
  }
  const alert = certificateAlert({ code, isApp, byPeer });
  if (alert !== null) {
    const whose = byPeer ? `${where} refuses our certificate` : `The certificate of ${where} is refused`;
    return new ConnectError("certificate", `${whose}: ${alertText(alert)}`, {
      refused: refusedCertificate(connection),
    });
  }
  return new ConnectError("failed", `Connecting to ${where} failed: error ${code} ${options.reason}`);
}

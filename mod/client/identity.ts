/**
 * Is it the right server? Trust begins with a CA, with a fingerprint, or with the public roots; after that
 * the leaf certificate is pinned, and the pin follows rotations that the server announces. The access token
 * is only ever given to a server that has been verified.
 *
 * A CA given to TLS only adds to the public roots, so with a CA the chain is fetched in-band and verified
 * against exactly that CA and the name; then the client connects again with that leaf pinned.
 */
import { type Bytes, copy, equal, sha256 } from "../base/bytes.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import { addressText } from "../base/address.ts";
import { normalHost } from "../transport/host_names.ts";
import type { HelloResponse } from "../protocol/qpq_pb.ts";
import { ConnectError } from "../transport/connect_error.ts";
import { connect as connectByQuic } from "../transport/deno_quic.ts";
import { fingerprintText } from "../transport/fingerprint.ts";
import { chainPem, verifyChain } from "../transport/tls.ts";
import type { Connection, ConnectOptions, ServerIdentity } from "../transport/transport.ts";
import { ClientConnection } from "./connection.ts";

/** Port of a server address that names none. */
export const DEFAULT_PORT = 7000;
const IDLE_TIMEOUT_MS = 30_000;
const SHA256_BYTES = 32;

/** Where a server is. */
export interface ServerAddress {
  readonly hostname: string;
  readonly port: number;
}

/** How a person says who the server must be. */
export type IdentityChoice =
  /** PEM of the CA that must have signed the server's certificate. */
  | { readonly ca: string }
  /** SHA-256 of the server's certificate (32 bytes). */
  | { readonly fingerprint: Uint8Array };

/** What is remembered of a server, to be saved: how trust began and what is pinned now. */
export interface ServerTrust {
  /** The CA (PEM): the one that was chosen, or one that a pinned server has shown. */
  readonly caPem: string | null;
  /** The fingerprint that trust began with; null when it began with a CA. */
  readonly fingerprint: Bytes | null;
  /** Leaf fingerprints that are accepted now: the present one and the announced next. */
  readonly pins: readonly Bytes[];
}

/** A verified server, after Hello. */
export interface ServerLink {
  readonly connection: ClientConnection;
  readonly hello: HelloResponse;
  /** The leaf this connection is pinned to; null when the public roots vouch for it. */
  readonly pinnedLeafSha256: Bytes | null;
  /** To be saved and given to the next {@link connectServer}; null when the public roots vouch. */
  readonly trust: ServerTrust | null;
}

/** Options of {@link connectServer}. */
export interface ConnectServerOptions {
  readonly server: ServerAddress;
  /**
   * What a person asks for now; it wins over what is remembered. Undefined: remembered trust, else public
   * roots.
   */
  readonly choice?: IdentityChoice | undefined;
  /** What the former link left. */
  readonly trust?: ServerTrust | null;
  readonly accessToken?: string | undefined;
  readonly clientVersion?: string;
  readonly clock?: Clock;
  readonly signal?: AbortSignal;
  /** How long each handshake waits for an answer; the engine's default otherwise. */
  readonly handshakeTimeoutMs?: number | undefined;
  /** Another engine than Deno's QUIC. */
  readonly connect?: (options: ConnectOptions) => Promise<Connection>;
}

/** The server is not the one it has to be. The message explains what differs and what to do. */
export class ServerIdentityError extends Error {
  override name = "ServerIdentityError";
  /** Fingerprints that would have been accepted, as text. */
  readonly expected: readonly string[];
  /** The fingerprint that was offered, as text; null when it could not be seen. */
  readonly offered: string | null;

  constructor(
    message: string,
    details: { expected?: readonly string[]; offered?: string | null; cause?: unknown } = {},
  ) {
    super(message, details.cause === undefined ? {} : { cause: details.cause });
    this.expected = details.expected ?? [];
    this.offered = details.offered ?? null;
  }
}

/** `HOST`, `HOST:PORT`, `[IPV6]:PORT` or a bare IPv6 address. Throws TypeError for anything else. */
export function parseServerAddress(text: string): ServerAddress {
  const bracketed = /^\[([^\]]+)\](?::(\d{1,5}))?$/.exec(text.trim());
  const plain = /^([^:\s[\]]+)(?::(\d{1,5}))?$/.exec(text.trim());
  const bareIpv6 = /^[0-9a-fA-F:.]+$/.test(text.trim()) && text.split(":").length > 2;
  const match = bracketed ?? plain;
  if (!match && !bareIpv6) throw new TypeError(`This is no server address (HOST:PORT): ${text}`);
  const port = Number(match?.[2] ?? DEFAULT_PORT);
  if (port < 1 || port > 65535) throw new TypeError(`This is no port (1 to 65535): ${port}`);
  return { hostname: match?.[1] ?? text.trim(), port };
}

/**
 * Connects, verifies the server, and says Hello with the access token. Rejects with ServerIdentityError when
 * it is the wrong one, ConnectError when there is no connection, QpqError when Hello is refused
 * (`invalidToken`).
 */
export async function connectServer(options: ConnectServerOptions): Promise<ServerLink> {
  const trust = trustToBegin(options);
  if (!trust) return await connectByRoots(options);
  if (trust.pins.length > 0) {
    try {
      return await connectPinned(options, trust);
    } catch (error) {
      if (!isWrongCertificate(error)) throw error;
      // A rotation that was announced while this client was away: the CA can still vouch for the new leaf.
      if (trust.caPem === null) throw changedCertificate(options, trust, { cause: error });
    }
  }
  const leaf = await verifyByCa(options, trust);
  try {
    return await connectPinned(options, { ...trust, pins: [leaf] });
  } catch (error) {
    if (!isWrongCertificate(error)) throw error;
    const reason = "it shows another certificate than it uses";
    throw changedCertificate(options, trust, { offered: leaf, reason, cause: error });
  }
}

/** What a person asks for wins; what is remembered is only used when it began in the same way. */
function trustToBegin({ choice, trust }: ConnectServerOptions): ServerTrust | null {
  if (!choice) return trust ?? null;
  if ("ca" in choice) {
    const same = trust && trust.fingerprint === null && trust.caPem === choice.ca;
    return same ? trust : { caPem: choice.ca, fingerprint: null, pins: [] };
  }
  if (choice.fingerprint.length !== SHA256_BYTES) throw new TypeError("A fingerprint has 32 bytes");
  const fingerprint = copy(choice.fingerprint);
  const same = trust?.fingerprint && equal(trust.fingerprint, fingerprint);
  return same ? trust : { caPem: null, fingerprint, pins: [fingerprint] };
}

async function connectByRoots(options: ConnectServerOptions): Promise<ServerLink> {
  let connection: ClientConnection;
  try {
    connection = await open(options, { kind: "roots" });
  } catch (error) {
    if (!isWrongCertificate(error)) throw error;
    throw new ServerIdentityError(
      `${
        addressText(options.server)
      } has no certificate that the public roots vouch for, and nothing else says who it must be. ` +
        "Give its CA file (--ca, the server's data/tls/ca.pem) or its fingerprint (--fingerprint, " +
        "printed when the server starts)",
      { cause: error },
    );
  }
  const hello = await sayHello(connection, options, { token: "give" });
  return { connection, hello, pinnedLeafSha256: null, trust: null };
}

/** Connects with the pins, says Hello with the token, and learns the CA and the next pin. */
async function connectPinned(options: ConnectServerOptions, trust: ServerTrust): Promise<ServerLink> {
  const connection = await open(options, { kind: "pinned", leafSha256: trust.pins });
  const hello = await sayHello(connection, options, { token: "give" });
  const leaf = await pinnedLeaf(hello, trust);
  if (!leaf) {
    await connection.close();
    throw new ServerIdentityError(`${addressText(options.server)} shows another certificate than it uses`);
  }
  const next = hello.nextCertificateSha256;
  const announced = next.length === SHA256_BYTES && !equal(next, leaf) ? [copy(next)] : [];
  const caPem = trust.caPem ?? await shownCa(hello, options);
  return {
    connection,
    hello,
    pinnedLeafSha256: leaf,
    trust: { ...trust, caPem, pins: [leaf, ...announced] },
  };
}

/** Which of the pins the server's leaf is: TLS accepts any of them and does not say which. */
async function pinnedLeaf(hello: HelloResponse, trust: ServerTrust): Promise<Bytes | null> {
  const [leafDer] = hello.certificateChain;
  if (!leafDer) return trust.pins.length === 1 ? trust.pins[0]! : null;
  const leaf = await sha256(leafDer);
  return trust.pins.some((pin) => equal(pin, leaf)) ? leaf : null;
}

/**
 * The CA that a pinned server shows, if it vouches for this leaf and name: what a missed rotation is judged
 * by.
 */
async function shownCa(hello: HelloResponse, options: ConnectServerOptions): Promise<string | null> {
  const chain = hello.certificateChain;
  if (chain.length < 2) return null;
  const caPem = chainPem([chain.at(-1)!]);
  const verdict = await judge(chain, caPem, options);
  return verdict.ok ? caPem : null;
}

/** The SHA-256 of a leaf that the CA vouches for. The server gets no token on this connection. */
async function verifyByCa(options: ConnectServerOptions, trust: ServerTrust): Promise<Bytes> {
  const caPem = trust.caPem!;
  let connection: ClientConnection;
  try {
    connection = await open(options, { kind: "roots", caPem });
  } catch (error) {
    if (!isWrongCertificate(error)) throw error;
    throw changedCertificate(options, trust, { cause: error });
  }
  try {
    const hello = await sayHello(connection, options, { token: "keep" });
    const leafDer = hello.certificateChain[0];
    const offered = leafDer ? await sha256(leafDer) : null;
    const verdict = await judge(hello.certificateChain, caPem, options);
    if (!verdict.ok) throw changedCertificate(options, trust, { offered, reason: verdict.reason });
    return offered!;
  } finally {
    await connection.close();
  }
}

function judge(chainDer: readonly Uint8Array[], caPem: string, options: ConnectServerOptions) {
  const now = (options.clock ?? systemClock).now();
  return verifyChain({ chainDer, caPem, hostname: normalHost(options.server.hostname), now });
}

async function open(options: ConnectServerOptions, identity: ServerIdentity): Promise<ClientConnection> {
  const connection = await (options.connect ?? connectByQuic)({
    ...options.server,
    identity,
    idleTimeoutMs: IDLE_TIMEOUT_MS,
    ...(options.signal ? { signal: options.signal } : {}),
    ...(options.handshakeTimeoutMs === undefined ? {} : { handshakeTimeoutMs: options.handshakeTimeoutMs }),
  });
  return await ClientConnection.open(connection, { clock: options.clock ?? systemClock });
}

async function sayHello(
  connection: ClientConnection,
  options: ConnectServerOptions,
  { token }: { token: "give" | "keep" },
): Promise<HelloResponse> {
  try {
    const hello = await connection.call("hello", {
      clientVersion: options.clientVersion ?? "qpq-client",
      wantCertificateChain: true,
      ...(token === "give" && options.accessToken ? { accessToken: options.accessToken } : {}),
    });
    if (hello.limits) connection.limitInFlight(hello.limits.requestsInFlightMax);
    return hello;
  } catch (error) {
    await connection.close();
    throw error;
  }
}

function isWrongCertificate(error: unknown): boolean {
  return error instanceof ConnectError && error.problem === "certificate";
}

/** The refusal of a certificate that is not the pinned one, or not the CA's. */
function changedCertificate(
  options: ConnectServerOptions,
  trust: ServerTrust,
  found: { offered?: Bytes | null; reason?: string; cause?: unknown },
): ServerIdentityError {
  const expected = trust.pins.map(fingerprintText);
  const offered = found.offered ? fingerprintText(found.offered) : null;
  const cause = found.cause instanceof Error ? found.cause.message : undefined;
  const reason = found.reason ?? cause ?? "it is another certificate";
  // A fingerprint that was typed may be mistyped: nothing is known to have changed.
  const what = expected.length === 0
    ? ""
    : options.trust
    ? " has changed and"
    : " is not the expected one and";
  const lines = [
    `The certificate of ${addressText(options.server)}${what} was refused; nothing was sent to that server.`,
    ...(expected.length > 0 ? [`  expected fingerprint: ${expected.join(" or ")}`] : []),
    `  offered fingerprint:  ${offered ?? "not shown, as the server could not be verified"}`,
    `  reason: ${reason}`,
    "Either the server got a new certificate without announcing it, or somebody is between you and the server. " +
    "Ask the operator for the present fingerprint (qpq-server status shows it) over another channel; " +
    "if they confirm it, connect once with --fingerprint and that value, or with --ca and the present CA file.",
  ];
  return new ServerIdentityError(lines.join("\n"), { expected, offered, cause: found.cause });
}

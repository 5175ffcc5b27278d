/**
 * The way to the server, kept up: connects when somebody asks, resumes the session, saves what is learnt of
 * the server's certificate, and repeats what may be repeated after a loss. One connection at a time.
 */
import type { Clock } from "../base/clock.ts";
import { type ErrorCode, QpqError } from "../base/errors.ts";
import { backoff } from "../base/retry.ts";
import { tryNormaliseDomain } from "../base/user_address.ts";
import { VERSION } from "../base/version.ts";
import type { SharedMethodName } from "../protocol/methods.ts";
import { ConnectError } from "../transport/connect_error.ts";
import type { Connection, ConnectOptions } from "../transport/transport.ts";
import {
  type CallOptions,
  CallTimeoutError,
  ConnectionLostError,
  type RequestOf,
  type ResponseOf,
} from "./connection.ts";
import {
  connectServer,
  type IdentityChoice,
  type ServerAddress,
  type ServerLink,
  type ServerTrust,
} from "./identity.ts";
import { resume, signThisDevice } from "./session.ts";
import { encodeRecord } from "./state_codec.ts";
import type { ClientState, StateTransaction } from "./state.ts";

const ATTEMPTS_MAX = 5;
/**
 * How long the handshakes of a first contact wait for an answer. One that was lost on the way is tried once more, with
 * the time that a busy server may take; where nobody is at all the first one is not waited for that long.
 */
const HANDSHAKES_MS = [5_000, 10_000];
const BACKOFF = { initialMs: 100, maxMs: 5_000 };
/** The server's own wish to wait is granted up to here; beyond, the caller is told. */
const RETRY_AFTER_MS_MAX = 10_000;
const TEMPORARY: readonly ErrorCode[] = ["shuttingDown", "overloaded", "storeUnavailable", "rateLimited"];

/** What an uplink needs. */
export interface UplinkOptions {
  readonly state: ClientState;
  readonly clock: Clock;
  readonly server: ServerAddress;
  readonly choice: IdentityChoice | undefined;
  readonly accessToken: string | undefined;
  readonly connect: ((options: ConnectOptions) => Promise<Connection>) | undefined;
}

/** Was the outcome left open by a lost connection or a silent server? */
export function isConnectionTrouble(error: unknown): boolean {
  return error instanceof ConnectionLostError || error instanceof CallTimeoutError ||
    (error instanceof ConnectError && (error.problem === "unreachable" || error.problem === "failed"));
}

/** How long to wait before the same request may succeed; undefined when it will not. */
export function retryDelayMs(error: unknown): number | undefined {
  if (isConnectionTrouble(error)) return 0;
  if (!(error instanceof QpqError) || !TEMPORARY.includes(error.code)) return undefined;
  return error.details.retryAfterMs ?? 0;
}

/** The server's row as it is after a Hello. */
export function saveServer(
  tx: StateTransaction,
  server: ServerAddress,
  told: { trust: ServerTrust | null; domain: string },
) {
  const { hostname, port } = server;
  const { trust } = told;
  const former = tx.one("server");
  // What is no domain in its normal form could be taken for another one.
  const isDomain = tryNormaliseDomain(told.domain) === told.domain;
  const domain = isDomain ? told.domain : former?.domain;
  const row = {
    hostname,
    port,
    trust,
    ...(domain === undefined ? {} : { domain }),
    ...(domain === undefined || isDomain ? {} : { federationOff: true as const }),
  };
  if (!former || encodeRecord(former).toHex() !== encodeRecord(row).toHex()) tx.set("server", row);
}

/** How long a handshake is waited for; the engine's default when it is not said. */
interface Patience {
  readonly handshakeTimeoutMs?: number | undefined;
}

/** One server, reached when needed. */
export class Uplink {
  readonly #options: UplinkOptions;
  readonly #ending = new AbortController();
  #link: ServerLink | null = null;
  #opening: Promise<ServerLink> | null = null;

  constructor(options: UplinkOptions) {
    this.#options = options;
  }

  /** Where the server is. */
  get server(): ServerAddress {
    return this.#options.server;
  }

  /** The present connection if there is one that works. */
  get current(): ServerLink | null {
    return this.#link?.connection.isOpen ? this.#link : null;
  }

  /** Aborts at {@link close}. */
  get closing(): AbortSignal {
    return this.#ending.signal;
  }

  /** A verified connection, logged in when there is a session. */
  link(): Promise<ServerLink> {
    if (this.current) return Promise.resolve(this.current);
    this.#opening ??= this.#open().finally(() => this.#opening = null);
    return this.#opening;
  }

  /** {@link fresh}, tried again when a handshake was lost or the connection broke before it was verified. */
  async freshRetrying(): Promise<ServerLink> {
    const waits = backoff(BACKOFF);
    for (let handshakes = 1;; handshakes++) {
      try {
        return await this.fresh({ handshakeTimeoutMs: HANDSHAKES_MS[handshakes - 1] });
      } catch (error) {
        const attemptsMax = error instanceof ConnectError ? HANDSHAKES_MS.length : ATTEMPTS_MAX;
        const hopeless = !isConnectionTrouble(error) || handshakes >= attemptsMax;
        if (hopeless || this.#ending.signal.aborted) throw error;
        await this.pause(waits.nextMs());
      }
    }
  }

  /** A verified connection that is not logged in, for a registration or a login. It belongs to the caller. */
  async fresh(patience: Patience = {}): Promise<ServerLink> {
    const { state, server } = this.#options;
    const link = await this.#connect(patience);
    try {
      await state.transaction((tx) =>
        saveServer(tx, server, { trust: link.trust, domain: link.hello.domain })
      );
      return link;
    } catch (error) {
      await link.connection.close();
      throw error;
    }
  }

  /** From now on `link` is the connection; the former one is closed. */
  async adopt(link: ServerLink): Promise<void> {
    const former = this.#link;
    this.#link = link;
    await former?.connection.close();
  }

  /** Lets go of the connection; the next request makes another. */
  async drop(): Promise<void> {
    const former = this.#link;
    this.#link = null;
    await former?.connection.close();
  }

  /** A request that may be sent again when its answer was lost. */
  call<Name extends SharedMethodName>(
    name: Name,
    request: RequestOf<Name>,
    options: CallOptions = {},
  ): Promise<ResponseOf<Name>> {
    return this.retrying((link) => link.connection.call(name, request, options));
  }

  /** Does `work` on a connection, again on another one when it was lost or the server asks for it. */
  async retrying<Value>(work: (link: ServerLink) => Promise<Value>): Promise<Value> {
    const waits = backoff(BACKOFF);
    let wasConnected = false;
    while (true) {
      try {
        const link = await this.link();
        wasConnected = true;
        return await work(link);
      } catch (error) {
        const delayMs = retryDelayMs(error);
        const hopeless = delayMs === undefined || delayMs > RETRY_AFTER_MS_MAX ||
          waits.attempts + 1 >= ATTEMPTS_MAX || (error instanceof ConnectError && !wasConnected);
        if (hopeless || this.#ending.signal.aborted) throw error;
        await this.pause(Math.max(delayMs, waits.nextMs()));
      }
    }
  }

  /** Waits, but not beyond `signal` or {@link close}. */
  async pause(delayMs: number, signal?: AbortSignal): Promise<void> {
    const over = Promise.withResolvers<void>();
    const stop = () => over.resolve();
    const signals = signal ? [this.#ending.signal, signal] : [this.#ending.signal];
    const cancel = this.#options.clock.after(delayMs, stop);
    for (const one of signals) one.addEventListener("abort", stop, { once: true });
    if (signals.some((one) => one.aborted)) stop();
    await over.promise;
    for (const one of signals) one.removeEventListener("abort", stop);
    cancel();
  }

  /** Ends the connection and every wait. */
  async close(): Promise<void> {
    this.#ending.abort(new ConnectionLostError({ code: 0, reason: "the client was closed", by: "local" }));
    await this.#opening?.catch(() => {});
    await this.drop();
  }

  async #connect({ handshakeTimeoutMs }: Patience): Promise<ServerLink> {
    const { state, server, choice, accessToken, clock, connect } = this.#options;
    this.#ending.signal.throwIfAborted();
    const options = {
      server,
      choice,
      trust: state.one("server")?.trust ?? null,
      clientVersion: `qpq-client/${VERSION}`,
      clock,
      signal: this.#ending.signal,
      handshakeTimeoutMs,
      ...(connect ? { connect } : {}),
    };
    try {
      return await connectServer({ ...options, accessToken });
    } catch (error) {
      // A rotated token must not keep those out who are logged in: they need none.
      const isStale = error instanceof QpqError && error.code === "invalidToken" && state.one("session");
      if (!isStale) throw error;
      return await connectServer(options);
    }
  }

  async #open(): Promise<ServerLink> {
    const link = await this.fresh();
    try {
      await this.#resume(link);
    } catch (error) {
      await link.connection.close();
      throw error;
    }
    await this.adopt(link);
    return link;
  }

  async #resume(link: ServerLink): Promise<void> {
    const { state } = this.#options;
    const session = state.one("session");
    const device = state.one("device");
    const account = state.one("account");
    if (!session || !device || !account) return;
    let resumed: Awaited<ReturnType<typeof resume>>;
    try {
      resumed = await resume(link, { sessionId: session.sessionId, device });
    } catch (cause) {
      if (!(cause instanceof QpqError) || cause.code !== "loginFailed") throw cause;
      throw new QpqError("loginRequired", "The server does not know this session any more; log in again", {
        cause,
      });
    }
    if (resumed.accountId !== account.accountId) {
      throw new QpqError("internal", "The server resumed the session of another account");
    }
    if (!resumed.deviceSigned) await signThisDevice(link, { account, device });
  }
}

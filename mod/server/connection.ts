/** One client connection: who is logged in on it, its bounds in time, its end. Streams are in request_stream.ts. */
import { maskAddress } from "../base/address.ts";
import { touchIntervalMs } from "../auth/logins.ts";
import { messageOf, QpqError } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { CLOSE_CODES, type CloseCode } from "../protocol/close_codes.ts";
import { FrameError } from "../protocol/frame.ts";
import type { Deadline } from "../observe/metrics.ts";
import type { Connection } from "../transport/transport.ts";
import { BadRequests } from "./bad_requests.ts";
import type { ConnectionState, ServerContext } from "./context.ts";
import type { LiveConnection } from "./registry.ts";
import { ReplyTurns } from "./reply_turns.ts";
import { RequestStream } from "./request_stream.ts";
import { ConnectionInFlight } from "../base/requests_in_flight.ts";

const log = logger("server");

/** A connection whose session ended by its own request has this long to read the reply. */
const LINGER_MS = 1_000;

/** The server's side of a connection. */
export class ServerConnection implements ConnectionState, LiveConnection {
  readonly auth: ConnectionState["auth"];
  readonly limitKey: string;
  readonly maskedAddress: string;
  readonly gone: AbortSignal;
  readonly inFlight: ConnectionInFlight;
  readonly turns = new ReplyTurns();
  readonly badRequests: BadRequests;
  helloDone = false;
  sessionEnded = false;
  readonly #server: ServerContext;
  readonly #connection: Connection;
  readonly #gone = new AbortController();
  readonly #helloMs: number;
  #cancelTimer: () => void;

  constructor(server: ServerContext, connection: Connection, limitKey: string) {
    this.#server = server;
    this.#connection = connection;
    this.limitKey = limitKey;
    this.maskedAddress = maskAddress(connection.remoteAddress.hostname);
    this.auth = server.authenticator.newConnection();
    this.gone = this.#gone.signal;
    this.inFlight = new ConnectionInFlight(server.requestsInFlight, this.gone);
    this.badRequests = new BadRequests(server, this);
    this.#helloMs = server.settings.limits.helloDeadlineMs;
    this.#cancelTimer = server.clock.after(this.#helloMs, () => this.#helloTimeout());
  }

  /** Who is logged in. */
  get login(): ConnectionState["auth"]["login"] {
    return this.auth.login;
  }

  /** Serves until the connection has ended. Never rejects. */
  async run(): Promise<void> {
    this.#server.registry.add(this);
    this.#connection.closed.then(() => {
      this.#gone.abort();
      this.inFlight.wake();
    });
    try {
      for await (const stream of this.#connection.incomingStreams()) {
        this.#server.metrics.streams.inc();
        new RequestStream(this.#server, this, stream).serve()
          .catch((error) => this.#streamFailed(error))
          .finally(() => this.#server.metrics.streams.dec());
      }
      await this.#connection.closed;
    } finally {
      this.#gone.abort();
      this.#cancelTimer();
      this.#server.registry.remove(this);
      this.#server.authenticator.connectionClosed(this.auth);
    }
  }

  async loggedIn(): Promise<void> {
    // Nobody is left to be counted or closed; the session waits for a Resume.
    if (this.gone.aborted) return;
    this.#cancelTimer();
    this.#server.registry.loggedIn(this);
    this.#touchLater();
    // Whoever ended the session before it stood in the registry did not find this connection.
    const session = await this.#server.store.findSession(this.login!.sessionId);
    if (session && !session.ended && !session.deviceRevoked && session.accountEnabled) return;
    this.endSession();
    throw new QpqError("sessionExpired", "Cannot log in: the session was ended meanwhile");
  }

  close(code: CloseCode): void {
    this.#connection.close(CLOSE_CODES[code], code);
  }

  /** The session ended by a request on this connection: nothing more is served, its reply may still leave. */
  endSession(): void {
    this.sessionEnded = true;
    this.#cancelTimer();
    this.#cancelTimer = this.#server.clock.after(LINGER_MS, () => this.close("sessionEnded"));
  }

  /** A session in use is no idle one, and one that is too old ends although it is in use. */
  #touchLater(): void {
    const intervalMs = touchIntervalMs(this.#server.settings.sessionIdleTtlMs);
    this.#cancelTimer = this.#server.clock.after(intervalMs, () => {
      this.#server.authenticator.touch(this.auth)
        .catch((error) => log.error("touching a session failed: {error}", { error: messageOf(error) }));
      this.#touchLater();
    });
  }

  /** Hello has to come in time, then a login. */
  #helloTimeout(): void {
    if (!this.helloDone) return this.missed("hello", "loginTimeout");
    if (this.login) return;
    const leftMs = Math.max(0, this.#server.settings.limits.loginDeadlineMs - this.#helloMs);
    this.#cancelTimer = this.#server.clock.after(leftMs, () => {
      if (!this.login) this.missed("login", "loginTimeout");
    });
  }

  /** Ends a connection that was too slow. */
  missed(deadline: Deadline, code: CloseCode): void {
    this.#server.metrics.deadlineMissed(deadline);
    this.close(code);
  }

  #streamFailed(error: unknown): void {
    if (this.gone.aborted) return;
    if (error instanceof FrameError) {
      log.debug("protocol error: {reason}", { reason: error.message, address: this.maskedAddress });
      this.#server.metrics.requestError("malformedRequest");
      this.close("protocolError");
    } else log.debug("stream ended: {reason}", { reason: String(error), address: this.maskedAddress });
  }
}

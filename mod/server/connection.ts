/**
 * One client connection: its streams, its frames, its bounds, its end. A stream carries pipelined requests
 * (shared), or one Subscribe, PutBlob or GetBlob (own). Back-pressure: when too many requests are in flight or
 * the replies are not read, the stream is not read either.
 */
import { maskAddress } from "../base/address.ts";
import { messageOf, QpqError } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { CLOSE_CODES, type CloseCode } from "../protocol/close_codes.ts";
import { type Frame, FrameDecoder, FrameError } from "../protocol/frame.ts";
import { type Method, methodOf } from "../protocol/methods.ts";
import { CoalescingWriter, StuckPeerError } from "../transport/coalescing_writer.ts";
import type { Connection, Stream } from "../transport/transport.ts";
import type { ConnectionState, RequestContext, ServerContext } from "./context.ts";
import { dispatch, errorFrame, readRequest } from "./dispatch.ts";
import { OWN_STREAM_HANDLERS } from "./handlers/table.ts";
import type { OwnStreamHandler } from "./handlers/types.ts";
import { MemoryShare } from "./memory_budget.ts";
import type { LiveConnection } from "./registry.ts";

const log = logger("server");

/** Largest request body before a login. */
const ANONYMOUS_BODY_BYTES_MAX = 16 << 10;
/** Between two notes that a session is in use. */
const TOUCH_MS = 3_600_000;
/** A connection whose session ended by its own request has this long to read the reply. */
const LINGER_MS = 1_000;
/** A connection that has not said Hello is closed after this time. */
const HELLO_MS_MAX = 15_000;

/** The server's side of a connection. */
export class ServerConnection implements ConnectionState, LiveConnection {
  readonly auth: ConnectionState["auth"];
  readonly limitKey: string;
  readonly maskedAddress: string;
  readonly gone: AbortSignal;
  helloDone = false;
  sessionEnded = false;
  readonly #server: ServerContext;
  readonly #connection: Connection;
  readonly #context: RequestContext;
  readonly #gone = new AbortController();
  #inFlight = 0;
  #waitingForAnswers: (() => void)[] = [];
  #cancelTimer: () => void;

  constructor(server: ServerContext, connection: Connection, limitKey: string) {
    this.#server = server;
    this.#connection = connection;
    this.limitKey = limitKey;
    this.maskedAddress = maskAddress(connection.remoteAddress.hostname);
    this.auth = server.authenticator.newConnection();
    this.gone = this.#gone.signal;
    this.#context = { server, connection: this };
    this.#cancelTimer = server.clock.after(HELLO_MS_MAX, () => this.#helloTimeout());
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
      this.#answered();
    });
    try {
      for await (const stream of this.#connection.incomingStreams()) {
        this.#server.metrics.streams.inc();
        this.#serveStream(stream)
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

  loggedIn(): void {
    this.#cancelTimer();
    this.#server.registry.loggedIn(this);
    this.#touchLater();
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
    this.#cancelTimer = this.#server.clock.after(TOUCH_MS, () => {
      this.#server.authenticator.touch(this.auth)
        .catch((error) => log.error("touching a session failed: {error}", { error: messageOf(error) }));
      this.#touchLater();
    });
  }

  /** Hello has to come in time, then a login. */
  #helloTimeout(): void {
    if (!this.helloDone) return this.close("loginTimeout");
    if (this.login) return;
    const leftMs = Math.max(0, this.#server.settings.limits.loginDeadlineMs - HELLO_MS_MAX);
    this.#cancelTimer = this.#server.clock.after(leftMs, () => {
      if (!this.login) this.close("loginTimeout");
    });
  }

  async #serveStream(stream: Stream): Promise<void> {
    const writer = new CoalescingWriter(stream, {
      queuedBytesMax: this.#server.settings.limits.sendQueueBytesMax,
      onFailure: (error) => {
        if (error instanceof StuckPeerError) this.close("notReading");
      },
    });
    const decoder = new FrameDecoder((code) => this.#bodyBytesMax(code));
    const answering = new Set<number>();
    using buffered = new MemoryShare(this.#server.memory);
    let first = true;
    try {
      for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
        for (const decoded of decoder.push(chunk)) {
          if (decoded.kind === "oversized") {
            const { requestId, code, bodyBytes } = decoded.frame;
            writer.write(this.#refuse({ requestId, code }, tooLarge(code, bodyBytes)));
          } else {
            const { frame } = decoded;
            const method = methodOf(frame.code);
            if (method?.stream === "own" && first && frame.requestId !== 0) {
              return await this.#serveOwnStream({ method, frame, rest: decoder.takeRest(), stream, writer });
            }
            const refusal = this.#refusal(frame, method, answering);
            if (refusal) writer.write(this.#refuse(frame, refusal));
            else {
              while (this.#inFlight >= this.#server.settings.limits.requestsInFlightMax) {
                await this.#nextAnswer();
              }
              const answered = this.#answer(method!, frame, { writer, answering });
              // What is pipelined behind Hello may count on it.
              if (method!.name === "hello") await answered;
            }
          }
          first = false;
        }
        buffered.set(decoder.bufferedBytes);
        await writer.drained();
      }
      await this.#allAnswered(answering);
      await writer.close();
    } finally {
      if (answering.size > 0 || this.gone.aborted) stream.abort();
    }
  }

  /** Starts a request; its reply is written when it is there. */
  async #answer(
    method: Method,
    frame: Frame,
    to: { writer: CoalescingWriter; answering: Set<number> },
  ): Promise<void> {
    this.#inFlight++;
    this.#server.requestsInFlight.begin();
    to.answering.add(frame.requestId);
    const { length } = frame.body;
    this.#server.memory.add(length);
    const reply = await dispatch(this.#context, method, frame);
    this.#server.memory.add(-length);
    to.writer.write(reply);
    to.answering.delete(frame.requestId);
    this.#inFlight--;
    this.#server.requestsInFlight.end();
    this.#answered();
  }

  async #serveOwnStream(
    own: { method: Method; frame: Frame; rest: Uint8Array; stream: Stream; writer: CoalescingWriter },
  ): Promise<void> {
    const { method, frame, stream, writer } = own;
    const { metrics, clock } = this.#server;
    const startedAt = clock.monotonic();
    let outcome: "ok" | "error" = "ok";
    this.#server.requestsInFlight.begin();
    try {
      const request = readRequest(this.#context, method, frame);
      const handler = OWN_STREAM_HANDLERS[method.name as keyof typeof OWN_STREAM_HANDLERS];
      await (handler as OwnStreamHandler<unknown>)(this.#context, { ...own, request });
      await writer.close();
    } catch (error) {
      outcome = "error";
      if (this.gone.aborted) return;
      writer.write(errorFrame(this.#context, method.name, frame.requestId, error));
      await writer.close();
      stream.stopReading();
    } finally {
      this.#server.requestsInFlight.end();
      metrics.request(method.name, outcome, (clock.monotonic() - startedAt) / 1000);
    }
  }

  /** Why a frame is not even dispatched; null when it may be. */
  #refusal(frame: Frame, method: Method | undefined, answering: ReadonlySet<number>): QpqError | null {
    if (frame.requestId === 0) return new QpqError("malformedRequest", "Request ids begin at 1");
    if (!method) return new QpqError("unknownMethod", `There is no method ${frame.code}`);
    if (method.stream === "own") {
      return new QpqError("ownStreamRequired", `${method.name} was not first on its stream`);
    }
    if (answering.has(frame.requestId)) {
      return new QpqError("duplicateRequest", `Request ${frame.requestId} is open`);
    }
    return null;
  }

  #refuse(frame: { requestId: number; code: number }, error: QpqError): Uint8Array {
    return errorFrame(this.#context, methodOf(frame.code)?.name ?? "unknown", frame.requestId, error);
  }

  #bodyBytesMax(code: number): number {
    const bytesMax = methodOf(code)?.bytesMax ?? ANONYMOUS_BODY_BYTES_MAX;
    return this.login ? bytesMax : Math.min(bytesMax, ANONYMOUS_BODY_BYTES_MAX);
  }

  /** Resolves when a request was answered or the connection is gone. */
  #nextAnswer(): Promise<void> {
    return new Promise((resolve) => this.#waitingForAnswers.push(resolve));
  }

  #answered(): void {
    if (this.#waitingForAnswers.length === 0) return;
    const waiting = this.#waitingForAnswers;
    this.#waitingForAnswers = [];
    for (const resolve of waiting) resolve();
  }

  async #allAnswered(answering: ReadonlySet<number>): Promise<void> {
    while (answering.size > 0 && !this.gone.aborted) await this.#nextAnswer();
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

function tooLarge(code: number, bodyBytes: number): QpqError {
  return new QpqError("requestTooLarge", `The body of method ${code} has ${bodyBytes} bytes`);
}

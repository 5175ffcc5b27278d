/**
 * One connection to a server, seen as calls: requests are pipelined on one long-lived stream and answered in
 * any order; Subscribe and blobs have streams of their own. Owns request ids, timeouts, the bound on requests
 * in flight and the mapping of error frames; knows nothing of logins, identity or retries.
 */
import { create, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { type Clock, systemClock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { decodeReply as decodeReplyOf } from "../protocol/bodies.ts";
import { encodeFrame, type Frame, FRAME_BODY_BYTES_MAX, FrameDecoder } from "../protocol/frame.ts";
import { type MethodName, METHODS, type SharedMethodName } from "../protocol/methods.ts";
import { PendingCalls } from "../protocol/pending_calls.ts";
import type { PushBatch, PutBlobResponse } from "../protocol/qpq_pb.ts";
import { CoalescingWriter } from "../transport/coalescing_writer.ts";
import type { CloseReason, Connection, Stream } from "../transport/transport.ts";

/** What a method takes; every field may be left out. */
export type RequestOf<Name extends MethodName> = MessageInitShape<(typeof METHODS)[Name]["request"]>;
/** What a method answers. */
export type ResponseOf<Name extends MethodName> = MessageShape<(typeof METHODS)[Name]["response"]>;

/** How long a call waits for its answer. */
export const CALL_TIMEOUT_MS = 30_000;
/** Requests in flight until Hello has told the server's own bound. */
const IN_FLIGHT_DEFAULT = 16;
/** Requests that the server leaves unread; with the bound on requests in flight this is not reached. */
const QUEUED_BYTES_MAX = 64 << 20;

/** The connection ended before the answer came: whether the request was carried out is not known. */
export class ConnectionLostError extends Error {
  override name = "ConnectionLostError";
  /** The close code of the server's transport; 0 when there was none. */
  readonly closeCode: number;

  constructor(reason: CloseReason) {
    const why = reason.reason === "" ? "" : `: ${reason.reason}`;
    super(`The connection to the server was lost${why}`);
    this.closeCode = reason.code;
  }
}

/** The server did not answer in time: whether the request was carried out is not known. */
export class CallTimeoutError extends Error {
  override name = "CallTimeoutError";

  constructor(name: MethodName, timeoutMs: number) {
    super(`The server did not answer ${name} within ${timeoutMs} ms`);
  }
}

/** A blob on its way here. */
export interface BlobDownload {
  /** Bytes of the whole blob. */
  readonly size: number;
  /** Bytes that `body` yields. */
  readonly length: number;
  /** Iterate it once, to the end or until you break; throws ConnectionLostError when bytes are missing. */
  readonly body: AsyncIterable<Uint8Array>;
}

/** Options of a call. */
export interface CallOptions {
  readonly timeoutMs?: number;
}

/** A server seen through one QUIC connection. */
export class ClientConnection implements AsyncDisposable {
  readonly #connection: Connection;
  readonly #stream: Stream;
  readonly #writer: CoalescingWriter;
  readonly #clock: Clock;
  readonly #calls: PendingCalls;
  readonly #reading: Promise<void>;
  #lost: ConnectionLostError | null = null;

  private constructor(connection: Connection, stream: Stream, clock: Clock) {
    this.#connection = connection;
    this.#stream = stream;
    this.#writer = new CoalescingWriter(stream, {
      queuedBytesMax: QUEUED_BYTES_MAX,
      onFailure: (error) => this.#fail(brokenHere(messageOf(error))),
    });
    this.#clock = clock;
    this.#calls = new PendingCalls({
      clock,
      inFlightMax: IN_FLIGHT_DEFAULT,
      write: (bytes) => this.#writer.write(bytes),
    });
    this.#reading = this.#readReplies();
    connection.closed.then((reason) => this.#fail(reason));
  }

  /** Opens the stream for calls on `connection`, which belongs to the result from now on. */
  static async open(connection: Connection, options: { clock?: Clock } = {}): Promise<ClientConnection> {
    const stream = await connection.openStream();
    return new ClientConnection(connection, stream, options.clock ?? systemClock);
  }

  /** Resolves, never rejects, when the connection has ended. */
  get closed(): Promise<CloseReason> {
    return this.#connection.closed;
  }

  /** False as soon as calls can only fail. */
  get isOpen(): boolean {
    return this.#lost === null;
  }

  /** Takes the server's bound from Hello: more requests wait here instead of filling its buffers. */
  limitInFlight(requestsMax: number): void {
    this.#calls.limit(requestsMax);
  }

  /**
   * Sends a request and resolves with its answer. Rejects with QpqError (the server said no),
   * ConnectionLostError or CallTimeoutError (the outcome is not known).
   */
  async call<Name extends SharedMethodName>(
    name: Name,
    request: RequestOf<Name>,
    options: CallOptions = {},
  ): Promise<ResponseOf<Name>> {
    const timeoutMs = options.timeoutMs ?? CALL_TIMEOUT_MS;
    const frame = await this.#calls.exchange(METHODS[name].number, encodeRequest(name, request), {
      timeoutMs,
      late: () => new CallTimeoutError(name, timeoutMs),
    });
    return decodeReply(name, frame);
  }

  /**
   * The pushes of a subscription, the first one without entries. Ends by throwing: QpqError `replaced` when a
   * newer subscriber took over, ConnectionLostError when the connection is gone. Returns when `signal`
   * aborts. Acknowledge with `call`.
   */
  async *subscribe(
    request: RequestOf<"subscribe">,
    options: { signal?: AbortSignal } = {},
  ): AsyncGenerator<PushBatch, void, void> {
    const { signal } = options;
    if (signal?.aborted) return;
    const { stream, frames } = await this.#openOwn("subscribe", request);
    const stop = () => stream.abort();
    signal?.addEventListener("abort", stop, { once: true });
    try {
      while (!signal?.aborted) yield decodeReply("subscribe", await this.#nextFrame(frames, stream));
    } catch (error) {
      if (!signal?.aborted) throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
      stream.abort();
    }
  }

  /** Sends a blob: exactly `request.size` bytes come from `body`. Stops early when the server refuses. */
  async putBlob(
    request: RequestOf<"putBlob">,
    body: AsyncIterable<Uint8Array>,
  ): Promise<PutBlobResponse> {
    const { stream, frames } = await this.#openOwn("putBlob", request);
    try {
      let answered = false;
      const reply = this.#nextFrame(frames, stream).finally(() => answered = true);
      reply.catch(() => {}); // looked at below; a refusal may come while the body is still being made
      for await (const chunk of body) {
        if (answered) break;
        // A server that refused reads no further: a write alone could wait for ever.
        await Promise.race([this.#write(stream, chunk), reply]);
      }
      if (!answered) await Promise.race([stream.closeWrite(), reply]);
      return decodeReply("putBlob", await this.#within(reply, "putBlob", CALL_TIMEOUT_MS));
    } finally {
      stream.abort();
    }
  }

  /** Asks for a blob or a range of it. Resolves when the server has said that it is there. */
  async getBlob(request: RequestOf<"getBlob">): Promise<BlobDownload> {
    const { stream, frames } = await this.#openOwn("getBlob", request);
    try {
      const first = this.#nextFrame(frames, stream);
      const reply = decodeReply("getBlob", await this.#within(first, "getBlob", CALL_TIMEOUT_MS));
      const length = Number(reply.length);
      return { size: Number(reply.size), length, body: this.#blobBody(stream, frames, length) };
    } catch (error) {
      stream.abort();
      throw error;
    }
  }

  /** A further stream, for one who makes and reads frames without the cost of calls (bench/). */
  async openStream(): Promise<Stream> {
    if (this.#lost) throw this.#lost;
    return await this.#connection.openStream();
  }

  /** Ends the connection: calls in flight reject with ConnectionLostError. Never throws. */
  async close(): Promise<void> {
    this.#fail(brokenHere("it was closed here"));
    await this.#reading;
    await this.#connection[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** `promise`, or CallTimeoutError after `timeoutMs`. */
  async #within<Value>(promise: Promise<Value>, name: MethodName, timeoutMs: number): Promise<Value> {
    const late = Promise.withResolvers<never>();
    const cancel = this.#clock.after(timeoutMs, () => late.reject(new CallTimeoutError(name, timeoutMs)));
    try {
      return await Promise.race([promise, late.promise]);
    } finally {
      cancel();
    }
  }

  async #readReplies(): Promise<void> {
    try {
      for await (const frame of framesOf(this.#stream, new FrameDecoder(() => FRAME_BODY_BYTES_MAX))) {
        this.#calls.settle(frame);
      }
      // The stream may end a moment before the connection reports why it did.
      this.#connection.close(0, "");
      this.#fail(await this.#connection.closed);
    } catch (error) {
      this.#connection.close(0, "unreadable answer");
      this.#fail(brokenHere(messageOf(error)));
    }
  }

  #fail(reason: CloseReason): void {
    if (this.#lost) return;
    this.#lost = new ConnectionLostError(reason);
    this.#connection.close(0, "");
    this.#stream.abort();
    this.#calls.fail(this.#lost);
  }

  async #openOwn<Name extends "subscribe" | "putBlob" | "getBlob">(name: Name, request: RequestOf<Name>) {
    if (this.#lost) throw this.#lost;
    const stream = await this.#connection.openStream().catch((cause) => {
      throw this.#lost ?? new ConnectionLostError(brokenHere(messageOf(cause)));
    });
    await this.#write(
      stream,
      encodeFrame(this.#calls.nextId(), METHODS[name].number, encodeRequest(name, request)),
    );
    return { stream, frames: new FrameDecoder(() => FRAME_BODY_BYTES_MAX) };
  }

  async #write(stream: Stream, bytes: Uint8Array): Promise<void> {
    try {
      await stream.write(bytes);
    } catch (cause) {
      throw this.#lost ?? new ConnectionLostError(brokenHere(messageOf(cause)));
    }
  }

  /** The next frame of an own stream; what follows it stays in `frames`. */
  async #nextFrame(frames: FrameDecoder, stream: Stream): Promise<Frame> {
    let chunk: Uint8Array | null = new Uint8Array(0);
    while (chunk) {
      for (const decoded of frames.push(chunk)) {
        if (decoded.kind === "frame") return decoded.frame;
      }
      chunk = await stream.read();
    }
    throw this.#lost ?? new ConnectionLostError(brokenHere("the server ended the stream"));
  }

  async *#blobBody(stream: Stream, frames: FrameDecoder, length: number): AsyncGenerator<Uint8Array> {
    try {
      let left = length;
      let chunk: Uint8Array | null = frames.takeRest();
      while (chunk) {
        if (chunk.length > left) chunk = chunk.subarray(0, left);
        left -= chunk.length;
        if (chunk.length > 0) yield chunk;
        if (left === 0) return;
        chunk = await stream.read();
      }
      throw this.#lost ?? new ConnectionLostError(brokenHere(`${left} bytes of a blob are missing`));
    } finally {
      stream.abort();
    }
  }
}

/** A reason for an end that the peer did not announce. */
function brokenHere(reason: string): CloseReason {
  return { code: 0, reason, by: "local" };
}

function encodeRequest<Name extends MethodName>(name: Name, request: RequestOf<Name>): Uint8Array {
  const schema = METHODS[name].request;
  return toBinary(schema, create(schema, request as MessageInitShape<typeof schema>));
}

/** The body of a reply; throws QpqError for an error frame. */
function decodeReply<Name extends MethodName>(name: Name, frame: Frame): ResponseOf<Name> {
  return decodeReplyOf(METHODS[name].response, frame) as ResponseOf<Name>;
}

/** All frames of a stream until it ends. */
async function* framesOf(stream: Stream, decoder: FrameDecoder): AsyncGenerator<Frame, void, void> {
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
    for (const decoded of decoder.push(chunk)) if (decoded.kind === "frame") yield decoded.frame;
  }
}

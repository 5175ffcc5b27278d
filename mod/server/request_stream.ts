/**
 * One stream of a connection: frames in, replies out. It carries pipelined requests (shared), or one Subscribe,
 * PutBlob or GetBlob (own). Back-pressure: while too many requests are in flight or replies are not read, the
 * stream is not read either.
 */
import { QpqError } from "../base/errors.ts";
import { type Frame, FrameDecoder } from "../protocol/frame.ts";
import { type Method, methodOf } from "../protocol/methods.ts";
import { CoalescingWriter, StuckPeerError } from "../transport/coalescing_writer.ts";
import type { Stream } from "../transport/transport.ts";
import type { ServerConnection } from "./connection.ts";
import type { ConnectionState, RequestContext, ServerContext } from "./context.ts";
import { dispatch, errorFrame, readRequest } from "./dispatch.ts";
import { OWN_STREAM_HANDLERS } from "./handlers/table.ts";
import type { OwnStreamHandler } from "./handlers/types.ts";
import { MemoryShare } from "./memory_budget.ts";

/** Largest request body before a login. */
const ANONYMOUS_BODY_BYTES_MAX = 16 << 10;

/** What a stream needs of its connection. */
type Owner = ConnectionState & Pick<ServerConnection, "inFlight" | "turns" | "missed">;

/** Serves a stream until its end. */
export class RequestStream {
  readonly #server: ServerContext;
  readonly #owner: Owner;
  readonly #stream: Stream;
  readonly #writer: CoalescingWriter;
  readonly #decoder: FrameDecoder;
  readonly #context: RequestContext;
  /** Request ids that are being answered. */
  readonly #answering = new Set<number>();
  readonly #roomToWrite = () => this.#writer.drained();
  #cancelFrameTimer: (() => void) | null = null;

  constructor(server: ServerContext, owner: Owner, stream: Stream) {
    this.#server = server;
    this.#owner = owner;
    this.#stream = stream;
    this.#writer = new CoalescingWriter(stream, {
      queuedBytesMax: server.settings.limits.sendQueueBytesMax,
      onQueued: (bytes) => server.metrics.sendQueueBytes += bytes,
      onFailure: (error) => {
        if (!(error instanceof StuckPeerError)) return;
        server.limits.hit("sendQueue", owner.maskedAddress);
        owner.close("notReading");
      },
    });
    this.#decoder = new FrameDecoder((code) => this.#bodyBytesMax(code));
    this.#context = this.#newContext();
  }

  /** Rejects with FrameError when the stream cannot be understood any further. */
  async serve(): Promise<void> {
    using buffered = new MemoryShare(this.#server.memory);
    let first = true;
    try {
      for (let chunk = await this.#stream.read(); chunk; chunk = await this.#stream.read()) {
        if (this.#owner.badRequests.tooMany) await this.#owner.badRequests.wait();
        for (const decoded of this.#decoder.push(chunk)) {
          this.#frameEnded();
          if (decoded.kind === "oversized") {
            const { requestId, code, bodyBytes } = decoded.frame;
            this.#refuse({ requestId, code }, tooLarge(code, bodyBytes));
          } else {
            const { frame } = decoded;
            const method = methodOf(frame.code);
            if (method?.stream === "own" && first && frame.requestId !== 0) {
              return await this.#serveOwn(method, frame);
            }
            const wait = this.#begin(method, frame);
            if (wait) await wait;
          }
          first = false;
        }
        const { bufferedBytes } = this.#decoder;
        buffered.set(bufferedBytes);
        if (bufferedBytes > 0) this.#frameBegun();
        // The rest of a large frame would make it worse, and what is held for it is the most there is to free.
        if (this.#server.memory.exceeded && bufferedBytes > ANONYMOUS_BODY_BYTES_MAX) {
          this.#server.limits.hit("memory", this.#owner.maskedAddress);
          return this.#owner.close("overloaded");
        }
        await this.#writer.drained();
      }
      await this.#owner.inFlight.until(() => this.#answering.size === 0);
      await this.#writer.close();
    } finally {
      this.#frameEnded();
      if (this.#answering.size > 0 || this.#owner.gone.aborted) this.#stream.abort();
    }
  }

  /** A frame that was begun has to be whole in time: what is held for it is everybody's memory. */
  #frameBegun(): void {
    this.#cancelFrameTimer ??= this.#server.clock.after(
      this.#server.settings.limits.frameDeadlineMs,
      () => this.#owner.missed("frame", "protocolError"),
    );
  }

  #frameEnded(): void {
    this.#cancelFrameTimer?.();
    this.#cancelFrameTimer = null;
  }

  /**
   * Starts a request; its reply is written when it is there. What comes back is to be waited for before the next one:
   * nothing in the usual case, which a promise for each frame would make slower.
   */
  #begin(method: Method | undefined, frame: Frame): Promise<void> | undefined {
    const refusal = this.#refusal(frame, method);
    if (refusal) return void this.#refuse(frame, refusal);
    const { inFlight } = this.#owner;
    const { requestsInFlightMax } = this.#server.settings.limits;
    const start = () => {
      const answered = this.#answer(method!, frame);
      // What is pipelined behind Hello may count on it.
      return method!.name === "hello" ? answered : undefined;
    };
    if (inFlight.count < requestsInFlightMax) return start();
    return inFlight.until((count) => count < requestsInFlightMax).then(start);
  }

  async #answer(method: Method, frame: Frame): Promise<void> {
    const { requestId, body } = frame;
    const context = this.#newContext();
    this.#owner.inFlight.begin();
    this.#answering.add(requestId);
    this.#server.memory.add(body.length);
    this.#writer.write(await dispatch(context, method, frame));
    context.turn.giveBack();
    this.#server.memory.add(-body.length);
    this.#answering.delete(requestId);
    this.#owner.inFlight.end();
  }

  async #serveOwn(method: Method, frame: Frame): Promise<void> {
    const { metrics, clock } = this.#server;
    const [stream, writer] = [this.#stream, this.#writer];
    const startedAt = clock.monotonic();
    let outcome: "ok" | "error" = "ok";
    const own = { frame, stream, writer, rest: this.#decoder.takeRest(), rawBytesBegun: false };
    this.#server.requestsInFlight.begin();
    try {
      const request = readRequest(this.#context, method, frame);
      const handler = OWN_STREAM_HANDLERS[method.name as keyof typeof OWN_STREAM_HANDLERS];
      await (handler as OwnStreamHandler<unknown>)(this.#context, Object.assign(own, { request }));
      await writer.close();
      stream.stopReading(); // else the client has its stream back only with the garbage collector
    } catch (error) {
      outcome = "error";
      if (this.#owner.gone.aborted) return;
      const reply = errorFrame(this.#context, method.name, frame.requestId, error);
      if (own.rawBytesBegun) return stream.abort(); // a frame among raw bytes would be taken for some of them
      writer.write(reply);
      await writer.close();
      stream.stopReading();
    } finally {
      this.#server.requestsInFlight.end();
      metrics.request(method.name, outcome, (clock.monotonic() - startedAt) / 1000);
    }
  }

  /** Why a frame is not even dispatched; null when it may be. */
  #refusal({ requestId, code, body }: Frame, method: Method | undefined): QpqError | null {
    if (requestId === 0) return new QpqError("malformedRequest", "Request ids begin at 1");
    if (!method) return new QpqError("unknownMethod", `There is no method ${code}`);
    if (method.stream === "own") {
      return new QpqError("ownStreamRequired", `${method.name} was not first on its stream`);
    }
    if (this.#answering.has(requestId)) {
      return new QpqError("duplicateRequest", `Request ${requestId} is open`);
    }
    const full = this.#server.memory.refusal(body.length);
    if (full) this.#server.limits.hit("memory", this.#owner.maskedAddress);
    return full;
  }

  #refuse(frame: { requestId: number; code: number }, error: QpqError): void {
    const name = methodOf(frame.code)?.name ?? "unknown";
    this.#writer.write(errorFrame(this.#context, name, frame.requestId, error));
  }

  #bodyBytesMax(code: number): number {
    const bytesMax = methodOf(code)?.bytesMax ?? ANONYMOUS_BODY_BYTES_MAX;
    return this.#owner.auth.login ? bytesMax : Math.min(bytesMax, ANONYMOUS_BODY_BYTES_MAX);
  }

  #newContext(): RequestContext {
    const turn = this.#owner.turns.forRequest(this.#roomToWrite);
    return { server: this.#server, connection: this.#owner, turn };
  }
}

function tooLarge(code: number, bodyBytes: number): QpqError {
  return new QpqError("requestTooLarge", `The body of method ${code} has ${bodyBytes} bytes`);
}

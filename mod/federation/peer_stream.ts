/**
 * One stream of another server: frames in, replies out. Requests are pipelined; Relays are handled in order. While too
 * many are in flight, or replies are not read, the stream is not read either; who does not read for long is closed.
 */
import { AssertionError } from "../base/assert.ts";
import { QpqError } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { decodeMessage, encodeErrorFrame, encodeMessage, expectedError } from "../protocol/bodies.ts";
import { CODE_OK, encodeFrame, type Frame, FrameDecoder } from "../protocol/frame.ts";
import {
  PEER_HANDSHAKE_BYTES_MAX,
  PEER_METHODS,
  type PeerMethod,
  type PeerMethodName,
  peerMethodOf,
  type PeerRequestOf,
  RELAY_MESSAGES_MAX,
} from "../protocol/peer_methods.ts";
import { CoalescingWriter, StuckPeerError } from "../transport/coalescing_writer.ts";
import type { Stream } from "../transport/transport.ts";
import type { Peer } from "./peer_handlers.ts";
import { type PeerConnection, REQUESTS_IN_FLIGHT_MAX } from "./peer_connection.ts";
import { PeerRefused } from "./refusal.ts";

const log = logger("federation");

const QUEUED_BYTES_MAX = 16 << 20;
/** Replies that nobody reads for so long end the connection. */
export const UNREAD_MS_MAX = 60_000;
const ECHO_BYTES_MAX = 64;

/** Serves a stream until its end. */
export class PeerStream {
  readonly #owner: PeerConnection;
  readonly #stream: Stream;
  readonly #writer: CoalescingWriter;
  readonly #decoder: FrameDecoder;
  #cancelFrameTimer: (() => void) | null = null;

  constructor(owner: PeerConnection, stream: Stream) {
    this.#owner = owner;
    this.#stream = stream;
    this.#writer = new CoalescingWriter(stream, {
      queuedBytesMax: QUEUED_BYTES_MAX,
      onFailure: (error) => {
        if (error instanceof StuckPeerError) owner.close("notReading");
      },
    });
    this.#decoder = new FrameDecoder((code) => this.#bodyBytesMax(code));
  }

  /** Rejects with FrameError when the stream cannot be understood any further. */
  async serve(): Promise<void> {
    try {
      await this.#serve();
    } finally {
      this.#frameEnded();
    }
  }

  async #serve(): Promise<void> {
    const owner = this.#owner;
    const answering = new Set<Promise<void>>();
    let first = true;
    for (let chunk = await this.#stream.read(); chunk; chunk = await this.#stream.read()) {
      for (const decoded of this.#decoder.push(chunk)) {
        this.#frameEnded();
        if (owner.refused) return;
        if (decoded.kind === "oversized") {
          this.#oversized(decoded.frame);
          continue;
        }
        const { frame } = decoded;
        const method = peerMethodOf(frame.code);
        if (method?.stream === "own" && first) return await this.#serveBlob(frame);
        first = false;
        await owner.inFlight.until((count) => count < REQUESTS_IN_FLIGHT_MAX);
        const answered = this.#answer(method, frame);
        answering.add(answered);
        answered.finally(() => answering.delete(answered));
        // What is pipelined behind the handshake may count on it.
        if (method?.access === "handshake") await answered;
      }
      if (this.#decoder.bufferedBytes > 0) this.#frameBegun();
      await this.#drained();
    }
    this.#frameEnded();
    await Promise.all(answering);
    await this.#writer.close();
  }

  /** A frame that was begun has to be whole in time, like a client's. */
  #frameBegun(): void {
    const { clock, settings } = this.#owner.server.options;
    this.#cancelFrameTimer ??= clock.after(settings.frameDeadlineMs, () => this.#owner.missedFrame());
  }

  #frameEnded(): void {
    this.#cancelFrameTimer?.();
    this.#cancelFrameTimer = null;
  }

  /** Never rejects. */
  async #answer(method: PeerMethod | undefined, frame: Frame): Promise<void> {
    const { inFlight, server: { options: { metrics, clock } } } = this.#owner;
    const startedAt = clock.monotonic();
    let outcome: "ok" | "error" = "ok";
    inFlight.begin();
    try {
      if (!method) throw new QpqError("unknownMethod", `There is no method ${frame.code}`);
      const response = await this.#handle(method.name, frame);
      this.#writer.write(encodeFrame(frame.requestId, CODE_OK, encodeMessage(method.response, response)));
    } catch (error) {
      outcome = "error";
      this.#failed(frame.requestId, error, method?.name ?? "unknown");
    } finally {
      inFlight.end();
      metrics.request(method?.name ?? "other", outcome, (clock.monotonic() - startedAt) / 1000);
    }
  }

  async #handle(name: PeerMethodName, frame: Frame): Promise<unknown> {
    const { handshake, server } = this.#owner;
    const { handlers, clock } = server.options;
    if (name === "peerHello") return await handshake.hello(this.#read(name, frame));
    if (name === "peerProve") {
      await handshake.prove(this.#read(name, frame));
      return {};
    }
    const peer = this.#owner.proven;
    switch (name) {
      case "relay":
        return await this.#owner.inTurn(() => this.#relay(peer, frame));
      case "submitCommit":
        return await handlers.submitCommit(peer, this.#charged(name, frame));
      case "peerClaim":
        return await handlers.claim(peer, this.#charged(name, frame));
      case "peerGetAccount":
        return await handlers.getAccount(peer, this.#charged(name, frame));
      case "peerPing": {
        const { echo } = this.#charged(name, frame);
        if (echo.length > ECHO_BYTES_MAX) throw new QpqError("malformedRequest", "The echo is too long");
        return { echo, serverTimeMs: BigInt(clock.now()) };
      }
      case "peerGetBlob":
        throw new QpqError("ownStreamRequired", `${name} was not first on its stream`);
    }
  }

  async #relay(peer: Peer, frame: Frame): Promise<unknown> {
    const { server } = this.#owner;
    const request = this.#read("relay", frame);
    return await peer.order.inRound(request.round, () => {
      const count = Math.max(1, request.messages.length);
      server.limiter.charge(peer.domain, { count, bytes: frame.body.length });
      return server.options.handlers.relay(peer, request);
    });
  }

  #read<Name extends PeerMethodName>(name: Name, frame: Frame): PeerRequestOf<Name> {
    const request = decodeMessage(PEER_METHODS[name].request, frame.body) as PeerRequestOf<Name>;
    if ("messages" in request && request.messages.length > RELAY_MESSAGES_MAX) {
      throw new QpqError("malformedRequest", `A Relay has ${request.messages.length} messages`);
    }
    return request;
  }

  #charged<Name extends PeerMethodName>(name: Name, frame: Frame): PeerRequestOf<Name> {
    this.#owner.server.limiter.charge(this.#owner.proven.domain, { count: 1, bytes: frame.body.length });
    return this.#read(name, frame);
  }

  /** Handlers write nothing themselves: a blob's bytes follow the reply here. */
  async #serveBlob(frame: Frame): Promise<void> {
    let rawBytesBegun = false;
    this.#owner.inFlight.begin();
    try {
      const peer = this.#owner.proven;
      const request = this.#charged("peerGetBlob", frame);
      const { size, length, body } = await this.#owner.server.options.handlers.getBlob(peer, request);
      const reply = { size: BigInt(size), length: BigInt(length) };
      const { response } = PEER_METHODS.peerGetBlob;
      this.#writer.write(encodeFrame(frame.requestId, CODE_OK, encodeMessage(response, reply)));
      rawBytesBegun = true;
      for await (const chunk of body) {
        if (this.#owner.gone.aborted || this.#writer.failed) return;
        this.#writer.write(chunk);
        await this.#drained();
      }
    } catch (error) {
      if (rawBytesBegun) return this.#stream.abort(); // a frame among raw bytes would be taken for some of them
      this.#failed(frame.requestId, error, "peerGetBlob");
    } finally {
      this.#owner.inFlight.end();
    }
    await this.#writer.close();
    this.#stream.stopReading();
  }

  #failed(requestId: number, error: unknown, method: string): void {
    const expected = expectedError(error);
    const { metrics } = this.#owner.server.options;
    metrics.requestError(expected.code);
    const peer = this.#owner.peer?.domain ?? "nobody yet";
    const properties = { method, code: expected.code, reason: expected.message, peer };
    if (expected.code === "internal") {
      log.error("{method} of {peer} failed: {reason}", { ...properties, error });
    } else log.debug("{method} of {peer} refused with {code}: {reason}", properties);
    this.#writer.write(encodeErrorFrame(requestId, expected));
    if (error instanceof PeerRefused) this.#owner.refuse(error);
    else if (!this.#owner.peer) this.#owner.refuse(new PeerRefused("protocol", expected.message));
    if (error instanceof AssertionError) this.#owner.close("internal");
  }

  #oversized(frame: { requestId: number; code: number; bodyBytes: number }): void {
    const why = `The body of method ${frame.code} has ${frame.bodyBytes} bytes`;
    this.#failed(frame.requestId, new QpqError("requestTooLarge", why), "unknown");
  }

  /** Room for more replies; a peer that makes none for long is closed. */
  async #drained(): Promise<void> {
    const cancel = this.#owner.server.options.clock.after(
      UNREAD_MS_MAX,
      () => this.#owner.close("notReading"),
    );
    try {
      await this.#writer.drained();
    } finally {
      cancel();
    }
  }

  #bodyBytesMax(code: number): number {
    const bytesMax = peerMethodOf(code)?.bytesMax ?? 0;
    return this.#owner.peer ? bytesMax : Math.min(bytesMax, PEER_HANDSHAKE_BYTES_MAX);
  }
}

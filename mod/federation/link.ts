/** A link to another server, as its initiator sees it: pipelined calls on one stream, blobs on streams of their own. */
import { type Clock } from "../base/clock.ts";
import { messageOf, QpqError } from "../base/errors.ts";
import { decodeReply, encodeMessage } from "../protocol/bodies.ts";
import { encodeFrame, type Frame, FRAME_BODY_BYTES_MAX, FrameDecoder } from "../protocol/frame.ts";
import {
  PEER_METHODS,
  type PeerCallName,
  type PeerRequestInit,
  type PeerResponseOf,
} from "../protocol/peer_methods.ts";
import { PendingCalls } from "../protocol/pending_calls.ts";
import { CoalescingWriter } from "../transport/coalescing_writer.ts";
import { chainPem, inspectCertificate } from "../transport/tls.ts";
import type { CloseReason, Connection, Stream } from "../transport/transport.ts";
import type { PeerChain } from "./identity.ts";

/** How long a call waits for its reply. */
export const PEER_CALL_MS = 30_000;
const IN_FLIGHT_DEFAULT = 16;
const QUEUED_BYTES_MAX = 32 << 20;

type HandshakeName = "peerHello" | "peerProve";

/** The link ended, or no reply came in time: whether the request was carried out is not known. */
export class LinkLostError extends QpqError {
  override name = "LinkLostError";

  constructor(domain: string, why: string) {
    super("peerUnavailable", `The link to ${domain} was lost: ${why}`);
  }
}

/** A blob on its way here. */
export interface PeerBlob {
  /** Bytes of the whole blob. */
  readonly size: number;
  /** Bytes that `body` yields. */
  readonly length: number;
  /** To be iterated once; throws LinkLostError when bytes are missing. */
  readonly body: AsyncIterable<Uint8Array>;
}

/** A blob on its way from a peer. */
export interface IncomingBlob extends PeerBlob {
  /** Ends it, also when the body was not begun. Never throws. */
  abort(): void;
}

/** One connection to another server. Calls reject with QpqError: the peer's, or {@link LinkLostError}. */
export class PeerLink {
  readonly domain: string;
  readonly #connection: Connection;
  readonly #stream: Stream;
  readonly #writer: CoalescingWriter;
  readonly #calls: PendingCalls;
  #chain: PeerChain | null = null;
  #lost: LinkLostError | null = null;

  private constructor(connection: Connection, stream: Stream, options: { domain: string; clock: Clock }) {
    this.domain = options.domain;
    this.#connection = connection;
    this.#stream = stream;
    this.#writer = new CoalescingWriter(stream, {
      queuedBytesMax: QUEUED_BYTES_MAX,
      onFailure: (error) => this.#fail(messageOf(error)),
    });
    this.#calls = new PendingCalls({
      clock: options.clock,
      inFlightMax: IN_FLIGHT_DEFAULT,
      write: (bytes) => this.#writer.write(bytes),
    });
    this.#readReplies();
    connection.closed.then(({ reason, code }) => this.#fail(reason === "" ? `code ${code}` : reason));
  }

  /** On a connection, which belongs to the result from now on. Nobody is proven yet. */
  static async open(connection: Connection, options: { domain: string; clock: Clock }): Promise<PeerLink> {
    return new PeerLink(connection, await connection.openStream(), options);
  }

  /** Resolves, never rejects, when the connection has ended. */
  get closed(): Promise<CloseReason> {
    return this.#connection.closed;
  }

  /** False as soon as calls can only fail. */
  get isOpen(): boolean {
    return this.#lost === null;
  }

  /** When the responder's certificate ends, Unix ms; null before it is proven. */
  get expiresAt(): number | null {
    return this.#chain && inspectCertificate(chainPem(this.#chain.chainDer.slice(0, 1))).notAfter;
  }

  /** Calls that have not ended. */
  get callCount(): number {
    return this.#calls.count;
  }

  /** What the responder showed, once it was verified. */
  get chain(): PeerChain | null {
    return this.#chain;
  }

  /** The handshake is done. */
  proven(chain: PeerChain, requestsInFlightMax: number): void {
    this.#chain = chain;
    this.#calls.limit(Math.min(requestsInFlightMax, 1024));
  }

  /** Asks the peer. */
  async call<Name extends PeerCallName | HandshakeName>(
    name: Name,
    request: PeerRequestInit<Name>,
    options: { timeoutMs?: number } = {},
  ): Promise<PeerResponseOf<Name>> {
    const method = PEER_METHODS[name];
    const timeoutMs = options.timeoutMs ?? PEER_CALL_MS;
    const late = () => new LinkLostError(this.domain, `no reply to ${name} within ${timeoutMs} ms`);
    const frame = await this.#calls.exchange(method.number, encodeMessage(method.request, request), {
      timeoutMs,
      late,
    });
    return decodeReply(method.response, frame) as PeerResponseOf<Name>;
  }

  /** Asks for a blob or a range of it; resolves when the peer has said that it is there. */
  async getBlob(request: PeerRequestInit<"peerGetBlob">): Promise<IncomingBlob> {
    if (this.#lost) throw this.#lost;
    const { number, request: schema, response } = PEER_METHODS.peerGetBlob;
    const stream = await this.#connection.openStream().catch((error) => {
      throw new LinkLostError(this.domain, messageOf(error));
    });
    try {
      await stream.write(encodeFrame(1, number, encodeMessage(schema, request)));
      const decoder = new FrameDecoder(() => FRAME_BODY_BYTES_MAX);
      const reply = decodeReply(response, await this.#firstFrame(decoder, stream));
      const [size, length] = [Number(reply.size), Number(reply.length)];
      const body = this.#blobBody(stream, decoder.takeRest(), length);
      return { size, length, body, abort: () => stream.abort() };
    } catch (error) {
      stream.abort();
      if (error instanceof QpqError) throw error;
      throw new LinkLostError(this.domain, messageOf(error));
    }
  }

  /** Ends the link; calls in flight reject. Never throws. */
  close(why = "it was closed here"): void {
    this.#fail(why);
  }

  async #readReplies(): Promise<void> {
    const decoder = new FrameDecoder(() => FRAME_BODY_BYTES_MAX);
    try {
      for (let chunk = await this.#stream.read(); chunk; chunk = await this.#stream.read()) {
        for (const decoded of decoder.push(chunk)) {
          if (decoded.kind === "frame") this.#calls.settle(decoded.frame);
        }
      }
      this.#fail("its stream ended");
    } catch (error) {
      this.#fail(messageOf(error));
    }
  }

  #fail(why: string): void {
    if (this.#lost) return;
    this.#lost = new LinkLostError(this.domain, why);
    this.#connection.close(0, "");
    this.#stream.abort();
    this.#calls.fail(this.#lost);
  }

  async #firstFrame(decoder: FrameDecoder, stream: Stream): Promise<Frame> {
    for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
      for (const decoded of decoder.push(chunk)) if (decoded.kind === "frame") return decoded.frame;
    }
    throw this.#lost ?? new LinkLostError(this.domain, "the stream of a blob ended");
  }

  async *#blobBody(stream: Stream, rest: Uint8Array, length: number): AsyncGenerator<Uint8Array> {
    let left = length;
    try {
      for (let chunk: Uint8Array | null = rest; chunk; chunk = await stream.read()) {
        const bytes = chunk.subarray(0, left);
        left -= bytes.length;
        if (bytes.length > 0) yield bytes;
        if (left === 0) return;
      }
      throw this.#lost ?? new LinkLostError(this.domain, `${left} bytes of a blob are missing`);
    } finally {
      stream.abort();
    }
  }
}

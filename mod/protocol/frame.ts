/**
 * Frames on a stream, in both directions. Owns the header and its limits, not the bodies.
 *
 *   offset  size  field
 *   0       4     length of all that follows, big endian: 6 + body
 *   4       4     request id, big endian: chosen by the client, not 0; replies and pushes repeat it
 *   8       2     code, big endian: in a request the method's number; in a reply 0, or the error's number
 *   10      ...   body: a Protocol Buffers message (see methods.ts); an ErrorResponse when the code is an error
 *
 * FIN never ends a frame: only its length does.
 */
import { type Bytes } from "../base/bytes.ts";

/** Bytes before the body. */
export const FRAME_HEADER_BYTES = 10;
/** Largest body of any frame: an Enqueue or Fetch of 4 MiB of payload, and room for what surrounds it. */
export const FRAME_BODY_BYTES_MAX = (4 << 20) + (256 << 10);
/** Code of a reply that is no error. */
export const CODE_OK = 0;

/** One frame. The body may be a view of the buffer it was read from: copy what is kept. */
export interface Frame {
  readonly requestId: number;
  readonly code: number;
  readonly body: Uint8Array;
}

/** A frame whose body was larger than allowed; its body was skipped. */
export interface OversizedFrame {
  readonly requestId: number;
  readonly code: number;
  readonly bodyBytes: number;
}

/** A length field that no frame can have: the stream cannot be understood any further. */
export class FrameError extends Error {
  override name = "FrameError";
}

/** Header and body as one byte string, ready to be written. */
export function encodeFrame(requestId: number, code: number, body: Uint8Array): Bytes {
  const frame = new Uint8Array(FRAME_HEADER_BYTES + body.length);
  const view = new DataView(frame.buffer);
  view.setUint32(0, FRAME_HEADER_BYTES - 4 + body.length);
  view.setUint32(4, requestId);
  view.setUint16(8, code);
  frame.set(body, FRAME_HEADER_BYTES);
  return frame;
}

/** What a decoder hands out. */
export type Decoded = { kind: "frame"; frame: Frame } | { kind: "oversized"; frame: OversizedFrame };

const NO_BYTES: Bytes = new Uint8Array(0);
/** Smallest buffer for an incomplete frame. */
const OWN_BYTES_MIN = 256;

/**
 * Cuts a stream of bytes into frames. `bodyBytesMax(code)` is asked as soon as the header is there, so that an
 * oversized body is never buffered: it is skipped and reported, and the stream goes on.
 *
 * What it holds between two chunks is a copy of about the size of what came of an incomplete frame: a peer that
 * sends a byte at a time must not pin a read buffer for each of them.
 *
 * ```ts
 * const decoder = new FrameDecoder(() => 65536);
 * for (const decoded of decoder.push(chunk)) handle(decoded);
 * const rest = decoder.takeRest(); // the bytes behind the last frame, when the stream turns into raw bytes
 * ```
 */
export class FrameDecoder {
  readonly #bodyBytesMax: (code: number) => number;
  /** The present chunk, or our own buffer with room behind `#end`. Bytes before `#start` belong to frames. */
  #buffer: Uint8Array = NO_BYTES;
  #start = 0;
  #end = 0;
  #own = false;
  /** Bytes of an oversized body that are still to come. */
  #skip = 0;

  constructor(bodyBytesMax: (code: number) => number) {
    this.#bodyBytesMax = bodyBytesMax;
  }

  /** Bytes held for a frame that is not complete. */
  get bufferedBytes(): number {
    return this.#end - this.#start;
  }

  /**
   * The frames that `chunk` completes, as they are asked for: stop iterating to leave the rest untouched for
   * {@link takeRest}. Throws FrameError for a length no frame can have. The chunk is given away: bodies and the
   * rest may be views of it.
   */
  *push(chunk: Uint8Array): Generator<Decoded, void, void> {
    this.#append(chunk);
    for (let decoded = this.#next(); decoded; decoded = this.#next()) yield decoded;
    if (!this.#own) this.#keep(this.bufferedBytes);
  }

  /** The bytes behind the last frame; the decoder is empty afterwards. */
  takeRest(): Uint8Array {
    return this.#take(this.bufferedBytes);
  }

  /** The next frame in the buffer; null when it is not complete. */
  #next(): Decoded | null {
    this.#dropSkipped();
    if (this.bufferedBytes < FRAME_HEADER_BYTES) return null;
    const view = new DataView(this.#buffer.buffer, this.#buffer.byteOffset + this.#start, FRAME_HEADER_BYTES);
    const bodyBytes = view.getUint32(0) - (FRAME_HEADER_BYTES - 4);
    if (bodyBytes < 0 || bodyBytes > FRAME_BODY_BYTES_MAX) {
      throw new FrameError(
        `Cannot read a frame as its body must be 0..${FRAME_BODY_BYTES_MAX}: ${bodyBytes}`,
      );
    }
    const requestId = view.getUint32(4);
    const code = view.getUint16(8);
    if (bodyBytes > this.#bodyBytesMax(code)) {
      this.#take(FRAME_HEADER_BYTES);
      this.#skip = bodyBytes;
      return { kind: "oversized", frame: { requestId, code, bodyBytes } };
    }
    if (this.bufferedBytes < FRAME_HEADER_BYTES + bodyBytes) return null;
    const body = this.#take(FRAME_HEADER_BYTES + bodyBytes).subarray(FRAME_HEADER_BYTES);
    return { kind: "frame", frame: { requestId, code, body } };
  }

  #dropSkipped(): void {
    this.#skip -= this.#take(Math.min(this.#skip, this.bufferedBytes)).length;
  }

  #append(chunk: Uint8Array): void {
    if (this.bufferedBytes === 0) {
      this.#buffer = chunk;
      this.#start = 0;
      this.#end = chunk.length;
      this.#own = false;
      return;
    }
    const length = this.bufferedBytes + chunk.length;
    // Doubled, so that a frame in many small chunks is copied a few times and not once for each of them.
    if (!this.#own || this.#end + chunk.length > this.#buffer.length) {
      this.#keep(Math.max(length, 2 * this.bufferedBytes));
    }
    this.#buffer.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /** Moves what is left into a buffer of our own with room for `capacity` bytes. */
  #keep(capacity: number): void {
    const rest = this.#buffer.subarray(this.#start, this.#end);
    this.#own = rest.length > 0;
    this.#buffer = this.#own ? new Uint8Array(Math.max(capacity, OWN_BYTES_MIN)) : NO_BYTES;
    this.#buffer.set(rest);
    this.#start = 0;
    this.#end = rest.length;
  }

  /** The next `count` bytes. A buffer is never written before its end, so that they stay as they are. */
  #take(count: number): Uint8Array {
    const taken = this.#buffer.subarray(this.#start, this.#start + count);
    this.#start += count;
    return taken;
  }
}

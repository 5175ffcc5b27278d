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

/**
 * Cuts a stream of bytes into frames. `bodyBytesMax(code)` is asked as soon as the header is there, so that an
 * oversized body is never buffered: it is skipped and reported, and the stream goes on.
 *
 * ```ts
 * const decoder = new FrameDecoder(() => 65536);
 * for (const decoded of decoder.push(chunk)) handle(decoded);
 * const rest = decoder.takeRest(); // the bytes behind the last frame, when the stream turns into raw bytes
 * ```
 */
export class FrameDecoder {
  readonly #bodyBytesMax: (code: number) => number;
  #chunks: Uint8Array[] = [];
  #buffered = 0;
  #skip = 0;

  constructor(bodyBytesMax: (code: number) => number) {
    this.#bodyBytesMax = bodyBytesMax;
  }

  /** Bytes held for a frame that is not complete. */
  get bufferedBytes(): number {
    return this.#buffered;
  }

  /**
   * The frames that `chunk` completes, as they are asked for: stop iterating to leave the rest untouched for
   * {@link takeRest}. Throws FrameError for a length no frame can have. The chunk is kept, not copied.
   */
  *push(chunk: Uint8Array): Generator<Decoded, void, void> {
    if (chunk.length > 0) {
      this.#chunks.push(chunk);
      this.#buffered += chunk.length;
    }
    while (true) {
      if (this.#skip > 0) {
        this.#skip -= this.#drop(Math.min(this.#skip, this.#buffered));
        if (this.#skip > 0) return;
      }
      if (this.#buffered < FRAME_HEADER_BYTES) return;
      const head = this.#peek(FRAME_HEADER_BYTES);
      const view = new DataView(head.buffer, head.byteOffset, FRAME_HEADER_BYTES);
      const bodyBytes = view.getUint32(0) - (FRAME_HEADER_BYTES - 4);
      if (bodyBytes < 0 || bodyBytes > FRAME_BODY_BYTES_MAX) {
        throw new FrameError(
          `Cannot read a frame as its body must be 0..${FRAME_BODY_BYTES_MAX}: ${bodyBytes}`,
        );
      }
      const requestId = view.getUint32(4);
      const code = view.getUint16(8);
      if (bodyBytes > this.#bodyBytesMax(code)) {
        this.#drop(FRAME_HEADER_BYTES);
        this.#skip = bodyBytes;
        yield { kind: "oversized", frame: { requestId, code, bodyBytes } };
        continue;
      }
      if (this.#buffered < FRAME_HEADER_BYTES + bodyBytes) return;
      const whole = this.#take(FRAME_HEADER_BYTES + bodyBytes);
      yield { kind: "frame", frame: { requestId, code, body: whole.subarray(FRAME_HEADER_BYTES) } };
    }
  }

  /** The bytes behind the last frame; the decoder is empty afterwards. */
  takeRest(): Uint8Array {
    return this.#take(this.#buffered);
  }

  #drop(count: number): number {
    let left = count;
    while (left > 0) {
      const first = this.#chunks[0]!;
      if (first.length > left) {
        this.#chunks[0] = first.subarray(left);
        left = 0;
      } else {
        left -= first.length;
        this.#chunks.shift();
      }
    }
    this.#buffered -= count;
    return count;
  }

  /** The first `count` bytes as one view; joins chunks only when they straddle. */
  #peek(count: number): Uint8Array {
    const first = this.#chunks[0];
    if (first && first.length >= count) return first;
    const joined = new Uint8Array(count);
    let offset = 0;
    for (const chunk of this.#chunks) {
      joined.set(chunk.subarray(0, count - offset), offset);
      offset += Math.min(chunk.length, count - offset);
      if (offset === count) break;
    }
    return joined;
  }

  #take(count: number): Uint8Array {
    if (count === 0) return new Uint8Array(0);
    const taken = this.#peek(count).subarray(0, count);
    this.#drop(count);
    return taken;
  }
}

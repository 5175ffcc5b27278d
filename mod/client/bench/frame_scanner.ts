/**
 * Frames of a stream for a load generator: {@link FrameDecoder} without its generators, objects and bounds, as it
 * only reads what a server sends in answer to it. Frames are small here: one that is cut is joined by copying.
 */
import { concat } from "../../base/bytes.ts";
import { FRAME_HEADER_BYTES } from "../../protocol/frame.ts";

/** Told of a frame; `body` is a view that is good until it returns. */
export type OnFrame = (requestId: number, code: number, body: Uint8Array) => void;

/** Cuts one stream. */
export class FrameScanner {
  readonly #onFrame: OnFrame;
  #rest: Uint8Array | null = null;

  constructor(onFrame: OnFrame) {
    this.#onFrame = onFrame;
  }

  /** Tells of the frames that `chunk` completes. */
  push(chunk: Uint8Array): void {
    const bytes = this.#rest ? concat(this.#rest, chunk) : chunk;
    let at = 0;
    while (at + FRAME_HEADER_BYTES <= bytes.length) {
      const end = at + 4 + uint32(bytes, at);
      if (end > bytes.length) break;
      const code = bytes[at + 8]! << 8 | bytes[at + 9]!;
      this.#onFrame(uint32(bytes, at + 4), code, bytes.subarray(at + FRAME_HEADER_BYTES, end));
      at = end;
    }
    this.#rest = at < bytes.length ? bytes.subarray(at) : null;
  }
}

function uint32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!) >>> 0;
}

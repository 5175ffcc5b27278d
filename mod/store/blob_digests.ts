/**
 * Digests of the chunks of blobs that were once read whole and found to be what their name says: each chunk is
 * compared when it is read again, so that no damaged byte is ever served, and a part of a large blob costs a part.
 * In memory, bounded, the least recently used go first.
 */
import { createHash } from "node:crypto";
import { type Bytes, equal } from "../base/bytes.ts";
import type { BlobHash } from "../base/ids.ts";

/** Blobs are read and compared in chunks of so many bytes, from multiples of it. */
export const CHUNK_BYTES = 128 * 1024;
const DIGEST_BYTES = 16;
/** Digests of 32 GiB of blobs. */
const KNOWN_BYTES_MAX = 4 * 2 ** 20;

/** What is known of a blob's chunks. */
export class ChunkDigests {
  readonly #digests: Bytes;

  constructor(digests: Bytes) {
    this.#digests = digests;
  }

  /** Bytes in memory. */
  get bytes(): number {
    return this.#digests.length;
  }

  /** Is this the blob's chunk of that number? */
  fits(chunk: Uint8Array, number: number): boolean {
    const known = this.#digests.subarray(number * DIGEST_BYTES, (number + 1) * DIGEST_BYTES);
    return equal(known, digestOf(chunk));
  }
}

/** Digests of the chunks of a blob, all in their order; null when they are not what `hash` says. */
export async function learnDigests(
  hash: BlobHash,
  chunks: AsyncIterable<Uint8Array>,
): Promise<ChunkDigests | null> {
  const whole = createHash("sha256");
  const digests: Bytes[] = [];
  for await (const chunk of chunks) {
    whole.update(chunk);
    digests.push(digestOf(chunk));
  }
  if (whole.digest("hex") !== hash) return null;
  const joined = new Uint8Array(digests.length * DIGEST_BYTES);
  digests.forEach((digest, number) => joined.set(digest, number * DIGEST_BYTES));
  return new ChunkDigests(joined);
}

function digestOf(chunk: Uint8Array): Bytes {
  return new Uint8Array(createHash("sha256").update(chunk).digest().subarray(0, DIGEST_BYTES));
}

/** The digests that are known. */
export class KnownDigests {
  readonly #known = new Map<BlobHash, ChunkDigests>();
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(bytesMax = KNOWN_BYTES_MAX) {
    this.#bytesMax = bytesMax;
  }

  get(hash: BlobHash): ChunkDigests | undefined {
    const digests = this.#known.get(hash);
    if (!digests) return undefined;
    this.#known.delete(hash);
    this.#known.set(hash, digests);
    return digests;
  }

  set(hash: BlobHash, digests: ChunkDigests): void {
    this.delete(hash);
    this.#known.set(hash, digests);
    this.#bytes += digests.bytes;
    for (const oldest of this.#known.keys()) {
      if (this.#bytes <= this.#bytesMax) break;
      this.delete(oldest);
    }
  }

  delete(hash: BlobHash): void {
    this.#bytes -= this.#known.get(hash)?.bytes ?? 0;
    this.#known.delete(hash);
  }
}

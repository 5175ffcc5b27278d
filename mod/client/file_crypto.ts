/**
 * Files as blobs: encrypted in chunks, so that a part can be read and verified alone, and nothing can be cut off,
 * repeated or reordered (the STREAM construction). Each file has a random key of its own.
 *
 *   chunk i of n: AES-256-GCM(key, nonce, plaintext of chunkBytes, the last one 0..chunkBytes) with tag (16)
 *   nonce: 0 (7) ‖ i (4, big endian) ‖ 1 for the last chunk, else 0 (1)
 *   associated data: "qpq/1 file" ‖ chunkBytes (4, big endian)
 */
import { createHash } from "node:crypto";
import { dirname } from "node:path";
import { type Bytes, concat, copy, randomBytes, utf8 } from "../base/bytes.ts";
import { exists } from "../base/files.ts";

/** Plaintext bytes in a chunk of the files that this program makes. */
export const FILE_CHUNK_BYTES = 256 << 10;
const TAG_BYTES = 16;
const CHUNKS_MAX = 2 ** 32;

/** A file whose ciphertext is not what it should be. */
export class FileCryptoError extends Error {
  override name = "FileCryptoError";
}

/** How a file is encrypted. */
export interface FileCipher {
  /** 32 bytes, used for this file only. */
  readonly key: Uint8Array;
  readonly chunkBytes: number;
}

/** A cipher for a new file, with a new random key. */
export function newFileCipher(chunkBytes: number = FILE_CHUNK_BYTES): { key: Bytes; chunkBytes: number } {
  return { key: randomBytes(32), chunkBytes };
}

function chunkCount(size: number, chunkBytes: number): number {
  return Math.max(1, Math.ceil(size / chunkBytes));
}

/** Bytes of the ciphertext of a file with `size` bytes. */
export function sealedBytes(size: number, chunkBytes: number = FILE_CHUNK_BYTES): number {
  return size + TAG_BYTES * chunkCount(size, chunkBytes);
}

/** Opens and seals single chunks. */
class ChunkCipher {
  readonly #key: CryptoKey;
  readonly #context: Bytes;

  private constructor(key: CryptoKey, context: Bytes) {
    this.#key = key;
    this.#context = context;
  }

  static async of({ key, chunkBytes }: FileCipher): Promise<ChunkCipher> {
    if (!(Number.isInteger(chunkBytes) && chunkBytes > 0 && chunkBytes < 2 ** 31)) {
      throw new RangeError(`Cannot use chunks of ${chunkBytes} bytes`);
    }
    const imported = await crypto.subtle.importKey("raw", copy(key), "AES-GCM", false, [
      "encrypt",
      "decrypt",
    ]);
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, chunkBytes);
    return new ChunkCipher(imported, concat(utf8("qpq/1 file"), length));
  }

  #parameters(index: number, place: Place) {
    if (index >= CHUNKS_MAX) throw new RangeError("Cannot use more than 2^32 chunks in a file");
    const iv = new Uint8Array(12);
    new DataView(iv.buffer).setUint32(7, index);
    iv[11] = place === "last" ? 1 : 0;
    return { name: "AES-GCM", iv, additionalData: this.#context, tagLength: 8 * TAG_BYTES };
  }

  async seal(plaintext: Bytes, at: { index: number; place: Place }): Promise<Bytes> {
    const parameters = this.#parameters(at.index, at.place);
    return new Uint8Array(await crypto.subtle.encrypt(parameters, this.#key, plaintext));
  }

  async open(ciphertext: Bytes, at: { index: number; place: Place }): Promise<Bytes> {
    try {
      const parameters = this.#parameters(at.index, at.place);
      return new Uint8Array(await crypto.subtle.decrypt(parameters, this.#key, ciphertext));
    } catch (cause) {
      throw new FileCryptoError(`Cannot open chunk ${at.index} of the file as it was changed`, { cause });
    }
  }
}

type Place = "inner" | "last";

/** Cuts a stream into pieces of `pieceBytes`; the last one, which may be empty only if it is the only one, is marked. */
async function* pieces(
  source: AsyncIterable<Uint8Array>,
  pieceBytes: number,
): AsyncGenerator<{ piece: Bytes; index: number; place: Place }> {
  let buffer = new Uint8Array(pieceBytes);
  let filled = 0;
  let index = 0;
  for await (const chunk of source) {
    for (let offset = 0; offset < chunk.length;) {
      if (filled === pieceBytes) { // more bytes follow, so this piece is not the last
        yield { piece: buffer, index: index++, place: "inner" };
        buffer = new Uint8Array(pieceBytes);
        filled = 0;
      }
      const part = chunk.subarray(offset, offset + pieceBytes - filled);
      buffer.set(part, filled);
      filled += part.length;
      offset += part.length;
    }
  }
  yield { piece: buffer.subarray(0, filled), index, place: "last" };
}

/** Encrypts a stream; one chunk of ciphertext at a time. */
export async function* encryptFile(
  source: AsyncIterable<Uint8Array>,
  cipher: FileCipher,
): AsyncGenerator<Bytes, void, void> {
  const chunks = await ChunkCipher.of(cipher);
  for await (const { piece, index, place } of pieces(source, cipher.chunkBytes)) {
    yield await chunks.seal(piece, { index, place });
  }
}

/**
 * Decrypts a whole ciphertext; each chunk is verified before it is handed out. Throws FileCryptoError at the first
 * that is wrong, and when the stream ends too early or too late for a file of `size` bytes.
 */
export async function* decryptFile(
  source: AsyncIterable<Uint8Array>,
  cipher: FileCipher & { size: number },
): AsyncGenerator<Bytes, void, void> {
  yield* decryptChunks(source, {
    ...cipher,
    firstChunk: 0,
    chunks: chunkCount(cipher.size, cipher.chunkBytes),
  });
}

/** The part of a ciphertext to fetch for a part of the file. */
export interface FileRange {
  readonly ciphertextOffset: number;
  readonly ciphertextBytes: number;
  readonly firstChunk: number;
  readonly chunks: number;
  /** Plaintext bytes to drop from the beginning of what is decrypted. */
  readonly skipBytes: number;
  /** Plaintext bytes wanted behind those. */
  readonly bytes: number;
}

/** Which chunks hold the plaintext bytes offset..offset+length of a file. */
export function fileRange(
  file: { size: number; chunkBytes: number },
  wanted: { offset: number; length: number },
): FileRange {
  const { size, chunkBytes } = file;
  const { offset, length } = wanted;
  if (!(offset >= 0 && length > 0 && offset + length <= size)) {
    throw new RangeError(`Cannot read ${length} bytes at ${offset} of a file of ${size} bytes`);
  }
  const firstChunk = Math.floor(offset / chunkBytes);
  const chunks = Math.floor((offset + length - 1) / chunkBytes) - firstChunk + 1;
  const ciphertextOffset = firstChunk * (chunkBytes + TAG_BYTES);
  const end = Math.min((firstChunk + chunks) * (chunkBytes + TAG_BYTES), sealedBytes(size, chunkBytes));
  return {
    ciphertextOffset,
    ciphertextBytes: end - ciphertextOffset,
    firstChunk,
    chunks,
    skipBytes: offset - firstChunk * chunkBytes,
    bytes: length,
  };
}

/** Decrypts the chunks of a {@link fileRange} and hands out just the bytes wanted. */
export async function* decryptRange(
  source: AsyncIterable<Uint8Array>,
  options: { cipher: FileCipher & { size: number }; range: FileRange },
): AsyncGenerator<Bytes, void, void> {
  const { cipher, range } = options;
  let skip = range.skipBytes;
  let left = range.bytes;
  for await (const chunk of decryptChunks(source, { ...cipher, ...range })) {
    const part = chunk.subarray(skip, skip + left);
    skip = 0;
    left -= part.length;
    if (part.length > 0) yield part;
  }
}

async function* decryptChunks(
  source: AsyncIterable<Uint8Array>,
  options: FileCipher & { size: number; firstChunk: number; chunks: number },
): AsyncGenerator<Bytes, void, void> {
  const { size, chunkBytes, firstChunk, chunks } = options;
  const cipher = await ChunkCipher.of(options);
  const total = chunkCount(size, chunkBytes);
  let seen = 0;
  for await (const { piece, index } of pieces(source, chunkBytes + TAG_BYTES)) {
    const number = firstChunk + index;
    if (++seen > chunks) throw new FileCryptoError("Cannot open the file as it is longer than announced");
    const place = number === total - 1 ? "last" : "inner";
    const plaintext = await cipher.open(piece, { index: number, place });
    const expected = place === "last" ? size - number * chunkBytes : chunkBytes;
    if (plaintext.length !== expected) {
      throw new FileCryptoError("Cannot open the file as its size is not as announced");
    }
    if (plaintext.length > 0) yield plaintext;
  }
  if (seen < chunks) throw new FileCryptoError("Cannot open the file as its end is missing");
}

/** What {@link encryptFileTo} wrote. */
export interface SealedFile {
  readonly sha256: Bytes;
  /** Plaintext bytes. */
  readonly size: number;
  readonly ciphertextBytes: number;
}

/** Encrypts a stream into the new file `path` and takes its hash on the way. Removes the file when it fails. */
export async function encryptFileTo(
  path: string,
  source: AsyncIterable<Uint8Array>,
  cipher: FileCipher,
): Promise<SealedFile> {
  const hash = createHash("sha256");
  let size = 0;
  let ciphertextBytes = 0;
  async function* counted() {
    for await (const chunk of source) {
      size += chunk.length;
      yield chunk;
    }
  }
  await writeNewFile(path, async (write) => {
    for await (const chunk of encryptFile(counted(), cipher)) {
      hash.update(chunk);
      ciphertextBytes += chunk.length;
      await write(chunk);
    }
  });
  return { sha256: new Uint8Array(hash.digest()), size, ciphertextBytes };
}

/**
 * Decrypts into `path` by way of a temporary file beside it: what appears under `path` is the whole file, verified.
 * Refuses to replace a file that is there (Deno.errors.AlreadyExists).
 */
export async function decryptFileTo(
  path: string,
  source: AsyncIterable<Uint8Array>,
  cipher: FileCipher & { size: number; onProgress?: (bytes: number) => void },
): Promise<void> {
  await refuseExisting(path);
  if (!await exists(dirname(path))) {
    throw new Deno.errors.NotFound(`Cannot write ${path} as its folder does not exist`);
  }
  const temporary = `${path}.${randomBytes(4).toHex()}.part`;
  let bytes = 0;
  await writeNewFile(temporary, async (write) => {
    for await (const chunk of decryptFile(source, cipher)) {
      await write(chunk);
      bytes += chunk.length;
      cipher.onProgress?.(bytes);
    }
  });
  try {
    await refuseExisting(path); // it may have come meanwhile
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary);
    throw error;
  }
}

async function refuseExisting(path: string): Promise<void> {
  if (await exists(path)) throw new Deno.errors.AlreadyExists(`Cannot write ${path} as it exists`);
}

async function writeNewFile(
  path: string,
  fill: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  const file = await Deno.open(path, { write: true, createNew: true, mode: 0o600 });
  try {
    await fill(async (bytes) => {
      for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
    });
    await file.sync();
  } catch (error) {
    file.close();
    await Deno.remove(path);
    throw error;
  }
  file.close();
}

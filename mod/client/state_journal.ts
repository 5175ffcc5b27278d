/**
 * The file behind a client's state: an encrypted journal. One frame is one transaction; it is there as a whole or
 * not at all. The journal is rewritten with what is still alive when most of it is not.
 *
 *   header: "QPQSTATE" (8) ‖ version (2) ‖ file id (16, random)
 *   frame:  length of the rest (4) ‖ its complement (4) ‖ nonce (24) ‖ XChaCha20-Poly1305 ciphertext with tag
 *           associated data: header ‖ number of the frame (8), so that frames cannot be moved, dropped or repeated
 *
 * A crash can cut the last frame short; it is then dropped, since its transaction was never reported as done.
 */
import { dirname } from "node:path";
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { type Bytes, concat, equal, randomBytes, utf8 } from "../base/bytes.ts";
import { syncFolder } from "../base/files.ts";
import { checkPermissions, StateError } from "./state_error.ts";

const MAGIC = utf8("QPQSTATE");
const VERSION = 1;
const HEADER_BYTES = 8 + 2 + 16;
const PREFIX_BYTES = 8;
const NONCE_BYTES = 24;
const TAG_BYTES = 16;
/** Largest transaction: far above one message, so that a damaged length is told from a large frame. */
const FRAME_BYTES_MAX = 256 << 20;

/** An open journal. Writes must not overlap: the caller queues them. */
export class StateJournal {
  readonly path: string;
  readonly #key: Bytes;
  #file: Deno.FsFile;
  #header: Bytes;
  #frames: number;
  #bytes: number;
  #broken = false;

  private constructor(path: string, options: { key: Bytes; file: Deno.FsFile; header: Bytes }) {
    this.path = path;
    this.#key = options.key;
    this.#file = options.file;
    this.#header = options.header;
    this.#frames = 0;
    this.#bytes = HEADER_BYTES;
  }

  /** Bytes in the file. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Makes an empty journal; durable when it resolves. */
  static async create(path: string, key: Bytes): Promise<StateJournal> {
    const temporary = `${path}.new`;
    const { file, header } = await writeNew(temporary, key, []);
    await Deno.rename(temporary, path);
    await syncFolder(dirname(path));
    return new StateJournal(path, { key, file, header });
  }

  /**
   * Opens a journal and hands every transaction to `replay` in order. Throws StateError `damaged`, `newerVersion`
   * or `permissions`; only a frame that a crash cut off at the very end is dropped.
   */
  static async open(
    path: string,
    options: { key: Bytes; replay: (frame: Bytes) => void },
  ): Promise<StateJournal> {
    await checkPermissions(path);
    const content: Bytes = await Deno.readFile(path);
    const header = readHeader(path, content);
    const file = await Deno.open(path, { read: true, write: true });
    try {
      const journal = new StateJournal(path, { key: options.key, file, header });
      await journal.#replay(content, options.replay);
      return journal;
    } catch (error) {
      file.close();
      throw error;
    }
  }

  async #replay(content: Bytes, replay: (frame: Bytes) => void): Promise<void> {
    while (this.#bytes < content.length) {
      const rest = content.subarray(this.#bytes);
      const length = frameLength(rest);
      if (length === "torn") {
        await this.#cut();
        return;
      }
      if (length === "damaged") throw this.#damaged();
      const sealed = rest.subarray(PREFIX_BYTES, PREFIX_BYTES + length);
      let frame: Bytes;
      try {
        frame = open(sealed, { key: this.#key, context: frameContext(this.#header, this.#frames) });
      } catch (cause) {
        // Some file systems grow a file before they fill it: the end of an unfinished write is then zeros.
        const isLast = this.#bytes + PREFIX_BYTES + length === content.length;
        if (!isLast || sealed.subarray(-TAG_BYTES).some((byte) => byte !== 0)) throw this.#damaged(cause);
        await this.#cut();
        return;
      }
      replay(frame);
      this.#frames++;
      this.#bytes += PREFIX_BYTES + length;
    }
  }

  #damaged(cause?: unknown): StateError {
    const where = `${this.path} at byte ${this.#bytes}`;
    return new StateError("damaged", `Cannot read ${where} as it is damaged or its key is another`, {
      cause,
    });
  }

  async #cut(): Promise<void> {
    await this.#file.truncate(this.#bytes);
    await this.#file.sync();
  }

  /** Appends one transaction; it is on disk when this resolves. After a failure the journal is as before. */
  async append(frame: Uint8Array): Promise<void> {
    if (this.#broken) {
      throw new StateError("closed", `Cannot write ${this.path} after a failed write: restart`);
    }
    const sealed = seal(frame, { key: this.#key, context: frameContext(this.#header, this.#frames) });
    try {
      await this.#file.seek(this.#bytes, Deno.SeekMode.Start);
      await writeAll(this.#file, sealed);
      await this.#file.syncData();
    } catch (cause) {
      await this.#cut().catch(() => {
        this.#broken = true;
      });
      throw notWritable(this.path, cause);
    }
    this.#frames++;
    this.#bytes += sealed.length;
  }

  /** Replaces the whole content by `frames`, at once or not at all. */
  async rewrite(frames: Iterable<Uint8Array>): Promise<void> {
    const temporary = `${this.path}.new`;
    const { file, header, count, bytes } = await writeNew(temporary, this.#key, frames);
    try {
      await Deno.rename(temporary, this.path);
      await syncFolder(dirname(this.path));
    } catch (cause) {
      file.close();
      this.#broken = true; // which of the two files a crash would leave is unknown: write to neither
      throw notWritable(this.path, cause);
    }
    this.#file.close();
    this.#file = file;
    this.#header = header;
    this.#frames = count;
    this.#bytes = bytes;
  }

  /** Closes the file. */
  close(): void {
    this.#broken = true;
    this.#file.close();
  }
}

function notWritable(path: string, cause: unknown): StateError {
  const detail = cause instanceof Error ? cause.message : String(cause);
  return new StateError("notWritable", `Cannot write ${path}: ${detail}`, { cause });
}

function readHeader(path: string, content: Bytes): Bytes {
  if (content.length < HEADER_BYTES || !equal(content.subarray(0, MAGIC.length), MAGIC)) {
    throw new StateError("damaged", `Cannot read ${path} as it is not a client state or is damaged`);
  }
  const version = new DataView(content.buffer, content.byteOffset).getUint16(MAGIC.length);
  if (version > VERSION) {
    throw new StateError(
      "newerVersion",
      `Cannot read ${path} as a newer version wrote it: update this program`,
    );
  }
  return content.slice(0, HEADER_BYTES);
}

/** Length of the sealed part of the frame that `rest` begins with. */
function frameLength(rest: Bytes): number | "torn" | "damaged" {
  if (rest.length < PREFIX_BYTES) return "torn";
  const view = new DataView(rest.buffer, rest.byteOffset);
  const length = view.getUint32(0);
  const isIntact = (length ^ view.getUint32(4)) === -1;
  if (!isIntact) return rest.every((byte) => byte === 0) ? "torn" : "damaged";
  if (length < NONCE_BYTES + TAG_BYTES || length > FRAME_BYTES_MAX) return "damaged";
  return PREFIX_BYTES + length > rest.length ? "torn" : length;
}

function frameContext(header: Bytes, number: number): Bytes {
  const context = new Uint8Array(HEADER_BYTES + 8);
  context.set(header);
  new DataView(context.buffer).setBigUint64(HEADER_BYTES, BigInt(number));
  return context;
}

function seal(frame: Uint8Array, options: { key: Bytes; context: Bytes }): Bytes {
  const nonce = randomBytes(NONCE_BYTES);
  const sealed = xchacha20poly1305(options.key, nonce, options.context).encrypt(frame);
  const length = NONCE_BYTES + sealed.length;
  if (length > FRAME_BYTES_MAX) {
    throw new RangeError(`Cannot save more than ${FRAME_BYTES_MAX} bytes at once: ${length}`);
  }
  const prefix = new Uint8Array(PREFIX_BYTES);
  const view = new DataView(prefix.buffer);
  view.setUint32(0, length);
  view.setUint32(4, ~length);
  return concat(prefix, nonce, sealed);
}

function open(sealed: Uint8Array, options: { key: Bytes; context: Bytes }): Bytes {
  const cipher = xchacha20poly1305(options.key, sealed.subarray(0, NONCE_BYTES), options.context);
  return new Uint8Array(cipher.decrypt(sealed.subarray(NONCE_BYTES)));
}

async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
}

/** A new file with a header and `frames`, synced, still open. */
async function writeNew(path: string, key: Bytes, frames: Iterable<Uint8Array>) {
  const head = new Uint8Array(2);
  new DataView(head.buffer).setUint16(0, VERSION);
  const header = concat(MAGIC, head, randomBytes(16));
  const options = { read: true, write: true, create: true, truncate: true, mode: 0o600 };
  let file: Deno.FsFile | undefined;
  try {
    file = await Deno.open(path, options);
    await writeAll(file, header);
    let count = 0;
    let bytes = HEADER_BYTES;
    for (const frame of frames) {
      const sealed = seal(frame, { key, context: frameContext(header, count) });
      await writeAll(file, sealed);
      count++;
      bytes += sealed.length;
    }
    await file.sync();
    await syncFolder(dirname(path));
    return { file, header, count, bytes };
  } catch (cause) {
    file?.close();
    if (file) await Deno.remove(path);
    throw notWritable(path, cause);
  }
}

/** Reads the records of a file in order, and looks for records behind a damaged one. */
import { Buffer } from "node:buffer";
import type { Bytes } from "../../base/bytes.ts";
import type { DiskFile } from "./disk.ts";
import { HEADER_BYTES } from "./header.ts";
import { type OpenedRecord, RECORD_HEAD_BYTES, RECORD_MAGIC, recordLength, type Sealer } from "./record.ts";

const WINDOW_BYTES = 1024 * 1024;

/** Walks over a file. */
export class RecordReader {
  readonly #file: DiskFile;
  readonly #sealer: Sealer;
  readonly #size: number;
  #window: Bytes = new Uint8Array(0);
  #windowOffset = 0;
  #offset = HEADER_BYTES;

  private constructor(file: DiskFile, sealer: Sealer, size: number) {
    this.#file = file;
    this.#sealer = sealer;
    this.#size = size;
  }

  /** A reader before the first record. */
  static async begin(file: DiskFile, sealer: Sealer): Promise<RecordReader> {
    return new RecordReader(file, sealer, await file.size());
  }

  /** Where the next record lies. */
  get offset(): number {
    return this.#offset;
  }

  get atEnd(): boolean {
    return this.#offset >= this.#size;
  }

  /** The next record; null, without moving, when what lies there is none. */
  async next(): Promise<OpenedRecord | null> {
    const head = await this.#bytes(RECORD_HEAD_BYTES);
    const length = head && this.#sealer.plausible(head) ? recordLength(head) : null;
    const bytes = length === null ? null : await this.#bytes(length);
    const record = bytes && this.#sealer.open(bytes);
    if (record?.offset !== this.#offset) return null;
    this.#offset += record.length;
    return record;
  }

  async #bytes(length: number): Promise<Bytes | null> {
    if (this.#offset + length > this.#size) return null;
    const from = this.#offset - this.#windowOffset;
    if (from + length <= this.#window.length) return this.#window.subarray(from, from + length);
    this.#window = await this.#file.read(this.#offset, Math.max(length, WINDOW_BYTES));
    this.#windowOffset = this.#offset;
    return this.#window.length < length ? null : this.#window.subarray(0, length);
  }
}

/**
 * Looks in `bytes`, which lie at `offset`, for what an incomplete write of batch `batch` cannot have left: a record
 * of a later batch, or of this one at another place than it was written to.
 */
export function hasLaterRecord(
  bytes: Bytes,
  sealer: Sealer,
  { offset, batch }: { offset: number; batch: number },
): boolean {
  const haystack = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = haystack.indexOf(RECORD_MAGIC); at >= 0; at = haystack.indexOf(RECORD_MAGIC, at + 1)) {
    const head = bytes.subarray(at, at + RECORD_HEAD_BYTES);
    const length = sealer.plausible(head) ? recordLength(head) : null;
    const record = length === null ? null : sealer.open(bytes.subarray(at, at + length));
    if (!record) continue;
    if (record.batch > batch || (record.batch === batch && record.offset !== offset + at)) return true;
  }
  return false;
}

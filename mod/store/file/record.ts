/**
 * Records: what follows the header in every file of the journal.
 *
 *   0 magic "QREC" · 4 kind u8 · 5 zeros · 8 batch u64 · 16 offset in the file u64 · 24 body length u32 ·
 *   28 nonce (12 bytes) · 40 body · tag (16 bytes)
 *
 * Encrypted: AES-256-GCM under the file's key with a random nonce (a torn record may be written anew at the same
 * place, so a counter would repeat) and the first 28 bytes authenticated: no record can be moved, dropped from the
 * middle or pass in another file. Unencrypted: the nonce is an HMAC of those bytes, the tag an HMAC of everything;
 * they catch damage, and a sender cannot forge them without having read the file's header.
 */
import { createCipheriv, createDecipheriv, createHmac } from "node:crypto";
import { type Bytes, equal, randomBytes, utf8 } from "../../base/bytes.ts";

/** What a record holds. */
export type RecordKind = "payload" | "commit" | "rows" | "end";

/** A record that passed its check. */
export interface OpenedRecord {
  readonly kind: RecordKind;
  /** The batch that it is part of; in snapshots its place. */
  readonly batch: number;
  /** Where it was written. */
  readonly offset: number;
  readonly body: Bytes;
  /** Length of the whole record. */
  readonly length: number;
}

/** Bytes before the body. */
export const RECORD_HEAD_BYTES = 40;
/** Bytes of a record beside its body. */
export const RECORD_EXTRA_BYTES = RECORD_HEAD_BYTES + 16;
/** Largest body that is written or believed. */
export const RECORD_BODY_BYTES_MAX = 64 * 2 ** 20;
/** First bytes of a record. */
export const RECORD_MAGIC = utf8("QREC");

const KINDS: readonly RecordKind[] = ["payload", "commit", "rows", "end"];
const CLEAR_BYTES = 28;
const TAG_BYTES = 16;

/** Whole length of the record whose first {@link RECORD_HEAD_BYTES} these are; null when it is no record. */
export function recordLength(head: Uint8Array): number | null {
  if (head.length < RECORD_HEAD_BYTES || !equal(head.subarray(0, 4), RECORD_MAGIC)) return null;
  const bodyLength = new DataView(head.buffer, head.byteOffset).getUint32(24);
  return bodyLength > RECORD_BODY_BYTES_MAX ? null : bodyLength + RECORD_EXTRA_BYTES;
}

/** Seals and opens the records of one file. */
export class Sealer {
  readonly #fileKey: Bytes;
  readonly #encrypted: boolean;

  constructor(fileKey: Bytes, protection: "encrypted" | "checksummed") {
    this.#fileKey = fileKey;
    this.#encrypted = protection === "encrypted";
  }

  /** The record to be written at `offset`. */
  seal(kind: RecordKind, body: Uint8Array, { batch, offset }: { batch: number; offset: number }): Bytes {
    if (body.length > RECORD_BODY_BYTES_MAX) {
      throw new RangeError(`Record of ${body.length} bytes is too large`);
    }
    const record = new Uint8Array(body.length + RECORD_EXTRA_BYTES);
    const view = new DataView(record.buffer);
    record.set(RECORD_MAGIC);
    record[4] = KINDS.indexOf(kind) + 1;
    view.setBigUint64(8, BigInt(batch));
    view.setBigUint64(16, BigInt(offset));
    view.setUint32(24, body.length);
    const bound = record.subarray(0, CLEAR_BYTES);
    record.set(this.#encrypted ? randomBytes(12) : this.#mac(bound).subarray(0, 12), CLEAR_BYTES);
    const tagOffset = RECORD_HEAD_BYTES + body.length;
    if (this.#encrypted) {
      const cipher = createCipheriv(
        "aes-256-gcm",
        this.#fileKey,
        record.subarray(CLEAR_BYTES, RECORD_HEAD_BYTES),
      );
      cipher.setAAD(bound);
      record.set(cipher.update(body), RECORD_HEAD_BYTES);
      cipher.final();
      record.set(cipher.getAuthTag(), tagOffset);
    } else {
      record.set(body, RECORD_HEAD_BYTES);
      record.set(this.#mac(bound, body).subarray(0, TAG_BYTES), tagOffset);
    }
    return record;
  }

  /** Can `head` begin a record? Cheap, and certain only without encryption. */
  plausible(head: Uint8Array): boolean {
    if (recordLength(head) === null) return false;
    if (this.#encrypted) return true;
    const nonce = head.subarray(CLEAR_BYTES, RECORD_HEAD_BYTES);
    return equal(nonce, this.#mac(head.subarray(0, CLEAR_BYTES)).subarray(0, 12));
  }

  /** The record that `record` is in full, wherever it was found; null when it does not pass. */
  open(record: Uint8Array): OpenedRecord | null {
    const kind = KINDS[record[4]! - 1];
    if (recordLength(record) !== record.length || !kind || !this.plausible(record)) return null;
    const body = this.#openBody(record, record.subarray(0, CLEAR_BYTES));
    const view = new DataView(record.buffer, record.byteOffset);
    const [batch, offset] = [Number(view.getBigUint64(8)), Number(view.getBigUint64(16))];
    return body && { kind, batch, offset, body, length: record.length };
  }

  #openBody(record: Uint8Array, bound: Uint8Array): Bytes | null {
    const tagOffset = record.length - TAG_BYTES;
    const sealed = record.subarray(RECORD_HEAD_BYTES, tagOffset);
    const tag = record.subarray(tagOffset);
    if (!this.#encrypted) {
      return equal(tag, this.#mac(bound, sealed).subarray(0, TAG_BYTES)) ? sealed.slice() : null;
    }
    const nonce = record.subarray(CLEAR_BYTES, RECORD_HEAD_BYTES);
    const decipher = createDecipheriv("aes-256-gcm", this.#fileKey, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(bound);
    decipher.setAuthTag(tag);
    try {
      const body = decipher.update(sealed);
      decipher.final();
      return new Uint8Array(body.buffer as ArrayBuffer, body.byteOffset, body.length);
    } catch {
      return null; // the tag does not match: the caller says what that means
    }
  }

  #mac(...parts: readonly Uint8Array[]): Bytes {
    const mac = createHmac("sha256", this.#fileKey);
    for (const part of parts) mac.update(part);
    return new Uint8Array(mac.digest());
  }
}

/**
 * The first 128 bytes of every file of the journal, and the key that opens the file.
 *
 *   0 magic "QPQJRNL\n" · 8 format version u16 · 10 kind u8 (1 segment, 2 snapshot) · 11 key u8 (0 none, 1 raw,
 *   2 passphrase) · 12 file number u32 · 16 first batch u64 · 24 store id (16 random bytes, also the salt of
 *   scrypt) · 40 file salt (32 random bytes) · 72 scrypt log2 N, r, p u8 each · 75 zeros · 96 key check (16 bytes)
 *   · 112 first 16 bytes of the SHA-256 of all before
 *
 * Numbers are big-endian. The checksum stands there in every version of the format, so damage, a wrong key and a
 * newer version can be told apart. The file's key is HKDF(store key, salt: these 128 bytes): no record of one file
 * passes in another, and no field here can be changed without making every record invalid.
 */
import { createHash, createHmac, hkdfSync, scrypt } from "node:crypto";
import { type Bytes, equal, equalConstantTime, utf8 } from "../../base/bytes.ts";
import { parseStoreKey, type StoreKey } from "../key.ts";

/** Length of a header. */
export const HEADER_BYTES = 128;
/** What this version writes; it reads all before. 2: peers, outboxes and senders from other servers. */
export const FORMAT_VERSION = 2;

/** What a file is. */
export type FileKind = "segment" | "snapshot";

/** What a header says. */
export interface FileHeader {
  readonly kind: FileKind;
  readonly keyKind: StoreKey["kind"];
  readonly fileNumber: number;
  /** The batch with which the segment begins, or up to which (not included) the snapshot needs no segment. */
  readonly firstBatch: number;
  readonly storeId: Bytes;
  readonly fileSalt: Bytes;
  readonly scryptLogN: number;
}

/** Why a header is not read. */
export type HeaderProblem = "damaged" | "newerSchema";

const MAGIC = utf8("QPQJRNL\n");
const KINDS: readonly FileKind[] = ["segment", "snapshot"];
const KEY_KINDS: readonly StoreKey["kind"][] = ["none", "raw", "passphrase"];
const CHECK_OFFSET = 96;
const SUM_OFFSET = 112;
const SCRYPT_R = 8;
const SCRYPT_P = 1;
/** Cost for new stores: 32 MiB and about 0.1 s, once at start. */
export const SCRYPT_LOG_N = 15;
const SCRYPT_LOG_N_MAX = 20;

/** The store's key: the raw key, or what scrypt makes of the passphrase. */
export type MasterKey = Bytes;

/** Writes a header. */
export function encodeHeader(header: FileHeader, masterKey: MasterKey): Bytes {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  view.setUint16(8, FORMAT_VERSION);
  bytes[10] = KINDS.indexOf(header.kind) + 1;
  bytes[11] = KEY_KINDS.indexOf(header.keyKind);
  view.setUint32(12, header.fileNumber);
  view.setBigUint64(16, BigInt(header.firstBatch));
  bytes.set(header.storeId, 24);
  bytes.set(header.fileSalt, 40);
  bytes.set([header.scryptLogN, SCRYPT_R, SCRYPT_P], 72);
  bytes.set(keyCheck(bytes, masterKey), CHECK_OFFSET);
  bytes.set(checksum(bytes), SUM_OFFSET);
  return bytes;
}

/** Reads a header, of which nothing is trusted. */
export function decodeHeader(bytes: Uint8Array): FileHeader | HeaderProblem {
  if (bytes.length < HEADER_BYTES || !equal(bytes.subarray(0, 8), MAGIC)) return "damaged";
  if (!equal(bytes.subarray(SUM_OFFSET, HEADER_BYTES), checksum(bytes))) return "damaged";
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  if (view.getUint16(8) > FORMAT_VERSION) return "newerSchema";
  const kind = KINDS[bytes[10]! - 1];
  const keyKind = KEY_KINDS[bytes[11]!];
  const firstBatch = Number(view.getBigUint64(16));
  const scryptLogN = bytes[72]!;
  if (!kind || !keyKind || !Number.isSafeInteger(firstBatch) || scryptLogN > SCRYPT_LOG_N_MAX) {
    return "damaged";
  }
  return {
    kind,
    keyKind,
    fileNumber: view.getUint32(12),
    firstBatch,
    storeId: bytes.slice(24, 40),
    fileSalt: bytes.slice(40, 72),
    scryptLogN,
  };
}

/** The format version of a file with this header. */
export function formatVersionOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES).getUint16(8);
}

/** The key that `text` means for a store with this header; null when it cannot be of that kind. */
export function masterKeyOf(
  text: string,
  header: Pick<FileHeader, "keyKind" | "storeId" | "scryptLogN">,
): Promise<MasterKey | null> {
  const key = parseStoreKey(text);
  if (key.kind !== header.keyKind) return Promise.resolve(null);
  if (key.kind === "raw") return Promise.resolve(key.key);
  if (key.kind === "none") return Promise.resolve(new Uint8Array(32));
  const cost = { N: 2 ** header.scryptLogN, r: SCRYPT_R, p: SCRYPT_P, maxmem: 2 ** (header.scryptLogN + 11) };
  return new Promise((resolve, reject) => {
    scrypt(key.passphrase, header.storeId, 32, cost, (error, derived) => {
      if (error) reject(error);
      else resolve(new Uint8Array(derived));
    });
  });
}

/** Does the key open the file with this header? */
export function keyFits(bytes: Uint8Array, masterKey: MasterKey): boolean {
  return equalConstantTime(bytes.subarray(CHECK_OFFSET, SUM_OFFSET), keyCheck(bytes, masterKey));
}

/** The key of one file. */
export function fileKeyOf(bytes: Uint8Array, masterKey: MasterKey): Bytes {
  return new Uint8Array(hkdfSync("sha256", masterKey, bytes, "qpq journal file", 32));
}

function keyCheck(bytes: Uint8Array, masterKey: MasterKey): Bytes {
  const mac = createHmac("sha256", masterKey).update("qpq journal key check");
  return new Uint8Array(mac.update(bytes.subarray(0, CHECK_OFFSET)).digest()).slice(0, 16);
}

function checksum(bytes: Uint8Array): Bytes {
  return new Uint8Array(createHash("sha256").update(bytes.subarray(0, SUM_OFFSET)).digest()).slice(0, 16);
}

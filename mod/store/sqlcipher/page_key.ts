/**
 * Which key a database is under, found without opening it: SQLite says the same of a wrong key and a damaged first
 * page, and moves a WAL into the main file even when the key was wrong. SQLCipher 4 authenticates each page with
 * HMAC-SHA512 under a key derived from the DB key and the salt in the first 16 bytes of the file. A page ends with
 * its IV (16 bytes) and tag (64); the tag covers data, IV and page number, the salt excepted.
 */
import { createHmac, pbkdf2Sync, timingSafeEqual } from "node:crypto";
import type { Bytes } from "../../base/bytes.ts";
import type { StoreKey } from "../key.ts";

/** Page size of SQLCipher 4, and ours. */
export const PAGE_BYTES = 4096;
const SALT_BYTES = 16;
const TAG_BYTES = 64;
const KEY_BYTES = 32;
/** PBKDF2 rounds of SQLCipher 4: from the passphrase, and from the key to the HMAC's key. */
const KEY_ROUNDS = 256_000;
const HMAC_ROUNDS = 2;
const SALT_MASK = 0x3a;
/** Pages that are tried: the first may be damaged, and others too. */
const PAGES_TRIED = [1, 2, 3, 5, 8, 13, 21];

/** Is some page authentic under `key`? */
export function fileIsOfKey(path: string, key: StoreKey): boolean {
  if (key.kind === "none") return false;
  const file = Deno.openSync(path);
  try {
    const salt = read(file, { at: 0, length: SALT_BYTES });
    const pageKey = key.kind === "raw"
      ? key.key
      : pbkdf2Sync(key.passphrase, salt, KEY_ROUNDS, KEY_BYTES, "sha512");
    const hmacKey = pbkdf2Sync(
      pageKey,
      salt.map((byte) => byte ^ SALT_MASK),
      HMAC_ROUNDS,
      KEY_BYTES,
      "sha512",
    );
    return PAGES_TRIED.some((number) => isAuthentic(file, { number, hmacKey }));
  } finally {
    file.close();
  }
}

function isAuthentic(
  file: Deno.FsFile,
  { number, hmacKey }: { number: number; hmacKey: Uint8Array },
): boolean {
  const page = read(file, { at: (number - 1) * PAGE_BYTES, length: PAGE_BYTES });
  if (page.length < PAGE_BYTES) return false;
  const pageNumber = new DataView(new ArrayBuffer(4));
  pageNumber.setUint32(0, number, true);
  const start = number === 1 ? SALT_BYTES : 0;
  const tag = createHmac("sha512", hmacKey).update(page.subarray(start, PAGE_BYTES - TAG_BYTES))
    .update(new Uint8Array(pageNumber.buffer)).digest();
  return timingSafeEqual(tag, page.subarray(PAGE_BYTES - TAG_BYTES));
}

function read(file: Deno.FsFile, { at, length }: { at: number; length: number }): Bytes {
  file.seekSync(at, Deno.SeekMode.Start);
  const bytes = new Uint8Array(length);
  return bytes.subarray(0, file.readSync(bytes) ?? 0);
}

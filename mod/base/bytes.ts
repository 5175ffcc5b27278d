/** Byte strings: joining, comparing, hashing, text. Everything here is pure apart from the digest. */
import { timingSafeEqual } from "node:crypto";

/** A byte string that owns an ordinary (not shared) buffer, as WebCrypto and streams want it. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** What WebCrypto gives at once. */
const RANDOM_BYTES_MAX = 65_536;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** UTF-8 bytes of `text`. */
export function utf8(text: string): Bytes {
  return encoder.encode(text);
}

/** Text of UTF-8 `bytes`; throws TypeError when they are not valid UTF-8. */
export function utf8Text(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** One new byte string holding `parts` one after another. */
export function concat(...parts: readonly Uint8Array[]): Bytes {
  let length = 0;
  for (const part of parts) length += part.length;
  const joined = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

/** A copy that shares no buffer with `bytes`. */
export function copy(bytes: Uint8Array): Bytes {
  return new Uint8Array(bytes);
}

/** Same content? Early exit: not for secrets, see {@link equalConstantTime}. */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Same content? Takes the same time wherever the first difference is; lengths are not secret. */
export function equalConstantTime(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

/** `length` bytes from the operating system's random source. */
export function randomBytes(length: number): Bytes {
  const bytes = new Uint8Array(length);
  for (let offset = 0; offset < length; offset += RANDOM_BYTES_MAX) {
    crypto.getRandomValues(bytes.subarray(offset, offset + RANDOM_BYTES_MAX));
  }
  return bytes;
}

/** SHA-256 (32 bytes). */
export async function sha256(bytes: Uint8Array): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as Bytes));
}

/** Lower-case hexadecimal text. */
export function hex(bytes: Uint8Array): string {
  return bytes.toHex();
}

/** Bytes of hexadecimal text; throws SyntaxError when it is not that. */
export function fromHex(text: string): Bytes {
  return Uint8Array.fromHex(text);
}

/** Base64url text without padding (RFC 4648 §5). */
export function base64url(bytes: Uint8Array): string {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}

/** Bytes of base64url text, padded or not; throws SyntaxError when it is not that. */
export function fromBase64url(text: string): Bytes {
  return Uint8Array.fromBase64(text, { alphabet: "base64url" });
}

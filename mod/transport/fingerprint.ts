/** SHA-256 fingerprints of certificates as text: what a person compares, pastes and pins. */
import type { Bytes } from "../base/bytes.ts";
import { fromHex, hex } from "../base/bytes.ts";

/** 64 lower-case hex digits. */
export function fingerprintText(sha256: Uint8Array): string {
  return hex(sha256);
}

/** The 32 bytes of a fingerprint; colons, spaces, capitals and a `sha256:` in front do not matter. Null: not one. */
export function parseFingerprint(text: string): Bytes | null {
  const digits = text.trim().replace(/^sha-?256[:=]/i, "").replace(/[:\s]/g, "").toLowerCase();
  return /^[0-9a-f]{64}$/.test(digits) ? fromHex(digits) : null;
}

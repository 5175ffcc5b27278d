/** SignWithLabel of RFC 9420 §5.1.2 with Ed25519: what devices and accounts sign. */
import { type Bytes, concat, utf8 } from "./bytes.ts";

/** What a signature is for. */
export type SignatureLabel =
  /** LoginFinish, by the device key: device id ‖ device key ‖ server nonce. */
  | "qpq device"
  /** Resume, by the device key: server nonce ‖ session id ‖ pinned leaf SHA-256 or 32 zeros. */
  | "qpq resume"
  /** SignDevice, by the account key: account id ‖ device id ‖ device key. */
  | "qpq device key"
  /** PeerProve, by the federation certificate's key: see mod/federation/handshake.ts. */
  | "qpq federation"
  /** A leaf node and a KeyPackage (RFC 9420 §7.2, §10), by the device key. */
  | "LeafNodeTBS"
  | "KeyPackageTBS";

/** Length prefix of RFC 9420 §2.1.2 (variable-size vectors). */
function vector(bytes: Uint8Array): Bytes {
  const length = bytes.length;
  if (length < 64) return concat(Uint8Array.of(length), bytes);
  if (length < 16384) return concat(Uint8Array.of(0x40 | (length >> 8), length & 255), bytes);
  throw new RangeError(`Cannot sign more than 16383 bytes: ${length}`);
}

/** The bytes that are signed: `struct { opaque label<V> = "MLS 1.0 " + label; opaque content<V> }`. */
export function signContent(label: SignatureLabel, ...content: readonly Uint8Array[]): Bytes {
  return concat(vector(utf8(`MLS 1.0 ${label}`)), vector(concat(...content)));
}

/** Does `signature` (64 bytes) by the Ed25519 `publicKey` (32 bytes) verify? False for anything malformed. */
export async function verifyWithLabel(
  publicKey: Uint8Array,
  signature: Uint8Array,
  label: SignatureLabel,
  ...content: readonly Uint8Array[]
): Promise<boolean> {
  if (publicKey.length !== 32 || signature.length !== 64) return false;
  try {
    const key = await crypto.subtle.importKey("raw", publicKey as Bytes, "Ed25519", false, ["verify"]);
    return await crypto.subtle.verify("Ed25519", key, signature as Bytes, signContent(label, ...content));
  } catch {
    return false; // not a point on the curve
  }
}

/**
 * Ed25519 keys of accounts and devices: making, signing, wrapping the account key under OPAQUE's export key,
 * checking a contact's devices, pinning, and the safety number. Pure: what is kept lives in state.ts.
 *
 *   wrapped account key: version (1) ‖ nonce (24) ‖ XChaCha20-Poly1305(seed (32)) with tag (16) = 73 bytes
 */
import { createHash } from "node:crypto";
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { type Bytes, concat, copy, equal, fromBase64url, fromHex, randomBytes, utf8 } from "../base/bytes.ts";
import type { AccountId, DeviceId } from "../base/ids.ts";
import { type SignatureLabel, signContent, verifyWithLabel } from "../base/sign_with_label.ts";

/** An Ed25519 key pair: the public key and the 32-byte seed (RFC 8032). */
export interface KeyPair {
  readonly publicKey: Bytes;
  readonly privateKey: Bytes;
}

/** The wrapped account key is damaged, belongs to another password, name or key. */
export class AccountKeyError extends Error {
  override name = "AccountKeyError";
}

/** PKCS #8 (RFC 8410) around a 32-byte seed. */
const PKCS8_PREFIX = fromHex("302e020100300506032b657004220420");
const WRAP_VERSION = 1;
const NONCE_BYTES = 24;
const WRAPPED_BYTES = 1 + NONCE_BYTES + 32 + 16;
const SAFETY_NUMBER_VERSION = Uint8Array.of(0, 1);
const SAFETY_NUMBER_ROUNDS = 5200;

function importSeed(seed: Uint8Array, extractable: "extractable" | "locked"): Promise<CryptoKey> {
  const pkcs8 = concat(PKCS8_PREFIX, seed);
  return crypto.subtle.importKey("pkcs8", pkcs8, "Ed25519", extractable === "extractable", ["sign"]);
}

/** The key pair of a 32-byte seed. */
export async function keyPairOf(seed: Uint8Array): Promise<KeyPair> {
  if (seed.length !== 32) {
    throw new RangeError(`Cannot make a key of a seed that is not 32 bytes: ${seed.length}`);
  }
  const jwk = await crypto.subtle.exportKey("jwk", await importSeed(seed, "extractable"));
  return { publicKey: fromBase64url(jwk.x!), privateKey: copy(seed) };
}

/** A new random key pair, for an account or a device. */
export function generateKeyPair(): Promise<KeyPair> {
  return keyPairOf(randomBytes(32));
}

/** SignWithLabel (RFC 9420 §5.1.2): 64 bytes that verifyWithLabel accepts. */
export async function signWithLabel(
  seed: Uint8Array,
  label: SignatureLabel,
  ...content: readonly Uint8Array[]
): Promise<Bytes> {
  const key = await importSeed(seed, "locked");
  return new Uint8Array(await crypto.subtle.sign("Ed25519", key, signContent(label, ...content)));
}

async function wrapKey(exportKey: Uint8Array): Promise<Bytes> {
  const base = await crypto.subtle.importKey("raw", copy(exportKey), "HKDF", false, ["deriveBits"]);
  const info = utf8("qpq/1 account key wrap");
  const bits = { name: "HKDF", hash: "SHA-512", salt: new Uint8Array(0), info };
  return new Uint8Array(await crypto.subtle.deriveBits(bits, base, 256));
}

/** What the wrapped key is bound to. The account id is not known yet when a new account is registered. */
function wrapContext(userName: string, publicKey: Uint8Array): Bytes {
  return concat(utf8("qpq/1 account key"), publicKey, utf8(userName));
}

/** The private account key under OPAQUE's export key, bound to the normalised user name and the public key. */
export async function wrapAccountKey(
  key: KeyPair,
  options: { exportKey: Uint8Array; userName: string },
): Promise<Bytes> {
  const nonce = randomBytes(NONCE_BYTES);
  const context = wrapContext(options.userName, key.publicKey);
  const cipher = xchacha20poly1305(await wrapKey(options.exportKey), nonce, context);
  return concat(Uint8Array.of(WRAP_VERSION), nonce, cipher.encrypt(key.privateKey));
}

/** Undoes {@link wrapAccountKey}. Throws AccountKeyError unless it holds exactly the private key of `publicKey`. */
export async function unwrapAccountKey(
  wrapped: Uint8Array,
  options: { exportKey: Uint8Array; userName: string; publicKey: Uint8Array },
): Promise<KeyPair> {
  if (wrapped[0] !== WRAP_VERSION || wrapped.length !== WRAPPED_BYTES) {
    throw new AccountKeyError(`Cannot read the account key as its form is unknown: ${wrapped.length} bytes`);
  }
  const nonce = wrapped.subarray(1, 1 + NONCE_BYTES);
  const context = wrapContext(options.userName, options.publicKey);
  let seed: Uint8Array;
  try {
    const cipher = xchacha20poly1305(await wrapKey(options.exportKey), nonce, context);
    seed = cipher.decrypt(wrapped.subarray(1 + NONCE_BYTES));
  } catch (cause) {
    throw new AccountKeyError("Cannot open the account key that the server holds: it was changed", { cause });
  }
  const pair = await keyPairOf(seed);
  if (!equal(pair.publicKey, options.publicKey)) {
    throw new AccountKeyError("Cannot use the account key as it is not the one the server names");
  }
  return pair;
}

/** A device as its account's signature covers it. */
export interface DeviceClaim {
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
  readonly deviceKey: Uint8Array;
}

const claimContent = (claim: DeviceClaim): Uint8Array[] => [
  fromHex(claim.accountId),
  fromHex(claim.deviceId),
  claim.deviceKey,
];

/** The account's signature over one of its devices, for SignDevice. */
export function signDevice(accountPrivateKey: Uint8Array, claim: DeviceClaim): Promise<Bytes> {
  return signWithLabel(accountPrivateKey, "qpq device key", ...claimContent(claim));
}

/** Has the account signed this device? False for an empty or malformed signature. */
export function verifyDevice(
  claim: DeviceClaim,
  options: { accountKey: Uint8Array; accountSignature: Uint8Array },
): Promise<boolean> {
  const { accountKey, accountSignature } = options;
  return verifyWithLabel(accountKey, accountSignature, "qpq device key", ...claimContent(claim));
}

/** The devices whose account signature verifies; the others are to be refused. */
export async function trustedDevices<
  Device extends { deviceId: DeviceId; deviceKey: Uint8Array; accountSignature: Uint8Array },
>(
  devices: readonly Device[],
  options: { accountId: AccountId; accountKey: Uint8Array },
): Promise<Device[]> {
  const { accountId, accountKey } = options;
  const verified = await Promise.all(devices.map((device) => {
    const { deviceId, deviceKey, accountSignature } = device;
    return verifyDevice({ accountId, deviceId, deviceKey }, { accountKey, accountSignature });
  }));
  return devices.filter((_, index) => verified[index]);
}

/** How an account key stands to the pinned one. */
export type PinResult = "new" | "same" | "changed";

/** Compares `accountKey` with the key pinned at first sight (undefined: none is pinned yet). */
export function pin(pinned: Uint8Array | undefined, accountKey: Uint8Array): PinResult {
  if (!pinned) return "new";
  return equal(pinned, accountKey) ? "same" : "changed";
}

/** An account as a safety number sees it. */
export interface AccountFingerprint {
  readonly accountId: AccountId;
  readonly accountKey: Uint8Array;
}

/** 30 digits of one account: 5,200 rounds of SHA-512, then six groups of 40 bits modulo 100,000. */
function fingerprintDigits({ accountId, accountKey }: AccountFingerprint): string[] {
  let digest: Uint8Array = concat(SAFETY_NUMBER_VERSION, accountKey, fromHex(accountId));
  for (let round = 0; round < SAFETY_NUMBER_ROUNDS; round++) {
    digest = createHash("sha512").update(digest).update(accountKey).digest();
  }
  const groups: string[] = [];
  for (let offset = 0; offset < 30; offset += 5) {
    let value = 0;
    for (const byte of digest.subarray(offset, offset + 5)) value = value * 256 + byte;
    groups.push(String(value % 100_000).padStart(5, "0"));
  }
  return groups;
}

/**
 * 60 digits in 12 groups of five that both sides see alike, whoever computes them: comparing them over another
 * channel shows that the server gave neither side a false account key.
 */
export function safetyNumber(one: AccountFingerprint, other: AccountFingerprint): string {
  const halves = [fingerprintDigits(one), fingerprintDigits(other)].map((groups) => groups.join(" "));
  return halves.sort().join(" ");
}

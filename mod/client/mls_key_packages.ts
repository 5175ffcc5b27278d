/** KeyPackages: making this device's own, and checking those of others before they are added (RFC 9420 §10). */
import "./mls_packages.ts";
import { decodeMlsMessage, generateKeyPackageWithKey, type KeyPackage } from "ts-mls";
import {
  decodeKeyPackage,
  encodeKeyPackage,
  makeKeyPackageRef,
  verifyKeyPackage,
} from "ts-mls/keyPackage.js";
import { verifyLeafNodeSignatureKeyPackage } from "ts-mls/leafNode.js";
import { type Bytes, copy, equal, hex } from "../base/bytes.ts";
import type { MlsSuite } from "../base/mls_suites.ts";
import {
  checkTrust,
  credentialOf,
  decodeIdentity,
  type DeviceIdentity,
  type MlsContext,
  ownCapabilities,
  suiteImplementation,
  suiteOf,
} from "./mls_credentials.ts";
import { MlsError } from "./mls_error.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** Longest lifetime that anybody accepts. */
export const KEY_PACKAGE_LIFETIME_MS_MAX = 90 * DAY_MS;
/** Lifetime of what we make, after the hour it begins in the past for clocks that differ. */
export const KEY_PACKAGE_LIFETIME_MS = 84 * DAY_MS;
const NOT_BEFORE_MARGIN_MS = HOUR_MS;

/** A KeyPackage of this device with its private keys; one for each Welcome, the last resort excepted. */
export interface OwnKeyPackage {
  /** KeyPackageRef in hex: what a Welcome names it by. */
  readonly ref: string;
  readonly suite: MlsSuite;
  readonly lastResort: boolean;
  readonly notAfterMs: number;
  /** The KeyPackage for the server, without the MLSMessage wrapper. */
  readonly publicBytes: Bytes;
  readonly initPrivateKey: Bytes;
  readonly leafPrivateKey: Bytes;
}

/** What to make. */
export interface CreateKeyPackagesOptions {
  readonly count: number;
  readonly suite: MlsSuite;
  /** Marks them in the record, so that using one does not delete it. */
  readonly lastResort?: boolean;
  /** From now; at most 90 days less the hour before now. */
  readonly lifetimeMs?: number;
}

/** New KeyPackages. Save them before they are uploaded: a Welcome may come at any time after. */
export async function createKeyPackages(
  context: MlsContext,
  options: CreateKeyPackagesOptions,
): Promise<OwnKeyPackage[]> {
  const { count, suite, lastResort = false, lifetimeMs = KEY_PACKAGE_LIFETIME_MS } = options;
  if (!(lifetimeMs > 0 && lifetimeMs + NOT_BEFORE_MARGIN_MS <= KEY_PACKAGE_LIFETIME_MS_MAX)) {
    throw new RangeError(`Cannot make a KeyPackage valid for more than 90 days: ${lifetimeMs} ms`);
  }
  const implementation = await suiteImplementation(suite);
  const now = context.clock.now();
  const notAfterS = Math.floor((now + lifetimeMs) / 1000);
  const lifetime = {
    notBefore: BigInt(Math.ceil((now - NOT_BEFORE_MARGIN_MS) / 1000)),
    notAfter: BigInt(notAfterS),
  };
  const { publicKey, privateKey } = context.identity.key;
  const made: OwnKeyPackage[] = [];
  for (let index = 0; index < count; index++) {
    const { publicPackage, privatePackage } = await generateKeyPackageWithKey(
      credentialOf(context.identity),
      ownCapabilities(),
      lifetime,
      [],
      { signKey: privateKey, publicKey },
      implementation,
    );
    made.push({
      ref: hex(await makeKeyPackageRef(publicPackage, implementation.hash)),
      suite,
      lastResort,
      notAfterMs: notAfterS * 1000,
      publicBytes: copy(encodeKeyPackage(publicPackage)),
      initPrivateKey: copy(privatePackage.initPrivateKey),
      leafPrivateKey: copy(privatePackage.hpkePrivateKey),
    });
  }
  return made;
}

/** A KeyPackage from its bytes, with or without the MLSMessage wrapper. Nothing is verified. */
export function parseKeyPackage(bytes: Uint8Array): KeyPackage {
  try {
    const plain = decodeKeyPackage(bytes, 0);
    if (plain && plain[1] === bytes.length) return plain[0];
    const wrapped = decodeMlsMessage(bytes, 0);
    if (wrapped && wrapped[1] === bytes.length && wrapped[0].wireformat === "mls_key_package") {
      return wrapped[0].keyPackage;
    }
  } catch (cause) {
    throw new MlsError("malformed", "Cannot read a KeyPackage", { cause });
  }
  throw new MlsError("malformed", "Cannot read a KeyPackage");
}

function checkLifetime(keyPackage: KeyPackage, nowMs: number): void {
  const { notBefore, notAfter } = keyPackage.leafNode.lifetime;
  const now = BigInt(Math.floor(nowMs / 1000));
  if (now < notBefore || now > notAfter) {
    throw new MlsError(
      "lifetime",
      `Cannot use a KeyPackage outside its lifetime ${notBefore}..${notAfter}: ${now}`,
    );
  }
  if (notAfter - notBefore > BigInt(KEY_PACKAGE_LIFETIME_MS_MAX / 1000)) {
    throw new MlsError(
      "lifetime",
      `Cannot use a KeyPackage valid for more than 90 days: ${notAfter - notBefore} s`,
    );
  }
}

/** A KeyPackage of somebody else that passed every check. */
export interface CheckedKeyPackage extends DeviceIdentity {
  readonly keyPackage: KeyPackage;
}

/** Verifies signatures, lifetime, suite, identity and trust of a KeyPackage that the server gave. */
export async function checkKeyPackage(
  context: MlsContext,
  bytes: Uint8Array,
  options: { suite: MlsSuite },
): Promise<CheckedKeyPackage> {
  const keyPackage = parseKeyPackage(bytes);
  if (suiteOf(keyPackage.cipherSuite) !== options.suite) {
    throw new MlsError("invalid", `Cannot add a KeyPackage of another suite: ${keyPackage.cipherSuite}`);
  }
  const { leafNode } = keyPackage;
  const identity = decodeIdentity(leafNode.credential);
  if (!identity) throw new MlsError("invalid", "Cannot add a KeyPackage whose credential names no device");
  checkLifetime(keyPackage, context.clock.now());
  const { signature } = await suiteImplementation(options.suite);
  const verified = leafNode.signaturePublicKey.length === 32 &&
    !equal(keyPackage.initKey, leafNode.hpkePublicKey) &&
    await verifyKeyPackage(keyPackage, signature) &&
    await verifyLeafNodeSignatureKeyPackage(leafNode, signature);
  if (!verified) throw new MlsError("invalid", "Cannot add a KeyPackage whose signatures do not verify");
  await checkTrust(context, { ...identity, signatureKey: copy(leafNode.signaturePublicKey) });
  return { ...identity, keyPackage };
}

/**
 * KeyPackages (RFC 9420 §10): judged before they are stored, counted, and claimed at most once. Who may claim
 * how often is decided above; beyond that the last-resort package answers.
 */
import { setImmediate } from "node:timers";
import {
  decodeKeyPackage,
  encodeKeyPackage,
  encodeKeyPackageTBS,
  makeKeyPackageRef,
} from "ts-mls/keyPackage.js";
import { makeHashImpl } from "ts-mls/crypto/implementation/default/makeHashImpl.js";
import { encodeLeafNodeTBS } from "ts-mls/leafNode.js";
import { concat, equal, fromHex, utf8 } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import { type AccountId, type DeviceId, ID_BYTES, randomId } from "../base/ids.ts";
import { isMlsSuite, MLS_SUITES, type MlsSuite } from "../base/mls_suites.ts";
import { verifyWithLabel } from "../base/sign_with_label.ts";
import type { ClaimedKeyPackage, Device, KeyPackageCount, NewKeyPackage } from "../store/store.ts";
import type { ServerNotice, Store } from "../store/store.ts";

/** Most bytes of one KeyPackage: an X-Wing one has 2,647. */
export const KEY_PACKAGE_BYTES_MAX = 8192;

/** Longest lifetime of a KeyPackage that a server keeps. */
export const LIFETIME_MAX_MS = 90 * 86_400_000;

/** Clocks of devices may be ahead of or behind ours by so much. */
const CLOCK_SKEW_MS = 3_600_000;

/** Checks take 0.4 ms each: after so many of them other requests get their turn. */
const VALIDATIONS_IN_A_ROW = 8;

/** Bytes of the public keys that a suite's KEM makes. */
const KEM_KEY_BYTES: Record<MlsSuite, number> = { 1: 32, 83: 1216 };

/** Whose package it must be, and when it is now. */
export interface KeyPackageOwner {
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
  readonly deviceKey: Uint8Array;
}

/** What the server remembers of a valid package. */
export interface ValidKeyPackage {
  readonly ref: Uint8Array;
  readonly suite: MlsSuite;
  /** Unix ms. */
  readonly notAfter: number;
}

/**
 * Judges a KeyPackage: well formed, a suite we have, both signatures by the device's key, a basic credential of
 * `account id ‖ device id`, which `domain`, the server's own, may follow; separate keys, a lifetime that is now and
 * short. Throws `keyPackageInvalid`.
 */
export async function validateKeyPackage(
  bytes: Uint8Array,
  expected: KeyPackageOwner & { now: number; lifetimeMaxMs: number; domain?: string },
): Promise<ValidKeyPackage> {
  const keyPackage = decode(bytes);
  const { leafNode } = keyPackage;
  const suite = MLS_SUITE_NUMBERS.get(keyPackage.cipherSuite);
  if (suite === undefined) throw invalid(`suite ${keyPackage.cipherSuite} is not supported`);
  if (keyPackage.version !== "mls10") throw invalid("it is not MLS 1.0");
  checkLeaf(leafNode, expected);
  if (!leafNode.capabilities.ciphersuites.includes(keyPackage.cipherSuite)) {
    throw invalid("its leaf does not support its own suite");
  }
  for (const key of [keyPackage.initKey, leafNode.hpkePublicKey]) {
    if (key.length !== KEM_KEY_BYTES[suite]) throw invalid(`a public key has ${key.length} bytes`);
  }
  if (equal(keyPackage.initKey, leafNode.hpkePublicKey)) throw invalid("init key and leaf key are the same");
  const notAfter = checkLifetime(leafNode.lifetime, expected);
  const { deviceKey } = expected;
  const leafTbs = encodeLeafNodeTBS(leafNode);
  if (!await verifyWithLabel(deviceKey, leafNode.signature, "LeafNodeTBS", leafTbs)) {
    throw invalid("the leaf's signature does not verify");
  }
  const tbs = encodeKeyPackageTBS(keyPackage);
  if (!await verifyWithLabel(deviceKey, keyPackage.signature, "KeyPackageTBS", tbs)) {
    throw invalid("its signature does not verify");
  }
  const ref = await makeKeyPackageRef(keyPackage, makeHashImpl(crypto.subtle, MLS_SUITES[suite].hash));
  return { ref, suite, notAfter };
}

type KeyPackage = NonNullable<ReturnType<typeof decodeKeyPackage>>[0];

const MLS_SUITE_NUMBERS: ReadonlyMap<string, MlsSuite> = new Map(
  Object.entries(MLS_SUITES).map(([number, { name }]) => [name, Number(number) as MlsSuite]),
);

function decode(bytes: Uint8Array): KeyPackage {
  if (bytes.length > KEY_PACKAGE_BYTES_MAX) throw invalid(`it has ${bytes.length} bytes`);
  let cause: unknown;
  try {
    const decoded = decodeKeyPackage(bytes, 0);
    // What does not encode to the same bytes has another ref for whoever hashes what they received.
    if (decoded && decoded[1] === bytes.length && equal(encodeKeyPackage(decoded[0]), bytes)) {
      return decoded[0];
    }
  } catch (error) {
    cause = error; // the decoder throws all kinds of errors
  }
  throw invalid("it does not decode", cause);
}

/** Bytes of a credential's identity before the domain: account id and device id. */
const IDS_BYTES = 2 * ID_BYTES;

/** Does the credential of a valid package say which server its account is on? */
function namesDomain(bytes: Uint8Array): boolean {
  const { credential } = decode(bytes).leafNode;
  return "identity" in credential && credential.identity.length > IDS_BYTES;
}

function checkLeaf(leafNode: KeyPackage["leafNode"], expected: KeyPackageOwner & { domain?: string }): void {
  const { credential } = leafNode;
  const identity = concat(fromHex(expected.accountId), fromHex(expected.deviceId));
  if (credential.credentialType !== "basic" || !("identity" in credential)) {
    throw invalid("its credential is not a basic one");
  }
  const full = concat(identity, utf8(expected.domain ?? ""));
  if (!equal(credential.identity, identity) && !equal(credential.identity, full)) {
    throw invalid("its credential is not the device's, or names another domain");
  }
  if (!equal(leafNode.signaturePublicKey, expected.deviceKey)) throw invalid("its key is not the device's");
  if (!leafNode.capabilities.versions.includes("mls10")) throw invalid("its leaf does not support MLS 1.0");
}

/** The end of the lifetime in Unix ms. */
function checkLifetime(
  lifetime: { notBefore: bigint; notAfter: bigint },
  { now, lifetimeMaxMs }: { now: number; lifetimeMaxMs: number },
): number {
  // Whatever a uint64 holds: beyond 2^53 the number is inexact, and refused as too long all the same.
  const notBefore = Number(lifetime.notBefore) * 1000;
  const notAfter = Number(lifetime.notAfter) * 1000;
  if (notAfter <= now) throw invalid("it has expired");
  if (notBefore > now + CLOCK_SKEW_MS) throw invalid("its lifetime has not begun");
  if (notAfter - notBefore > lifetimeMaxMs + CLOCK_SKEW_MS) throw invalid("its lifetime is too long");
  return notAfter;
}

function invalid(reason: string, cause?: unknown): QpqError {
  return new QpqError("keyPackageInvalid", `Cannot take a KeyPackage: ${reason}`, { cause });
}

/** A package as it is uploaded. */
export interface KeyPackageUpload {
  readonly bytes: Uint8Array;
  readonly lastResort: boolean;
}

/** A claim, with what the limits said about it. */
export interface KeyPackageClaim {
  /** By name or by id. */
  readonly target: { readonly userName: string } | { readonly accountId: AccountId };
  readonly suite: number;
  /** Null: every device. */
  readonly devices: readonly DeviceId[] | null;
  /**
   * Asked once: may fresh packages of `target` be taken? False: only the last-resort ones. `target` is the account's
   * id however it was named, so that its budget is one; the name or id that was asked for when there is none.
   */
  readonly mayTakeFresh: (target: string) => boolean;
  /** The claimer is on another server: only packages whose credential names this one's domain are of use to it. */
  readonly fromPeer?: boolean;
}

/** What a claim gives. */
export interface ClaimedAccount {
  readonly accountId: AccountId;
  readonly userName: string;
  readonly accountKey: Uint8Array;
  /** Those that the account key has signed, with or without a package. */
  readonly devices: readonly Device[];
  readonly keyPackages: readonly ClaimedKeyPackage[];
}

/** The parts and bounds of KeyPackages. */
export interface KeyPackagesDeps {
  readonly store: Store;
  readonly clock: Clock;
  /** Packages of one device in one suite, beside the last-resort one. */
  readonly perSuiteMax: number;
  /** A supply below this is announced to its owner, once until it is refilled. */
  readonly lowBelow: number;
  readonly lowNotice: (suite: number, count: number) => ServerNotice;
  /** The server's own domain, which credentials may name; empty when it does not federate. */
  readonly domain?: string;
}

/** Upload, count, claim. */
export class KeyPackages {
  readonly #deps: KeyPackagesDeps;

  constructor(deps: KeyPackagesDeps) {
    this.#deps = deps;
  }

  /**
   * Stores packages of the caller's device, all or none. `deviceSigned`: the account key has signed it.
   * `stored` is false for packages that the server had seen before.
   */
  async upload(
    owner: KeyPackageOwner & { deviceSigned: boolean },
    uploads: readonly KeyPackageUpload[],
  ): Promise<{ stored: boolean[]; counts: KeyPackageCount[] }> {
    const { store, clock, perSuiteMax } = this.#deps;
    if (!owner.deviceSigned) {
      throw new QpqError("deviceUnsigned", "Cannot take KeyPackages of an unsigned device");
    }
    if (uploads.length === 0 || uploads.length > perSuiteMax + 1) {
      throw new QpqError("malformedRequest", `Cannot take ${uploads.length} KeyPackages at once`);
    }
    const now = clock.now();
    const packages = await this.#validate(owner, uploads);
    const { deviceId } = owner;
    const result = await store.uploadKeyPackages({ deviceId, packages, perSuiteMax, now });
    if (result.status === "full") {
      throw new QpqError("keyPackageLimit", `Cannot store KeyPackages as a suite may have ${perSuiteMax}`);
    }
    if (result.status !== "stored") {
      throw new QpqError("notFound", "Cannot store KeyPackages: the device is gone");
    }
    return { stored: result.stored, counts: result.counts };
  }

  async #validate(owner: KeyPackageOwner, uploads: readonly KeyPackageUpload[]): Promise<NewKeyPackage[]> {
    const expected = {
      ...owner,
      now: this.#deps.clock.now(),
      lifetimeMaxMs: LIFETIME_MAX_MS,
      domain: this.#deps.domain ?? "",
    };
    const packages: NewKeyPackage[] = [];
    for (const { bytes, lastResort } of uploads) {
      packages.push({ ...await validateKeyPackage(bytes, expected), bytes, lastResort });
      if (packages.length % VALIDATIONS_IN_A_ROW === 0) await new Promise<void>((turn) => setImmediate(turn));
    }
    return packages;
  }

  /** The device's supply. */
  count(deviceId: DeviceId): Promise<KeyPackageCount[]> {
    return this.#deps.store.countKeyPackages(deviceId, this.#deps.clock.now());
  }

  /**
   * Takes one package for each device of the target. Whoever is unknown, disabled or without packages gives the
   * same `noKeyPackages` after the same work. An account counts as answered when one device has a package.
   */
  async claim(claim: KeyPackageClaim): Promise<ClaimedAccount> {
    const { store } = this.#deps;
    const { target, suite, devices, mayTakeFresh } = claim;
    if (!isMlsSuite(suite)) {
      throw new QpqError("malformedRequest", `Cannot claim KeyPackages of suite ${suite}`);
    }
    const found = "userName" in target
      ? await store.findAccountByName(target.userName)
      : await store.findAccount(target.accountId);
    const asked = "userName" in target ? target.userName : target.accountId;
    const lastResortOnly = !mayTakeFresh(found?.accountId ?? asked);
    const account = found?.enabled ? found : null;
    const accountId = account?.accountId ?? randomId<AccountId>();
    const keyPackages = await this.#take({
      accountId,
      suite,
      devices,
      lastResortOnly,
      fromPeer: claim.fromPeer ?? false,
    });
    const signed = (await store.listDevices(accountId)).filter((device) => device.accountSignature);
    if (!account || keyPackages.length === 0) {
      throw new QpqError("noKeyPackages", "Cannot claim: unknown, disabled, or without KeyPackages");
    }
    const { userName, accountKey } = account;
    return { accountId, userName, accountKey, devices: signed, keyPackages };
  }

  /**
   * One package for each device. On a server that has a domain those that do not name it, made before it had one, are
   * used up and followed by the next: in a group that spans servers they are of no use.
   */
  async #take(
    wanted: {
      accountId: AccountId;
      suite: MlsSuite;
      devices: readonly DeviceId[] | null;
      lastResortOnly: boolean;
      fromPeer: boolean;
    },
  ): Promise<ClaimedKeyPackage[]> {
    const { store, clock, lowBelow, lowNotice, domain, perSuiteMax } = this.#deps;
    const { fromPeer, ...claim } = wanted;
    const taken: ClaimedKeyPackage[] = [];
    let devices = claim.devices;
    for (let round = 0; round <= perSuiteMax; round++) {
      const keyPackages = await store.claimKeyPackages({
        ...claim,
        devices,
        lowBelow,
        // It is announced when the supply falls below, so there is one less.
        lowNotice: lowNotice(claim.suite, Math.max(0, lowBelow - 1)),
        now: clock.now(),
      });
      const isStale = (one: ClaimedKeyPackage) => Boolean(domain) && !namesDomain(one.bytes);
      // The last resort does not change however often it is asked for.
      taken.push(...keyPackages.filter((one) => !isStale(one) || (one.lastResort && !fromPeer)));
      devices = keyPackages.filter((one) => isStale(one) && !one.lastResort).map((one) => one.deviceId);
      if (devices.length === 0) break;
    }
    return taken;
  }
}

/**
 * Who a leaf of an MLS tree is: a basic credential whose identity is account id (16) ‖ device id (16) ‖ domain of the
 * account's server (ASCII; empty on servers that do not federate), with the device's Ed25519 key. Our authentication
 * service asks whether the account really has that device.
 */
import "./mls_packages.ts";
import type {
  AuthenticationService,
  Capabilities,
  CiphersuiteImpl,
  ClientConfig,
  Credential,
  CredentialBasic,
} from "ts-mls";
import { defaultKeyPackageEqualityConfig, getCiphersuiteFromName, getCiphersuiteImpl } from "ts-mls";
import { type Bytes, concat, copy, fromHex, utf8 } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { type AccountId, type DeviceId, ID_BYTES, idOf } from "../base/ids.ts";
import { isMlsSuite, MLS_SUITES, type MlsSuite } from "../base/mls_suites.ts";
import { readDomain } from "../base/user_address.ts";
import type { KeyPair } from "./account_keys.ts";
import { CallbackError, MlsError } from "./mls_error.ts";

/** An account's device, as a credential names it. */
export interface DeviceIdentity {
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
  /** Of the server that vouches for the account; empty: the server of whoever reads it. */
  readonly domain: string;
}

/** This device: what its credential says, and the key that signs. */
export interface OwnIdentity extends DeviceIdentity {
  readonly key: KeyPair;
}

/** A leaf as the trust check sees it. */
export interface LeafClaim extends DeviceIdentity {
  readonly signatureKey: Bytes;
}

/** What every MLS operation needs beside the group. */
export interface MlsContext {
  readonly identity: OwnIdentity;
  /** What leaves name for this device's server, when it does not federate any more and new leaves name nothing. */
  readonly formerDomain?: string;
  /** Is this device signed by the account key that is pinned for its account? Asked for every foreign leaf. */
  readonly isTrusted: (leaf: LeafClaim) => Promise<boolean>;
  readonly clock: Clock;
}

/** Extension of the GroupContext with the group's name and creator (private use, RFC 9420 §17.3). */
export const GROUP_NAME_EXTENSION = 0xf170;

/** Extension of a Welcome's GroupInfo: the hub of a group that does not name it itself (private use). */
export const HUB_EXTENSION = 0xf171;

/** How many epochs back messages can still be read; more keeps old keys longer. */
const EPOCHS_RETAINED = 4;
/** Keys kept for messages of one sender that come out of order. */
const GENERATIONS_RETAINED = 64;
/** How many messages of one sender in one epoch may be lost before the next is refused. */
const GENERATIONS_SKIPPED_MAX = 4096;

/** The identity bytes of a credential. */
export function encodeIdentity(identity: DeviceIdentity): Bytes {
  return concat(fromHex(identity.accountId), fromHex(identity.deviceId), utf8(identity.domain));
}

/** Account, device and domain in a credential; undefined when it is not one of ours. */
export function decodeIdentity(credential: Credential): DeviceIdentity | undefined {
  if (credential.credentialType !== "basic" || credential.identity.length < 2 * ID_BYTES) return undefined;
  const domain = readDomain(credential.identity.subarray(2 * ID_BYTES));
  if (domain === undefined) return undefined;
  return {
    accountId: idOf<AccountId>(credential.identity.subarray(0, ID_BYTES)),
    deviceId: idOf<DeviceId>(credential.identity.subarray(ID_BYTES, 2 * ID_BYTES)),
    domain,
  };
}

/** The credential of a device. */
export function credentialOf(identity: DeviceIdentity): CredentialBasic {
  return { credentialType: "basic", identity: encodeIdentity(identity) };
}

/** What our leaves say they can do. */
export function ownCapabilities(): Capabilities {
  return {
    versions: ["mls10"],
    ciphersuites: Object.values(MLS_SUITES).map((suite) => suite.name),
    extensions: [GROUP_NAME_EXTENSION],
    proposals: [],
    credentials: ["basic"],
  };
}

function sameDevice(own: OwnIdentity, leaf: LeafClaim): boolean {
  return own.deviceId === leaf.deviceId && own.accountId === leaf.accountId &&
    own.key.publicKey.toHex() === leaf.signatureKey.toHex();
}

/**
 * Accepts this device itself and whatever `isTrusted` says yes to. Throws MlsError `untrusted`, or whatever the
 * callback throws: that it could not ask is no verdict.
 */
export async function checkTrust(context: MlsContext, leaf: LeafClaim): Promise<void> {
  if (sameDevice(context.identity, leaf)) return;
  const isImpostor = leaf.deviceId === context.identity.deviceId; // nobody else is this device
  if (!isImpostor && await context.isTrusted(leaf)) return;
  throw new MlsError(
    "untrusted",
    `Cannot accept device ${leaf.deviceId} as account ${leaf.accountId} did not sign its key`,
  );
}

function authenticationService(context: MlsContext): AuthenticationService {
  return {
    async validateCredential(credential, signaturePublicKey) {
      const identity = decodeIdentity(credential);
      if (!identity) return false;
      try {
        await checkTrust(context, { ...identity, signatureKey: copy(signaturePublicKey) });
      } catch (error) {
        throw error instanceof MlsError ? error : new CallbackError(error);
      }
      return true;
    },
  };
}

/** How ts-mls is to behave; not a part of the saved state. */
export function clientConfig(context: MlsContext): ClientConfig {
  return {
    keyRetentionConfig: {
      retainKeysForEpochs: EPOCHS_RETAINED,
      retainKeysForGenerations: GENERATIONS_RETAINED,
      maximumForwardRatchetSteps: GENERATIONS_SKIPPED_MAX,
    },
    // A member's leaf outlives the KeyPackage that it came with, so lifetimes are checked when adding only.
    lifetimeConfig: { maximumTotalLifetime: 0n, validateLifetimeOnReceive: false },
    keyPackageEqualityConfig: defaultKeyPackageEqualityConfig,
    paddingConfig: { kind: "padUntilLength", padUntilLength: 256 },
    authService: authenticationService(context),
  };
}

const implementations = new Map<MlsSuite, Promise<CiphersuiteImpl>>();

/** The cryptography of a suite; made once. */
export function suiteImplementation(suite: MlsSuite): Promise<CiphersuiteImpl> {
  let implementation = implementations.get(suite);
  if (!implementation) {
    implementation = loadImplementation(suite);
    implementations.set(suite, implementation);
  }
  return implementation;
}

async function loadImplementation(suite: MlsSuite): Promise<CiphersuiteImpl> {
  return await getCiphersuiteImpl(getCiphersuiteFromName(MLS_SUITES[suite].name));
}

/** Number of the suite that ts-mls calls `name`; refuses those that this program does not support. */
export function suiteOf(name: string): MlsSuite {
  for (const suite of Object.keys(MLS_SUITES).map(Number)) {
    if (isMlsSuite(suite) && MLS_SUITES[suite].name === name) return suite;
  }
  throw new MlsError("malformed", `Cannot use an MLS suite that this version does not know: ${name}`);
}

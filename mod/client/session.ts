/**
 * The requests of accounts, logins and devices over one connection: OPAQUE's client side (RFC 9807), the
 * device's binding to the session key, the account key wrapped under the export key. Nothing is kept here:
 * what must survive is returned.
 */
import { type Bytes, concat, copy, equal, fromHex, utf8 } from "../base/bytes.ts";
import { QpqError } from "../base/errors.ts";
import { type AccountId, type DeviceId, idOf, randomId, type SessionId } from "../base/ids.ts";
import { OPAQUE_SUITE_NAMES, OPAQUE_SUITES, SUITE_P256, SUITE_RISTRETTO255 } from "../base/opaque_suite.ts";
import { normaliseUserName } from "../base/user_name.ts";
import {
  generateKeyPair,
  type KeyPair,
  signDevice,
  signWithLabel,
  unwrapAccountKey,
  wrapAccountKey,
} from "./account_keys.ts";
import type { ServerLink } from "./identity.ts";
import { type KeyStretching, ristretto255 } from "./opaque_ristretto255.ts";
import type { ClientSuite } from "./opaque_side.ts";

/** Longest device name (UTF-16 units) that is sent. */
const DEVICE_NAME_CHARACTERS_MAX = 64;

/** This device: made before its first login, then never changed. */
export interface OwnDevice {
  readonly deviceId: DeviceId;
  readonly key: KeyPair;
  readonly name: string;
}

/** An account as its owner holds it after a login. */
export interface OwnAccount {
  readonly accountId: AccountId;
  readonly userName: string;
  readonly key: KeyPair;
}

/** What a login gave. */
export interface LoginResult {
  readonly account: OwnAccount;
  readonly sessionId: SessionId;
  /** The server did not know this device before. */
  readonly newDevice: boolean;
  /** The best OPAQUE suite that the account was seen with: to be remembered, and given to the next login. */
  readonly suiteSeen: number;
}

/**
 * The suites that a login may use, in the order in which it tries them. An account that was seen with a suite never
 * goes to a weaker one. Of one that was never seen only a person can allow P-256.
 */
export function suitesToOffer(
  options: { suiteSeen?: number | undefined; allowP256?: boolean | undefined },
): number[] {
  if (options.suiteSeen === SUITE_RISTRETTO255) return [SUITE_RISTRETTO255];
  if (options.suiteSeen === SUITE_P256) return [SUITE_P256, SUITE_RISTRETTO255];
  return options.allowP256 ? [...OPAQUE_SUITES] : [SUITE_RISTRETTO255];
}

/** One of the account's own devices. */
export interface DeviceInfo {
  readonly deviceId: DeviceId;
  readonly name: string;
  /** The account key has signed it. */
  readonly signed: boolean;
  /** Unix milliseconds. */
  readonly createdAt: number;
  /** Unix milliseconds. */
  readonly lastSeenAt: number;
}

/** A new device with a key of its own. */
export async function makeDevice(name: string): Promise<OwnDevice> {
  const key = await generateKeyPair();
  return { deviceId: randomId<DeviceId>(), key, name: name.slice(0, DEVICE_NAME_CHARACTERS_MAX) };
}

/**
 * Registers an account with a new account key. Needs the access token in Hello, or an invitation. The
 * connection is not logged in afterwards: follow with {@link login}.
 */
export async function register(
  link: ServerLink,
  account: {
    userName: string;
    password: string;
    invitation?: string;
    keyStretching?: KeyStretching | undefined;
    /** Default: ristretto255. */
    suiteId?: number;
  },
): Promise<AccountId> {
  const userName = normaliseUserName(account.userName);
  const { suiteId = SUITE_RISTRETTO255 } = account;
  const suite = await clientSuite(suiteId, account.keyStretching);
  const record = await suite.startRecord(passwordText(account.password));
  const { handle, registrationResponse } = await link.connection.call("registerStart", {
    userName,
    suiteId,
    registrationRequest: record.request,
    ...(account.invitation === undefined ? {} : { invitation: account.invitation }),
  });
  const { registrationRecord, exportKey } = await record.finish(registrationResponse, link.hello.realmId);
  const key = await generateKeyPair();
  const { accountId } = await link.connection.call("registerFinish", {
    handle,
    registrationRecord,
    accountKey: key.publicKey,
    wrappedAccountKey: await wrapAccountKey(key, { exportKey, userName }),
  });
  return idOf(accountId);
}

/**
 * Logs `device` in. Opens the account key, signs the device with it when that is not done yet, and renews the
 * record when the server asks for it. Rejects with `loginFailed` for a wrong name or password alike.
 */
export async function login(
  link: ServerLink,
  request: LoginRequest & { device: OwnDevice },
): Promise<LoginResult> {
  const { connection, hello } = link;
  const { device } = request;
  const userName = normaliseUserName(request.userName);
  const { handle, suiteId, ke3, sessionKey, exportKey } = await provePassword(link, { ...request, userName });
  const deviceId = fromHex(device.deviceId);
  const { publicKey, privateKey } = device.key;
  const answer = await connection.call("loginFinish", {
    handle,
    ke3,
    deviceId,
    deviceKey: publicKey,
    deviceName: device.name,
    deviceBinding: await hmac(sessionKey, utf8("qpq/1 device"), deviceId, publicKey, hello.serverNonce),
    signature: await signWithLabel(privateKey, "qpq device", deviceId, publicKey, hello.serverNonce),
  });
  const key = await unwrapAccountKey(answer.wrappedAccountKey, {
    exportKey,
    userName,
    publicKey: copy(answer.accountKey),
  });
  const account: OwnAccount = { accountId: idOf(answer.accountId), userName, key };
  if (!answer.deviceSigned) await signThisDevice(link, { account, device });
  if (answer.reregister) {
    const { password, keyStretching } = request;
    await changePassword(link, { account, password, keyStretching });
  }
  const suiteSeen = answer.reregister ? SUITE_RISTRETTO255 : suiteId;
  return { account, sessionId: idOf(answer.sessionId), newDevice: answer.newDevice, suiteSeen };
}

/** Who logs in, and with which suites: see {@link suitesToOffer}. */
export interface LoginRequest {
  readonly userName: string;
  readonly password: string;
  readonly keyStretching?: KeyStretching | undefined;
  readonly suiteSeen?: number | undefined;
  readonly allowP256?: boolean | undefined;
}

interface Proof {
  readonly handle: number;
  readonly suiteId: number;
  readonly ke3: Bytes;
  readonly sessionKey: Bytes;
  readonly exportKey: Bytes;
}

/**
 * KE1 to KE3, in one suite after the other: the server never says which one an account has, as that would tell
 * everybody that there is such an account.
 */
async function provePassword(link: ServerLink, request: LoginRequest): Promise<Proof> {
  let without = "";
  for (const suiteId of suitesToOffer(request)) {
    const proof = await tryPassword(link, { ...request, suiteId }).catch((error) => {
      if (!isWithoutSuite(error, suiteId)) throw error;
      without = " (this server has no P-256)";
      return null;
    });
    if (proof) return proof;
  }
  throw new QpqError("loginFailed", `Cannot log in: the user name or the password is wrong${without}`);
}

/** A server that does not have P-256 knows no message of its. */
function isWithoutSuite(error: unknown, suiteId: number): boolean {
  return suiteId === SUITE_P256 && error instanceof QpqError && error.code === "malformedRequest";
}

/** Null for a wrong name or password, or an account of another suite. */
async function tryPassword(
  { connection, hello }: ServerLink,
  request: LoginRequest & { suiteId: number },
): Promise<Proof | null> {
  const { userName, password, suiteId, keyStretching } = request;
  const suite = await clientSuite(suiteId, keyStretching);
  const started = await suite.startLogin(passwordText(password));
  const answer = await connection.call("loginStart", { userName, suiteIds: [suiteId], ke1: started.ke1 });
  if (answer.suiteId !== suiteId) throw refusedSuite(answer.suiteId, request);
  const finished = await started.finish(answer.ke2, hello.realmId);
  return finished && { handle: answer.handle, suiteId, ...finished };
}

function refusedSuite(
  answered: number,
  { userName, suiteId, suiteSeen }: LoginRequest & { suiteId: number },
): QpqError {
  const name = (id: number) => OPAQUE_SUITE_NAMES.get(id) ?? `number ${id}`;
  const seen = suiteSeen === suiteId ? `${userName} has logged in with ${name(suiteSeen)} before, and ` : "";
  return new QpqError(
    "internal",
    `Refused to log in: ${seen}the server answered OPAQUE suite ${name(answered)} where ${
      name(suiteId)
    } was ` +
      "offered. A server of ours does not do that: somebody may want the weaker suite. The password was not given away",
  );
}

/** Resumes a session by the device's signature over this connection's nonce and the pinned certificate. */
export async function resume(
  link: ServerLink,
  session: { sessionId: SessionId; device: OwnDevice },
): Promise<{ accountId: AccountId; deviceSigned: boolean }> {
  const sessionId = fromHex(session.sessionId);
  const signature = await signWithLabel(
    session.device.key.privateKey,
    "qpq resume",
    link.hello.serverNonce,
    sessionId,
    link.pinnedLeafSha256 ?? new Uint8Array(32),
  );
  const answer = await link.connection.call("resume", { sessionId, signature });
  if (!equal(answer.deviceId, fromHex(session.device.deviceId))) {
    throw new QpqError("internal", "The server resumed another device");
  }
  return { accountId: idOf(answer.accountId), deviceSigned: answer.deviceSigned };
}

/** Signs this device with the account key, so that others accept it. */
export async function signThisDevice(
  link: ServerLink,
  own: { account: OwnAccount; device: OwnDevice },
): Promise<void> {
  const { accountId, key } = own.account;
  const { deviceId } = own.device;
  const accountSignature = await signDevice(key.privateKey, {
    accountId,
    deviceId,
    deviceKey: own.device.key.publicKey,
  });
  await link.connection.call("signDevice", { accountSignature });
}

/**
 * Makes `password` the account's, and wraps the account key anew in the same request. Needs a login on this
 * connection within 5 minutes; ends the account's other sessions.
 */
export async function changePassword(
  link: ServerLink,
  change: { account: OwnAccount; password: string; keyStretching?: KeyStretching | undefined },
): Promise<void> {
  const { userName, key } = change.account;
  const suite = await clientSuite(SUITE_RISTRETTO255, change.keyStretching);
  const record = await suite.startRecord(passwordText(change.password));
  const { handle, registrationResponse } = await link.connection.call("changePasswordStart", {
    suiteId: SUITE_RISTRETTO255,
    registrationRequest: record.request,
  });
  const { registrationRecord, exportKey } = await record.finish(registrationResponse, link.hello.realmId);
  const wrappedAccountKey = await wrapAccountKey(key, { exportKey, userName });
  await link.connection.call("changePasswordFinish", { handle, registrationRecord, wrappedAccountKey });
}

/** The account's devices. */
export async function listDevices(link: ServerLink): Promise<DeviceInfo[]> {
  const { devices } = await link.connection.call("listDevices", {});
  return devices.map((device) => ({
    deviceId: idOf(device.deviceId),
    name: device.name,
    signed: device.accountSignature.length > 0,
    createdAt: Number(device.createdMs),
    lastSeenAt: Number(device.lastSeenMs),
  }));
}

/**
 * OPAQUE takes a password as bytes; the same letters can be written in several ways, so NFC as RFC 8265 §4.2
 * says.
 */
function passwordText(password: string): string {
  if (password === "") throw new QpqError("loginFailed", "The password is empty");
  return password.normalize("NFC");
}

/** The client's side of a suite. */
async function clientSuite(suiteId: number, keyStretching?: KeyStretching): Promise<ClientSuite> {
  if (suiteId === SUITE_P256) return (await import("./opaque_p256.ts")).p256;
  return await ristretto255(keyStretching);
}

async function hmac(key: Uint8Array, ...content: readonly Uint8Array[]): Promise<Bytes> {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const imported = await crypto.subtle.importKey("raw", copy(key), algorithm, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, concat(...content)));
}

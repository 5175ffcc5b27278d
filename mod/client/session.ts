/**
 * The requests of accounts, logins and devices over one connection: OPAQUE's client side (RFC 9807), the
 * device's binding to the session key, the account key wrapped under the export key. Nothing is kept here:
 * what must survive is returned.
 */
import * as opaque from "@serenity-kit/opaque";
import { base64url, type Bytes, concat, copy, equal, fromBase64url, fromHex, utf8 } from "../base/bytes.ts";
import { QpqError } from "../base/errors.ts";
import { type AccountId, type DeviceId, idOf, randomId, type SessionId } from "../base/ids.ts";
import { CLIENT_KEY_STRETCHING, OPAQUE_SUITES, SUITE_RISTRETTO255 } from "../base/opaque_suite.ts";
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

/** Longest device name (UTF-16 units) that is sent. */
const DEVICE_NAME_CHARACTERS_MAX = 64;

/**
 * How OPAQUE stretches a password on this side. It is sealed into the record: a login has to name what the
 * registration named. Only for passwords that cannot be guessed may it be less than the default.
 */
export type KeyStretching = NonNullable<Parameters<typeof opaque.client.finishLogin>[0]["keyStretching"]>;

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
  account: { userName: string; password: string; invitation?: string; keyStretching?: KeyStretching },
): Promise<AccountId> {
  const userName = normaliseUserName(account.userName);
  const record = await startRecord(account.password, account.keyStretching);
  const { handle, registrationResponse } = await link.connection.call("registerStart", {
    userName,
    suiteId: SUITE_RISTRETTO255,
    registrationRequest: record.request,
    ...(account.invitation === undefined ? {} : { invitation: account.invitation }),
  });
  const { registrationRecord, exportKey } = record.finish(registrationResponse, link.hello.realmId);
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
  request: { userName: string; password: string; device: OwnDevice; keyStretching?: KeyStretching },
): Promise<LoginResult> {
  const { connection, hello } = link;
  const { device } = request;
  const userName = normaliseUserName(request.userName);
  const started = await startLogin(request.password, request.keyStretching);
  const { handle, suiteId, ke2 } = await connection.call("loginStart", {
    userName,
    suiteIds: [...OPAQUE_SUITES],
    ke1: started.ke1,
  });
  if (!OPAQUE_SUITES.includes(suiteId)) {
    throw new QpqError("internal", `The server chose an OPAQUE suite that was not offered: ${suiteId}`);
  }
  const { ke3, sessionKey, exportKey } = started.finish(ke2, hello.realmId);
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
  if (answer.reregister) await changePassword(link, { account, password: request.password });
  return { account, sessionId: idOf(answer.sessionId), newDevice: answer.newDevice };
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
  change: { account: OwnAccount; password: string },
): Promise<void> {
  const { userName, key } = change.account;
  const record = await startRecord(change.password);
  const { handle, registrationResponse } = await link.connection.call("changePasswordStart", {
    suiteId: SUITE_RISTRETTO255,
    registrationRequest: record.request,
  });
  const { registrationRecord, exportKey } = record.finish(registrationResponse, link.hello.realmId);
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

/** The client's half of a registration record. */
async function startRecord(typed: string, keyStretching: KeyStretching = CLIENT_KEY_STRETCHING): Promise<{
  request: Bytes;
  finish(response: Uint8Array, realmId: string): { registrationRecord: Bytes; exportKey: Bytes };
}> {
  await opaque.ready;
  const password = passwordText(typed);
  const { clientRegistrationState, registrationRequest } = opaque.client.startRegistration({ password });
  return {
    request: fromBase64url(registrationRequest),
    finish(response, realmId) {
      const finished = opaque.client.finishRegistration({
        password,
        clientRegistrationState,
        registrationResponse: base64url(response),
        identifiers: { server: realmId },
        keyStretching,
      });
      return {
        registrationRecord: fromBase64url(finished.registrationRecord),
        exportKey: fromBase64url(finished.exportKey),
      };
    },
  };
}

/** The client's half of a login. */
async function startLogin(typed: string, keyStretching: KeyStretching = CLIENT_KEY_STRETCHING): Promise<{
  ke1: Bytes;
  finish(ke2: Uint8Array, realmId: string): { ke3: Bytes; sessionKey: Bytes; exportKey: Bytes };
}> {
  await opaque.ready;
  const password = passwordText(typed);
  const { clientLoginState, startLoginRequest } = opaque.client.startLogin({ password });
  return {
    ke1: fromBase64url(startLoginRequest),
    finish(ke2, realmId) {
      const finished = opaque.client.finishLogin({
        password,
        clientLoginState,
        loginResponse: base64url(ke2),
        identifiers: { server: realmId },
        keyStretching,
      });
      if (!finished) {
        throw new QpqError("loginFailed", "Cannot log in: the user name or the password is wrong");
      }
      return {
        ke3: fromBase64url(finished.finishLoginRequest),
        sessionKey: fromBase64url(finished.sessionKey),
        exportKey: fromBase64url(finished.exportKey),
      };
    },
  };
}

async function hmac(key: Uint8Array, ...content: readonly Uint8Array[]): Promise<Bytes> {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const imported = await crypto.subtle.importKey("raw", copy(key), algorithm, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, concat(...content)));
}

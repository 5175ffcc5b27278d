/**
 * LoginStart, LoginFinish, Resume. Until a key is proven there is one answer, `loginFailed`, for whatever is
 * wrong, and the same work is done for it: an unknown user is answered under the oldest setup in use with as many
 * store reads, and so is an account whose record is of another suite than the asker's KE1; an unknown session costs as many signature checks as a wrong signature.
 */
import { type Bytes, concat, equalConstantTime, fromHex, utf8 } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import { type AccountId, type DeviceId, ID_BYTES, randomId, type SessionId } from "../base/ids.ts";
import { OPAQUE_SIZES, OPAQUE_SUITES } from "../base/opaque_suite.ts";
import { verifyWithLabel } from "../base/sign_with_label.ts";
import { normaliseUserName } from "../base/user_name.ts";
import type { Account, AccountStore, ServerNotice, SessionState, SessionStore } from "../store/store.ts";
import { type AuthEvents, type ConnectionAuth, type Login, requireNoLogin } from "./connection_auth.ts";
import type { OpaquePool } from "./opaque.ts";
import type { PendingExchanges } from "./pending.ts";
import type { OpaqueSetups } from "./setups.ts";

/** How long after LoginFinish a connection may do what needs the password. */
export const FRESH_LOGIN_MS = 5 * 60_000;

/** A session in use tells the store so no more often than this, */
export const TOUCH_INTERVAL_MS = 3_600_000;
/** and four times within the time after which it counts as idle. */
const TOUCHES_BEFORE_IDLE = 4;

/** How often a session in use tells the store so. */
export function touchIntervalMs(sessionIdleMs: number): number {
  return Math.min(TOUCH_INTERVAL_MS, sessionIdleMs / TOUCHES_BEFORE_IDLE);
}

/** Most characters of a device's name. */
export const DEVICE_NAME_CHARACTERS_MAX = 64;

/** For clients that did not pin a certificate. */
const NO_PIN = new Uint8Array(32);

/** A valid point (RFC 8032's base point) to check signatures against when there is no session: costs the same. */
const NO_KEY = fromHex("5866666666666666666666666666666666666666666666666666666666666666");

/** First half of a login. */
export interface LoginStart {
  readonly userName: string;
  readonly suiteIds: readonly number[];
  readonly ke1: Uint8Array;
}

/** Answer to {@link LoginStart}; its sizes are the same for every user name. */
export interface LoginStarted {
  readonly handle: number;
  readonly suiteId: number;
  readonly ke2: Uint8Array;
}

/** Second half of a login; the fields are those of LoginFinishRequest. */
export interface LoginFinish {
  readonly handle: number;
  readonly ke3: Uint8Array;
  readonly deviceId: DeviceId;
  readonly deviceKey: Uint8Array;
  readonly deviceName: string;
  readonly deviceBinding: Uint8Array;
  readonly signature: Uint8Array;
}

/** What a login gives. */
export interface LoggedIn {
  readonly sessionId: SessionId;
  readonly accountId: AccountId;
  readonly accountKey: Uint8Array;
  readonly wrappedAccountKey: Uint8Array;
  readonly newDevice: boolean;
  readonly deviceSigned: boolean;
  /** The record is of an older setup: the client should change to the same password. */
  readonly reregister: boolean;
}

/** A reconnect. */
export interface Resume {
  readonly sessionId: SessionId;
  readonly signature: Uint8Array;
}

/** What a reconnect gives. */
export interface Resumed {
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
  readonly deviceSigned: boolean;
}

/** The parts that logins need. */
export interface LoginDeps {
  readonly store: Pick<AccountStore, "findAccountByName" | "findAccount"> & SessionStore;
  readonly realmId: string;
  readonly pool: OpaquePool;
  readonly setups: OpaqueSetups;
  readonly pending: PendingExchanges;
  readonly clock: Clock;
  readonly events: AuthEvents;
  readonly limits: {
    readonly devicesMax: number;
    readonly sessionIdleMs: number;
    readonly sessionMs: number;
  };
  readonly deviceAddedNotice: (deviceId: DeviceId) => ServerNotice;
  /** SHA-256 of the certificates that clients may have pinned: the present leaf, and the next if planned. */
  readonly leafHashes: () => readonly Uint8Array[];
}

/** Judges logins. */
export class Logins {
  readonly #deps: LoginDeps;

  constructor(deps: LoginDeps) {
    this.#deps = deps;
  }

  /** Answers KE1 for any well-formed name. */
  async start(auth: ConnectionAuth, request: LoginStart): Promise<LoginStarted> {
    requireNoLogin(auth);
    const { store, pool, setups, pending, realmId } = this.#deps;
    const userName = normaliseUserName(request.userName);
    const { ke1 } = request;
    const suiteId = this.#suiteOf(request);
    pool.requireRoom(suiteId);
    const { handle, answer } = await pending.begin(auth, async () => {
      const found = await store.findAccountByName(userName);
      const setup = found?.credential.suiteId === suiteId
        ? await setups.find(found.credential.setupId)
        : null;
      // Without its setup, or under a retired one, a record is useless: such an account is answered like an unknown one.
      const usable = setup?.retiredAt === null ? setup : null;
      const account = usable ? found : null;
      const secret = (usable ?? setups.oldest(suiteId)).secret;
      const record = account?.credential.record ?? null;
      const { state, ke2 } = await pool.loginStart({
        suiteId,
        setup: secret,
        userName,
        record,
        ke1,
        realmId,
      });
      return { work: { kind: "login", userName, suiteId, state, account }, answer: { suiteId, ke2 } };
    });
    return { handle, ...answer };
  }

  /** Throws `overloaded` when this LoginStart could not be answered: to be asked before anything is done for it. */
  requireRoom(request: Pick<LoginStart, "suiteIds" | "ke1">): void {
    this.#deps.pool.requireRoom(this.#suiteOf(request));
  }

  /** The offered suite that KE1 is of: its size tells. Which suite an account has is never told. */
  #suiteOf({ suiteIds, ke1 }: Pick<LoginStart, "suiteIds" | "ke1">): number {
    const suiteId = OPAQUE_SUITES.find((suite) =>
      suiteIds.includes(suite) && OPAQUE_SIZES.get(suite)?.ke1 === ke1.length &&
      this.#deps.pool.answers(suite)
    );
    if (suiteId !== undefined) return suiteId;
    throw new QpqError("malformedRequest", `Cannot answer KE1 of ${ke1.length} bytes in suites ${suiteIds}`);
  }

  /** Judges KE3, then the device's proofs; makes a session. */
  async finish(auth: ConnectionAuth, request: LoginFinish): Promise<LoggedIn> {
    requireNoLogin(auth);
    auth.loggingIn = true;
    try {
      return await this.#finish(auth, request);
    } finally {
      auth.loggingIn = false;
    }
  }

  async #finish(auth: ConnectionAuth, request: LoginFinish): Promise<LoggedIn> {
    const { pending, events, clock } = this.#deps;
    checkLoginFinish(request);
    const work = pending.take(auth, request.handle, "login");
    if (!work) throw loginFailed("there is no such exchange");
    const event = { auth, userName: work.userName };
    const proven = await this.#proveAll(auth, work, request).catch((error) => {
      if (error instanceof QpqError && error.code === "loginFailed") events.onLoginFailure(event);
      throw error;
    }).finally(() => work.state.fill(0));
    events.onPasswordProven(event);
    const { account, ...session } = await this.#createSession(proven, request);
    const now = clock.now();
    // Also from another suite: the newest setup is one of the strongest.
    const reregister = account.credential.setupId !== this.#deps.setups.newest().setupId;
    auth.login = {
      accountId: account.accountId,
      deviceId: request.deviceId,
      deviceKey: request.deviceKey,
      sessionId: session.sessionId,
      deviceSigned: session.deviceSigned,
      renewsRecord: reregister,
      freshUntil: clock.monotonic() + FRESH_LOGIN_MS,
      createdAt: now,
      touchedAt: now,
    };
    events.onLoginSuccess(event);
    return {
      ...session,
      accountId: account.accountId,
      accountKey: account.accountKey,
      wrappedAccountKey: account.credential.wrappedAccountKey,
      reregister,
    };
  }

  /** The account, when KE3, the binding and the device's signature verify; else throws `loginFailed`. */
  async #proveAll(
    auth: ConnectionAuth,
    work: { suiteId: number; state: Uint8Array; account: Account | null },
    request: LoginFinish,
  ): Promise<Account> {
    const { pool, realmId } = this.#deps;
    const { suiteId, state, account } = work;
    const sessionKey = await pool.loginFinish({ suiteId, state, ke3: request.ke3, realmId });
    if (!sessionKey || !account) throw loginFailed("KE3 does not verify");
    const { deviceKey } = request;
    const content = [fromHex(request.deviceId), deviceKey, auth.serverNonce];
    const binding = await hmacSha256(sessionKey, concat(utf8("qpq/1 device"), ...content));
    sessionKey.fill(0);
    if (!equalConstantTime(binding, request.deviceBinding)) {
      throw loginFailed("the device is not bound to KE3");
    }
    if (!await verifyWithLabel(deviceKey, request.signature, "qpq device", ...content)) {
      throw loginFailed("the device's signature does not verify");
    }
    return account;
  }

  async #createSession(
    proven: Account,
    request: LoginFinish,
  ): Promise<{ account: Account; sessionId: SessionId; newDevice: boolean; deviceSigned: boolean }> {
    const { store, clock, events, limits, deviceAddedNotice } = this.#deps;
    const { accountId } = proven;
    const { deviceId, deviceKey, deviceName } = request;
    const present = await store.findAccount(accountId);
    if (present && !present.enabled) {
      throw new QpqError("accountDisabled", "Cannot log in: the account is disabled");
    }
    const sessionId = randomId<SessionId>();
    const result = await store.createSession({
      sessionId,
      accountId,
      deviceId,
      deviceKey,
      deviceName,
      devicesMax: limits.devicesMax,
      deviceAddedNotice: deviceAddedNotice(deviceId),
      now: clock.now(),
    });
    if (result.status === "noAccount") throw loginFailed("the account is gone");
    if (result.status !== "created") throw new QpqError(result.status, `Cannot log in: ${result.status}`);
    // A change of password, a reset or a disabling ends the sessions that it sees. One that came between KE2
    // and this session is only seen here.
    const account = await store.findAccount(accountId);
    if (!account?.enabled || !sameRecord(account, proven)) {
      await store.endSession(sessionId);
      throw loginFailed("the password was changed or the account disabled meanwhile");
    }
    events.onSessionsEnded({ accountId, deviceId, except: sessionId });
    const { newDevice, deviceSigned } = result;
    return { account, sessionId, newDevice, deviceSigned };
  }

  /** Judges a reconnect by the device's signature. */
  async resume(auth: ConnectionAuth, request: Resume): Promise<Resumed> {
    requireNoLogin(auth);
    auth.loggingIn = true;
    try {
      const session = await this.#provenSession(auth, request);
      const { accountId, deviceId, deviceKey, sessionId, deviceSigned, createdAt } = session;
      const touchedAt = session.lastSeenAt;
      auth.login = {
        accountId,
        deviceId,
        deviceKey,
        sessionId,
        deviceSigned,
        renewsRecord: false,
        freshUntil: 0,
        createdAt,
        touchedAt,
      };
      await this.touch(auth.login);
      return { accountId, deviceId, deviceSigned };
    } finally {
      auth.loggingIn = false;
    }
  }

  async #provenSession(auth: ConnectionAuth, request: Resume): Promise<SessionState> {
    const { store, clock, leafHashes } = this.#deps;
    const { sessionId, signature } = request;
    const session = await store.findSession(sessionId);
    let proven = false;
    for (const leafHash of [...leafHashes(), NO_PIN]) {
      const content = [auth.serverNonce, fromHex(sessionId), leafHash];
      const verified = await verifyWithLabel(
        session?.deviceKey ?? NO_KEY,
        signature,
        "qpq resume",
        ...content,
      );
      proven = session !== null && verified;
      if (proven) break; // only who has a session's key sees a shorter time
    }
    if (!session || !proven) throw loginFailed("no such session, or the signature does not verify");
    if (session.deviceRevoked) throw new QpqError("deviceRevoked", "Cannot resume: the device was revoked");
    if (!session.accountEnabled) {
      throw new QpqError("accountDisabled", "Cannot resume: the account is disabled");
    }
    if (session.ended || this.#isOver(session, clock.now())) {
      throw new QpqError("sessionExpired", "Cannot resume: the session has ended");
    }
    return session;
  }

  #isOver(session: { createdAt: number; lastSeenAt: number }, now: number): boolean {
    const { sessionIdleMs, sessionMs } = this.#deps.limits;
    return now - session.lastSeenAt >= sessionIdleMs || now - session.createdAt >= sessionMs;
  }

  /**
   * Keeps the session of a live connection from counting as idle; writes at most once an hour. Ends it when
   * it is too old.
   */
  async touch(login: Login): Promise<void> {
    const { store, clock, events, limits } = this.#deps;
    const now = clock.now();
    if (now - login.createdAt >= limits.sessionMs) {
      const { accountId, sessionId } = login;
      await store.endSession(sessionId);
      events.onSessionsEnded({ accountId, sessionId });
    } else if (now - login.touchedAt >= touchIntervalMs(limits.sessionIdleMs)) {
      login.touchedAt = now; // before the await: requests come side by side
      await store.touchSession(login.sessionId, now);
    }
  }
}

function loginFailed(reason: string): QpqError {
  return new QpqError("loginFailed", `Cannot log in: ${reason}`);
}

function sameRecord(a: Account, b: Account): boolean {
  return equalConstantTime(a.credential.record, b.credential.record);
}

/** Refuses what no client of ours sends, before the handle is used up. */
function checkLoginFinish(request: LoginFinish): void {
  const { ke3, deviceId, deviceKey, deviceName } = request;
  const printable = !/\p{Cc}/u.test(deviceName) && [...deviceName].length <= DEVICE_NAME_CHARACTERS_MAX;
  const measured = [...OPAQUE_SIZES.values()].some((sizes) => sizes.ke3 === ke3.length) &&
    deviceId.length === 2 * ID_BYTES &&
    deviceKey.length === 32;
  if (!printable || !measured) {
    throw new QpqError("malformedRequest", "Cannot read LoginFinish: a field is outside its bounds");
  }
}

async function hmacSha256(key: Bytes, content: Bytes): Promise<Bytes> {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const imported = await crypto.subtle.importKey("raw", key, algorithm, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, content));
}

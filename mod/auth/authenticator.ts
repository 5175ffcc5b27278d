/**
 * Who may do what: admission, registration, logins, sessions, devices, invitations, as semantics.md's
 * "Admission" and "Login, sessions, devices" say. Takes and gives plain values; charges no limits itself, but
 * tells its {@link AuthEvents} what they need.
 */
import type { Clock } from "../base/clock.ts";
import { fromHex } from "../base/bytes.ts";
import { QpqError } from "../base/errors.ts";
import type { AccountId, BlobHash, DeviceId } from "../base/ids.ts";
import { verifyWithLabel } from "../base/sign_with_label.ts";
import { normaliseUserName } from "../base/user_name.ts";
import type { Account, Device, ServerNotice, Store } from "../store/store.ts";
import { type AuthEvents, ConnectionAuth, requireFreshLogin, requireLogin } from "./connection_auth.ts";
import { type LoggedIn, type LoginFinish, Logins, type LoginStart, type LoginStarted } from "./logins.ts";
import type { Resume, Resumed } from "./logins.ts";
import type { OpaquePool } from "./opaque.ts";
import { PENDING_MAX, PendingExchanges } from "./pending.ts";
import { type ChangePasswordFinish, type ChangePasswordStart, Registration } from "./registration.ts";
import type { RecordStarted, RegisterFinish, RegisterStart } from "./registration.ts";
import type { OpaqueSetups } from "./setups.ts";
import { type AccessTokens, hashInvitation, makeInvitation } from "./tokens.ts";

export { type AuthEvents, ConnectionAuth, type Login, type LoginEvent } from "./connection_auth.ts";
export type { SessionsEnded } from "./connection_auth.ts";

/** Bounds, from the configuration. */
export interface AuthLimits {
  /** Devices of an account. */
  readonly devicesMax: number;
  /** Sessions end when they were not used for so long, */
  readonly sessionIdleMs: number;
  /** and at this age. */
  readonly sessionMs: number;
  /** How long an invitation is good for, and the longest that may be asked for. */
  readonly invitationTtlMs: number;
  /** Unused invitations of one account. */
  readonly invitationsOpenMax: number;
  /** Exchanges begun and not finished, of all connections. Default 4,096. */
  readonly pendingMax?: number;
}

/** Who may invite: nobody, those who also have the access token, every user. */
export type InvitationPolicy = "off" | "token" | "users";

/** The parts of an authenticator. */
export interface AuthenticatorDeps {
  readonly store: Store;
  readonly pool: OpaquePool;
  readonly setups: OpaqueSetups;
  readonly tokens: AccessTokens;
  readonly clock: Clock;
  readonly limits: AuthLimits;
  readonly invitations: InvitationPolicy;
  readonly events: AuthEvents;
  /** For the account's other devices. */
  readonly deviceAddedNotice: (deviceId: DeviceId) => ServerNotice;
  readonly deviceRevokedNotice: (deviceId: DeviceId) => ServerNotice;
  /** SHA-256 of the certificates that clients may have pinned: the present leaf, and the next if planned. */
  readonly leafHashes: () => readonly Uint8Array[];
}

/** An account as its contacts see it. */
export interface PublicAccount {
  readonly accountId: AccountId;
  readonly userName: string;
  readonly accountKey: Uint8Array;
  /** Of others only devices that the account key has signed. */
  readonly devices: readonly Device[];
}

/** An invitation that was just made: the only time that its code is seen. */
export interface Invitation {
  readonly code: string;
  readonly expiresAt: number;
}

/** Everything about who somebody is. */
export class Authenticator {
  readonly #deps: AuthenticatorDeps;
  readonly #pending: PendingExchanges;
  readonly #registration: Registration;
  readonly #logins: Logins;

  constructor(deps: AuthenticatorDeps) {
    this.#deps = deps;
    this.#pending = new PendingExchanges(deps.clock, {
      max: deps.limits.pendingMax ?? PENDING_MAX,
      onAbandoned: (auth, work) => {
        if (work.kind !== "login") return;
        work.state.fill(0);
        deps.events.onLoginFailure({ auth, userName: work.userName });
      },
    });
    const pending = this.#pending;
    this.#registration = new Registration({ ...deps, pending });
    this.#logins = new Logins({ ...deps, pending, realmId: deps.store.realmId });
  }

  /** State for a new connection, with its nonce. */
  newConnection(): ConnectionAuth {
    return new ConnectionAuth();
  }

  /** Call it when the connection is gone: what it had begun ends; an unfinished login counts as failed. */
  connectionClosed(auth: ConnectionAuth): void {
    auth.closed = true;
    this.#pending.abandonAll(auth);
  }

  /** Exchanges begun and not finished. */
  get pendingCount(): number {
    return this.#pending.count;
  }

  /** Judges Hello's access token; "" is none. Throws `invalidToken`. Without configured tokens all are admitted. */
  async admit(auth: ConnectionAuth, accessToken: string): Promise<boolean> {
    const { tokens, clock } = this.#deps;
    if (tokens.none) auth.admitted = true;
    else if (accessToken !== "") {
      if (!await tokens.accepts(accessToken, clock.now())) {
        throw new QpqError("invalidToken", "Cannot admit a connection: wrong access token");
      }
      auth.admitted = true;
    }
    return auth.admitted;
  }

  /** See {@link Registration.registerStart}. */
  registerStart(auth: ConnectionAuth, request: RegisterStart): Promise<RecordStarted> {
    return this.#registration.registerStart(auth, request);
  }

  /** See {@link Registration.registerFinish}. */
  registerFinish(auth: ConnectionAuth, request: RegisterFinish): Promise<{ accountId: AccountId }> {
    return this.#registration.registerFinish(auth, request);
  }

  /** See {@link Logins.requireRoom}. */
  requireLoginRoom(request: Pick<LoginStart, "suiteIds" | "ke1">): void {
    this.#logins.requireRoom(request);
  }

  /** See {@link Logins.start}. */
  loginStart(auth: ConnectionAuth, request: LoginStart): Promise<LoginStarted> {
    return this.#logins.start(auth, request);
  }

  /** See {@link Logins.finish}. */
  loginFinish(auth: ConnectionAuth, request: LoginFinish): Promise<LoggedIn> {
    return this.#logins.finish(auth, request);
  }

  /** See {@link Logins.resume}. */
  resume(auth: ConnectionAuth, request: Resume): Promise<Resumed> {
    return this.#logins.resume(auth, request);
  }

  /** Call it now and then for connections in use: see {@link Logins.touch}. */
  async touch(auth: ConnectionAuth): Promise<void> {
    if (auth.login) await this.#logins.touch(auth.login);
  }

  /** Ends the caller's session. */
  async logout(auth: ConnectionAuth): Promise<void> {
    const { accountId, sessionId } = requireLogin(auth);
    await this.#deps.store.endSession(sessionId);
    this.#deps.events.onSessionsEnded({ accountId, sessionId, initiator: auth });
  }

  /** See {@link Registration.changePasswordStart}. Needs a fresh login. */
  changePasswordStart(auth: ConnectionAuth, request: ChangePasswordStart): Promise<RecordStarted> {
    return this.#registration.changePasswordStart(auth, request);
  }

  /** See {@link Registration.changePasswordFinish}. */
  changePasswordFinish(auth: ConnectionAuth, request: ChangePasswordFinish): Promise<void> {
    return this.#registration.changePasswordFinish(auth, request);
  }

  /** Deletes the caller's account. Needs a fresh login. Returns what is left to clear away outside the store. */
  async deleteAccount(auth: ConnectionAuth): Promise<{ devices: DeviceId[]; orphanedBlobs: BlobHash[] }> {
    const { store, clock, events } = this.#deps;
    const { accountId } = requireFreshLogin(auth, clock);
    const deleted = await store.deleteAccount(accountId, clock.now());
    events.onSessionsEnded({ accountId, initiator: auth });
    return deleted ?? { devices: [], orphanedBlobs: [] };
  }

  /** The caller's devices, oldest first. */
  listDevices(auth: ConnectionAuth): Promise<Device[]> {
    return this.#deps.store.listDevices(requireLogin(auth).accountId);
  }

  /** Revokes one of the caller's devices, the present one included. Needs a fresh login. */
  async revokeDevice(auth: ConnectionAuth, deviceId: DeviceId): Promise<void> {
    const { store, clock, events, deviceRevokedNotice } = this.#deps;
    const login = requireFreshLogin(auth, clock);
    const { accountId } = login;
    if (!await store.revokeDevice(accountId, deviceId, deviceRevokedNotice(deviceId), clock.now())) {
      throw new QpqError("notFound", "Cannot revoke: no such device of this account");
    }
    const own = login.deviceId === deviceId ? { initiator: auth } : {};
    events.onSessionsEnded({ accountId, deviceId, ...own });
  }

  /** Stores the account key's signature over the caller's device. Throws `invalidSignature`. */
  async signDevice(auth: ConnectionAuth, signature: Uint8Array): Promise<void> {
    const login = requireLogin(auth);
    const { accountId, deviceId, deviceKey } = login;
    const account = await this.#account(accountId);
    const content = [fromHex(accountId), fromHex(deviceId), deviceKey];
    if (!await verifyWithLabel(account.accountKey, signature, "qpq device key", ...content)) {
      throw new QpqError("invalidSignature", "Cannot sign the device: not by the account key");
    }
    if (!await this.#deps.store.signDevice(accountId, deviceId, signature)) {
      throw new QpqError("notFound", "Cannot sign the device: it is gone");
    }
    login.deviceSigned = true;
  }

  /** Has the account key signed the caller's device, perhaps on another connection? */
  async isDeviceSigned(auth: ConnectionAuth): Promise<boolean> {
    const login = requireLogin(auth);
    if (!login.deviceSigned) {
      const devices = await this.#deps.store.listDevices(login.accountId);
      login.deviceSigned = devices.some((device) =>
        device.deviceId === login.deviceId && device.accountSignature
      );
    }
    return login.deviceSigned;
  }

  /** An account by id. Throws `notFound`. */
  async getAccount(auth: ConnectionAuth, accountId: AccountId): Promise<PublicAccount> {
    const login = requireLogin(auth);
    const account = await this.#account(accountId);
    return this.#publicAccount(account, { own: login.accountId === accountId });
  }

  /** How others see `account`. */
  async #publicAccount(account: Account, options: { own: boolean }): Promise<PublicAccount> {
    const { accountId, userName, accountKey } = account;
    const all = await this.#deps.store.listDevices(accountId);
    const devices = options.own ? all : all.filter((device) => device.accountSignature);
    return { accountId, userName, accountKey, devices };
  }

  async #account(accountId: AccountId): Promise<Account> {
    const account = await this.#deps.store.findAccount(accountId);
    if (!account) throw new QpqError("notFound", "Cannot find the account: never there or deleted");
    return account;
  }

  /** Makes an invitation of the caller. `ttlMs` 0: the server's default, which is also the most. */
  async createInvitation(auth: ConnectionAuth, ttlMs: number): Promise<Invitation> {
    const { invitations, limits } = this.#deps;
    const { accountId } = requireLogin(auth);
    if (invitations === "off" || (invitations === "token" && !auth.admitted)) {
      throw new QpqError("invitationsOff", `Cannot invite: invitations are for ${invitations}`);
    }
    return this.#invite({
      createdBy: accountId,
      forAccount: null,
      ttlMs,
      maxOpen: limits.invitationsOpenMax,
    });
  }

  /** For the operator: an invitation of nobody, whatever users may do. */
  invite(ttlMs: number): Promise<Invitation> {
    return this.#invite({ createdBy: null, forAccount: null, ttlMs, maxOpen: Number.MAX_SAFE_INTEGER });
  }

  /** For the operator: an invitation to register the same account again. Throws `notFound`. */
  async inviteToReset(userName: string, ttlMs: number): Promise<Invitation> {
    const account = await this.#deps.store.findAccountByName(normaliseUserName(userName));
    if (!account) throw new QpqError("notFound", "Cannot reset: no such account");
    const forAccount = account.accountId;
    return this.#invite({ createdBy: null, forAccount, ttlMs, maxOpen: Number.MAX_SAFE_INTEGER });
  }

  async #invite(
    input: { createdBy: AccountId | null; forAccount: AccountId | null; ttlMs: number; maxOpen: number },
  ): Promise<Invitation> {
    const { store, clock, limits } = this.#deps;
    const { createdBy, forAccount, maxOpen } = input;
    const now = clock.now();
    const expiresAt = now + Math.min(input.ttlMs || limits.invitationTtlMs, limits.invitationTtlMs);
    const code = makeInvitation();
    const sha256 = await hashInvitation(code);
    if (await store.createInvitation({ sha256, createdBy, forAccount, expiresAt, maxOpen, now })) {
      return { code, expiresAt };
    }
    this.#deps.events.onTooManyInvitations?.();
    const message = `Cannot invite as open invitations must be < ${maxOpen}`;
    throw new QpqError("rateLimited", message, { retryAfterMs: limits.invitationTtlMs });
  }

  /** For the operator: disabling ends all sessions and keeps everything else. Throws `notFound`. */
  async setAccountEnabled(accountId: AccountId, enabled: boolean): Promise<void> {
    if (!await this.#deps.store.setAccountEnabled(accountId, enabled)) {
      throw new QpqError("notFound", "Cannot enable or disable: no such account");
    }
    if (!enabled) this.#deps.events.onSessionsEnded({ accountId });
  }
}

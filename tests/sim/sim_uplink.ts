/**
 * A device's way to the server: connections that are made again, sessions that are resumed, logins, and what ends them.
 * What is asked and answered goes to the model.
 */
import { type Bytes, concat, copy, equal, fromHex, hex, randomBytes, utf8 } from "../../mod/base/bytes.ts";
import { delay } from "../../mod/base/clock.ts";
import { QpqError } from "../../mod/base/errors.ts";
import type { AccountId, DeviceId } from "../../mod/base/ids.ts";
import { OPAQUE_SUITES, SUITE_RISTRETTO255 } from "../../mod/base/opaque_suite.ts";
import { signContent } from "../../mod/base/sign_with_label.ts";
import { CallTimeoutError, ClientConnection, ConnectionLostError } from "../../mod/client/connection.ts";
import { ConnectError } from "../../mod/transport/connect_error.ts";
import { beginLogin, beginRegistration } from "../support/opaque_client.ts";
import { LATEST_MS } from "./model.ts";
import { SeededKeyPair } from "./seeded_runtime.ts";
import type { SimRandom } from "./sim_random.ts";
import { SETTINGS } from "./sim_server.ts";
import type { SimWorld } from "./sim_world.ts";

/** An account, shared by its devices. */
export interface SimAccount {
  readonly userName: string;
  readonly accountId: AccountId;
  readonly key: SeededKeyPair;
  /** Passwords that may be the present one, the likeliest first: after a change whose answer was lost there are two. */
  passwords: string[];
  /** When a change of the record was last under way. */
  changedAt: number;
  /** Changes that were begun. */
  changes: number;
}

/** What makes a device who it is; a revoked one begins anew. */
export interface SimIdentity {
  readonly deviceId: DeviceId;
  readonly key: SeededKeyPair;
  readonly signed: boolean;
}

/** What a device is made of. */
export interface SimDeviceOptions {
  readonly account: SimAccount;
  readonly name: string;
  readonly identity: SimIdentity;
  readonly session: string | null;
  readonly random: SimRandom;
  readonly address: string;
}

/** How long a call waits for its answer. */
export const CALL_MS = 10_000;
const RETRY_MS_MAX = 4_000;
/** Nothing is tried for longer: well within the window in which the server remembers message ids. */
export const TRY_MS = SETTINGS.limits.idempotencyTtlMs / 2;
const TRANSIENT = ["overloaded", "storeUnavailable", "storeFull", "rateLimited", "shuttingDown"];

/** What was tried for too long without an answer. */
export class GaveUp extends Error {
  override name = "GaveUp";
}

/** See the head of this file. */
export class SimUplink {
  readonly account: SimAccount;
  readonly name: string;
  identity: SimIdentity;
  session: string | null;
  readonly #world: SimWorld;
  readonly #random: SimRandom;
  readonly #address: string;
  #link: ClientConnection | null = null;
  #opening: Promise<ClientConnection> | null = null;

  constructor(world: SimWorld, options: SimDeviceOptions) {
    this.#world = world;
    this.account = options.account;
    this.name = options.name;
    this.identity = options.identity;
    this.session = options.session;
    this.#random = options.random;
    this.#address = options.address;
  }

  get deviceId(): DeviceId {
    return this.identity.deviceId;
  }

  // --- connections and attempts -----------------------------------------------------------------------------

  /** Does `work` on a connection that is logged in, until it is answered. GaveUp after {@link TRY_MS}. */
  async trying<Value>(work: (link: ClientConnection) => Promise<Value>): Promise<Value> {
    const { clock } = this.#world;
    const until = clock.now() + TRY_MS;
    const device = this.deviceId;
    while (clock.now() < until) {
      try {
        const link = await this.connected();
        if (this.deviceId !== device) break; // it was revoked, and what it wanted to do with it
        return await work(link);
      } catch (error) {
        if (isSessionEnd(error)) await this.disconnect(); // the next Resume tells what it is
        else if (!isTransient(error)) throw error;
      }
      await delay(clock, this.#random.int(50, RETRY_MS_MAX));
    }
    throw new GaveUp(this.name);
  }

  /** The present connection, or a new one that is logged in. */
  connected(): Promise<ClientConnection> {
    if (this.#link?.isOpen) return Promise.resolve(this.#link);
    this.#opening ??= this.#open().finally(() => this.#opening = null);
    return this.#opening;
  }

  async #open(): Promise<ClientConnection> {
    const hello = await this.hello("");
    const device = this.deviceId;
    try {
      if (this.session === null) await this.#logIn(hello);
      else await this.#resume(hello);
      if (this.deviceId !== device) throw new ConnectError("failed", "The device was revoked meanwhile");
    } catch (error) {
      await hello.link.close();
      throw error;
    }
    this.#link = hello.link;
    return hello.link;
  }

  /** A connection that said Hello. It belongs to the caller. */
  async hello(accessToken: string): Promise<{ link: ClientConnection; nonce: Bytes; realmId: string }> {
    const { network, clock } = this.#world;
    const connection = await network.connect({ hostname: this.#address, port: 4000 });
    const link = await ClientConnection.open(connection, { clock });
    try {
      const hello = await link.call("hello", { accessToken }, { timeoutMs: CALL_MS });
      return { link, nonce: copy(hello.serverNonce), realmId: hello.realmId };
    } catch (error) {
      await link.close();
      throw error;
    }
  }

  /** Lets go of the connection; the next request makes another. */
  async disconnect(): Promise<void> {
    const link = this.#link;
    this.#link = null;
    await link?.close();
  }

  /** A request that is sent until it is answered. */
  call: ClientConnection["call"] = (name, request, options) =>
    this.trying((link) => link.call(name, request, { timeoutMs: CALL_MS, ...options }));

  // --- sessions ---------------------------------------------------------------------------------------------

  async #resume(hello: { link: ClientConnection; nonce: Bytes }): Promise<void> {
    const { model, configuration } = this.#world;
    const session = this.session!;
    const begun = model.place();
    const pinned = this.#random.chance(0.5) ? configuration.leafHashes[0]! : new Uint8Array(32);
    const content = [hello.nonce, fromHex(session), pinned];
    const signature = this.identity.key.sign(signContent("qpq resume", ...content));
    try {
      await hello.link.call("resume", { sessionId: fromHex(session), signature }, { timeoutMs: CALL_MS });
    } catch (error) {
      if (error instanceof QpqError && !isTransient(error)) {
        // A certificate that was replaced on the way is no reason to end the session.
        const replaced = !equal(pinned, new Uint8Array(32)) && !configuration.leafHashes.includes(pinned);
        if (!replaced) {
          model.resumeRefused(session, error.code);
          if (this.session === session) this.session = null;
          if (error.code === "deviceRevoked") this.#beginAnew();
        }
        throw new ConnectError("failed", "The session has ended", { cause: error });
      }
      throw error;
    }
    model.resumed(session, begun);
  }

  /** The device was revoked: another one takes its place. */
  #beginAnew(): void {
    this.identity = {
      deviceId: hex(randomBytes(16)) as DeviceId,
      key: new SeededKeyPair(randomBytes(32)),
      signed: false,
    };
    this.session = null;
    void this.disconnect();
  }

  /** A login with what may be the password; the session that it gave. */
  async #logIn(hello: { link: ClientConnection; nonce: Bytes; realmId: string }): Promise<string> {
    const { model, clock } = this.#world;
    const { account } = this;
    const { deviceId, key } = this.identity;
    const begunAt = clock.now();
    const password = this.#random.pick(account.passwords);
    const call = { timeoutMs: CALL_MS };
    const started = beginLogin(password, hello.realmId);
    const answer = await hello.link.call("loginStart", {
      userName: account.userName,
      suiteIds: [...OPAQUE_SUITES],
      ke1: started.ke1,
    }, call);
    const finished = started.finish(answer.ke2);
    if (!finished) return this.#loginRefused(password, begunAt);
    const content = [fromHex(deviceId), key.publicKey, hello.nonce];
    const mac = await crypto.subtle.importKey(
      "raw",
      finished.sessionKey,
      { name: "HMAC", hash: "SHA-256" },
      false,
      ["sign"],
    );
    const bound = concat(utf8("qpq/1 device"), ...content);
    const begun = model.place();
    const older = model.ending((session) => session.device === deviceId);
    try {
      const login = await hello.link.call("loginFinish", {
        handle: answer.handle,
        ke3: finished.ke3,
        deviceId: fromHex(deviceId),
        deviceKey: key.publicKey,
        deviceName: this.name,
        deviceBinding: new Uint8Array(await crypto.subtle.sign("HMAC", mac, bound)),
        signature: key.sign(signContent("qpq device", ...content)),
      }, call);
      model.ended(older);
      const own = hex(login.sessionId);
      this.session = own;
      model.loggedIn(own, { device: deviceId, account: account.userName, begun, others: older });
      if (!login.deviceSigned) await this.#signDevice(hello.link);
      if (login.reregister) await this.#changeRecord(hello, password, { own, renews: true });
      return own;
    } catch (error) {
      if (!(error instanceof QpqError)) throw error;
      if (error.code === "loginFailed") return this.#loginRefused(password, begunAt);
      if (error.code === "sessionExpired") { // ended by another device at the same moment
        throw new ConnectError("failed", "The session has ended", { cause: error });
      }
      if (error.code === "deviceConflict") { // revoked by another device, which has not been heard
        this.#beginAnew();
        throw new ConnectError("failed", "The device was revoked");
      }
      throw error;
    }
  }

  /** Right passwords log in, unless one was being changed. */
  #loginRefused(password: string, begunAt: number): never {
    const { passwords, changedAt, userName } = this.account;
    const settled = changedAt + LATEST_MS < begunAt;
    if (settled && passwords.length === 1 && passwords[0] === password) {
      this.#world.model.lockedOut(`log in as ${userName} with the right password`);
    }
    throw new ConnectError("failed", "The login was refused");
  }

  async #signDevice(link: ClientConnection): Promise<void> {
    const { accountId, key } = this.account;
    const content = [fromHex(accountId), fromHex(this.deviceId), this.identity.key.publicKey];
    const accountSignature = key.sign(signContent("qpq device key", ...content));
    await link.call("signDevice", { accountSignature }, { timeoutMs: CALL_MS });
    this.identity = { ...this.identity, signed: true };
  }

  /** ChangePassword on a fresh login: to another password, or the same under a new setup. */
  async #changeRecord(
    hello: { link: ClientConnection; realmId: string },
    password: string,
    { own, renews }: { own: string; renews: boolean },
  ): Promise<void> {
    const { clock, model } = this.#world;
    const { account } = this;
    const client = beginRegistration(password, hello.realmId);
    const call = { timeoutMs: CALL_MS };
    const { handle, registrationResponse } = await hello.link.call("changePasswordStart", {
      suiteId: SUITE_RISTRETTO255,
      registrationRequest: client.request,
    }, call);
    const { record } = client.finish(registrationResponse);
    // Which of two changes at the same time came last is not known.
    const alone = account.changedAt + LATEST_MS < clock.now();
    const change = ++account.changes;
    account.changedAt = clock.now();
    if (!account.passwords.includes(password)) account.passwords.push(password);
    const others = model.ending(({ id, account: of }) => !renews && of === account.userName && id !== own);
    await hello.link.call("changePasswordFinish", {
      handle,
      registrationRecord: record,
      wrappedAccountKey: utf8("wrapped"),
    }, call);
    account.changedAt = clock.now();
    if (!renews && alone && account.changes === change) account.passwords = [password];
    model.ended(others);
  }

  /** Logs in afresh and changes the password: the other sessions of the account end. */
  async changePassword(): Promise<void> {
    await this.disconnect();
    const { model } = this.#world;
    const hello = await this.hello("").catch(ignoreTransient);
    if (!hello) return;
    const former = this.session;
    try {
      const own = await this.#logIn(hello);
      const password = `password ${model.place()}`;
      await this.#changeRecord(hello, password, { own, renews: false });
    } catch (error) {
      ignoreTransient(error);
    } finally {
      if (this.session === former) this.session = null; // its login may have ended the former session
      await hello.link.close();
    }
  }

  /** Ends the session, and now and then tries to resume it all the same. */
  async logOut(): Promise<void> {
    const { model } = this.#world;
    const session = this.session;
    if (session === null) return;
    const link = await this.connected().catch(ignoreTransient);
    if (!link || this.session !== session) return;
    const ending = model.ending(({ id }) => id === session);
    let sure = false;
    try {
      await link.call("logout", {}, { timeoutMs: CALL_MS });
      model.ended(ending);
      sure = true;
    } catch (error) {
      ignoreEnd(error);
    }
    await this.disconnect();
    // One that has ended must not be resumed; whether it has is not always known.
    if (!sure || this.#random.chance(0.5)) await this.connected().catch(ignoreTransient);
    if (this.session === session) this.session = null;
  }

  /** Revokes the other device of the account, if there is one. */
  async revokeAnother(): Promise<void> {
    const { model, devices } = this.#world;
    const other = devices.find(({ uplink }) => uplink !== this && uplink.account === this.account);
    if (!other) return;
    await this.disconnect();
    const hello = await this.hello("").catch(ignoreTransient);
    if (!hello) return;
    const former = this.session;
    try {
      await this.#logIn(hello);
      const { deviceId } = other;
      model.revoking(deviceId);
      const ending = model.ending(({ device }) => device === deviceId);
      await hello.link.call("revokeDevice", { deviceId: fromHex(deviceId) }, { timeoutMs: CALL_MS });
      model.ended(ending);
      model.revoked(deviceId);
    } catch (error) {
      ignoreEnd(error);
    } finally {
      if (this.session === former) this.session = null;
      await hello.link.close();
    }
  }
}

/** The outcome is open, or the server asks for patience. */
export function isTransient(error: unknown): boolean {
  return error instanceof ConnectionLostError || error instanceof CallTimeoutError ||
    error instanceof ConnectError || (error instanceof QpqError && TRANSIENT.includes(error.code));
}

function isSessionEnd(error: unknown): boolean {
  const ends = ["sessionExpired", "deviceRevoked", "loginRequired"];
  return error instanceof QpqError && ends.includes(error.code);
}

/** Does nothing with what is transient, throws the rest. */
export function ignoreTransient(error: unknown): undefined {
  if (!isTransient(error)) throw error;
}

/** The same for what may meet the end of its own session, a newer subscriber, or what is gone already. */
export function ignoreEnd(error: unknown): void {
  if (error instanceof QpqError && ["replaced", "notFound"].includes(error.code)) return;
  if (!isSessionEnd(error)) ignoreTransient(error);
}

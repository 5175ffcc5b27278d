/** An Authenticator over a real store and pool, with a fake clock, and users and devices that log in to it. */
import { Authenticator, type ConnectionAuth, type InvitationPolicy } from "../../mod/auth/authenticator.ts";
import type { AuthLimits, LoginEvent, SessionsEnded } from "../../mod/auth/authenticator.ts";
import type { LoggedIn, LoginFinish } from "../../mod/auth/logins.ts";
import { OpaquePool } from "../../mod/auth/opaque.ts";
import { OpaqueSetups } from "../../mod/auth/setups.ts";
import { AccessTokens } from "../../mod/auth/tokens.ts";
import { type Bytes, concat, fromHex, randomBytes, utf8 } from "../../mod/base/bytes.ts";
import { type AccountId, type DeviceId, randomId, type SessionId } from "../../mod/base/ids.ts";
import { SUITE_RISTRETTO255 } from "../../mod/base/opaque_suite.ts";
import { type SignatureLabel, signContent } from "../../mod/base/sign_with_label.ts";
import { openStore } from "../../mod/store/open.ts";
import type { ServerNotice, Store } from "../../mod/store/store.ts";
import { FakeClock } from "./fake_clock.ts";
import { beginLogin, beginRegistration } from "./opaque_client.ts";

/** The access token of every world. */
export const ACCESS_TOKEN = "the token";

/** An Ed25519 key pair that signs with labels. */
export class Signer {
  readonly publicKey: Bytes;
  readonly #privateKey: CryptoKey;

  private constructor(publicKey: Bytes, privateKey: CryptoKey) {
    this.publicKey = publicKey;
    this.#privateKey = privateKey;
  }

  static async make(): Promise<Signer> {
    const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]);
    const { publicKey, privateKey } = pair as CryptoKeyPair;
    return new Signer(new Uint8Array(await crypto.subtle.exportKey("raw", publicKey)), privateKey);
  }

  async sign(label: SignatureLabel, ...content: Uint8Array[]): Promise<Bytes> {
    const signed = signContent(label, ...content);
    return new Uint8Array(await crypto.subtle.sign("Ed25519", this.#privateKey, signed));
  }
}

/** A device that can log in. */
export class TestDevice {
  readonly deviceId: DeviceId = randomId();
  readonly signer: Signer;
  name = "phone";

  private constructor(signer: Signer) {
    this.signer = signer;
  }

  static async make(): Promise<TestDevice> {
    return new TestDevice(await Signer.make());
  }

  /** Everything of LoginFinish, done right. */
  async prove(
    auth: ConnectionAuth,
    input: { handle: number; ke3: Uint8Array; sessionKey: Bytes },
  ): Promise<LoginFinish> {
    const { handle, ke3, sessionKey } = input;
    const content = [fromHex(this.deviceId), this.signer.publicKey, auth.serverNonce];
    const algorithm = { name: "HMAC", hash: "SHA-256" };
    const key = await crypto.subtle.importKey("raw", sessionKey, algorithm, false, ["sign"]);
    const bound = concat(utf8("qpq/1 device"), ...content);
    return {
      handle,
      ke3,
      deviceId: this.deviceId,
      deviceKey: this.signer.publicKey,
      deviceName: this.name,
      deviceBinding: new Uint8Array(await crypto.subtle.sign("HMAC", key, bound)),
      signature: await this.signer.sign("qpq device", ...content),
    };
  }
}

/** A registered user. */
export interface TestUser {
  readonly userName: string;
  readonly password: string;
  readonly accountId: AccountId;
  readonly accountSigner: Signer;
}

/** See the head of this file. */
export class AuthWorld implements AsyncDisposable {
  readonly clock = new FakeClock();
  readonly failures: LoginEvent[] = [];
  readonly proven: LoginEvent[] = [];
  readonly successes: LoginEvent[] = [];
  readonly ended: SessionsEnded[] = [];
  readonly store: Store;
  readonly pool: OpaquePool;
  readonly setups: OpaqueSetups;
  readonly authenticator: Authenticator;
  leafHashes: Uint8Array[] = [];
  readonly #dataDir: string;

  private constructor(
    parts: { store: Store; pool: OpaquePool; setups: OpaqueSetups; tokens: AccessTokens; dataDir: string },
    options: AuthWorldOptions,
  ) {
    this.store = parts.store;
    this.pool = parts.pool;
    this.setups = parts.setups;
    this.#dataDir = parts.dataDir;
    const notice = (): ServerNotice => ({
      entryId: randomId(),
      payload: utf8("notice"),
      expiresAt: this.clock.now() + 86_400_000,
    });
    this.authenticator = new Authenticator({
      ...parts,
      clock: this.clock,
      invitations: options.invitations ?? "users",
      limits: {
        devicesMax: 3,
        sessionIdleMs: 30 * 86_400_000,
        sessionMs: 365 * 86_400_000,
        invitationTtlMs: 7 * 86_400_000,
        invitationsOpenMax: 2,
        ...options.limits,
      },
      events: {
        onLoginFailure: (event) => this.failures.push(event),
        onPasswordProven: (event) => this.proven.push(event),
        onLoginSuccess: (event) => this.successes.push(event),
        onSessionsEnded: (event) => this.ended.push(event),
      },
      deviceAddedNotice: notice,
      deviceRevokedNotice: notice,
      leafHashes: () => this.leafHashes,
    });
  }

  static async open(options: AuthWorldOptions = {}): Promise<AuthWorld> {
    const dataDir = await Deno.makeTempDir({ prefix: "qpq-auth-" });
    const store = await openStore({ backend: "sqlcipher", dataDir, keys: ["key of tests"] });
    const pool = await OpaquePool.open({ workers: 1, pendingMax: 64 });
    const setups = await OpaqueSetups.open({ store, pool, clock: new FakeClock() });
    const tokens = await AccessTokens.of(options.open ? [] : [{ token: ACCESS_TOKEN, until: null }]);
    return new AuthWorld({ store, pool, setups, tokens, dataDir }, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool.close();
    await this.store.close();
    await Deno.remove(this.#dataDir, { recursive: true });
  }

  get realmId(): string {
    return this.store.realmId;
  }

  connection(): ConnectionAuth {
    return this.authenticator.newConnection();
  }

  async admitted(): Promise<ConnectionAuth> {
    const auth = this.connection();
    await this.authenticator.admit(auth, ACCESS_TOKEN);
    return auth;
  }

  /** Both halves of a registration. */
  async registerOn(
    auth: ConnectionAuth,
    input: { userName: string; password: string; invitation?: string },
  ): Promise<TestUser> {
    const { userName, password, invitation = "" } = input;
    const client = beginRegistration(password, this.realmId);
    const { handle, response } = await this.authenticator.registerStart(auth, {
      userName,
      suiteId: SUITE_RISTRETTO255,
      request: client.request,
      invitation,
    });
    const { record } = client.finish(response);
    const accountSigner = await Signer.make();
    const { accountId } = await this.authenticator.registerFinish(auth, {
      handle,
      record,
      accountKey: accountSigner.publicKey,
      wrappedAccountKey: utf8("wrapped"),
    });
    return { userName, password, accountId, accountSigner };
  }

  /** A new user, admitted by the token. */
  async register(userName: string, password = "right"): Promise<TestUser> {
    return await this.registerOn(await this.admitted(), { userName, password });
  }

  /** LoginStart, and the client's side of it: `finished` is null when the password is wrong. */
  async loginStart(auth: ConnectionAuth, input: { userName: string; password: string }) {
    const client = beginLogin(input.password, this.realmId);
    const started = await this.authenticator.loginStart(auth, {
      userName: input.userName,
      suiteIds: [SUITE_RISTRETTO255],
      ke1: client.ke1,
    });
    return { ...started, finished: client.finish(started.ke2) };
  }

  /** A whole login with the right password; its LoginFinish is `change`d before it is sent. */
  async loginOn(
    auth: ConnectionAuth,
    input: { user: TestUser; device: TestDevice; change?: (request: LoginFinish) => Partial<LoginFinish> },
  ): Promise<LoggedIn> {
    const { handle, finished } = await this.loginStart(auth, input.user);
    if (!finished) throw new Error("The test's password is wrong");
    const request = await input.device.prove(auth, { handle, ...finished });
    return await this.authenticator.loginFinish(auth, { ...request, ...input.change?.(request) });
  }

  /** A new connection that is logged in. */
  async login(user: TestUser, device: TestDevice): Promise<{ auth: ConnectionAuth } & LoggedIn> {
    const auth = this.connection();
    return { auth, ...await this.loginOn(auth, { user, device }) };
  }

  /** A LoginFinish as somebody sends it who does not know the password. */
  async loginBadly(auth: ConnectionAuth, userName: string): Promise<LoggedIn> {
    const { handle } = await this.loginStart(auth, { userName, password: "wrong" });
    const device = await TestDevice.make();
    const ke3 = randomBytes(64);
    return this.authenticator.loginFinish(
      auth,
      await device.prove(auth, { handle, ke3, sessionKey: randomBytes(64) }),
    );
  }

  /** Signs the device that is logged in on `auth`. */
  async signDevice(
    auth: ConnectionAuth,
    { user, device }: { user: TestUser; device: TestDevice },
  ): Promise<void> {
    const content = [fromHex(user.accountId), fromHex(device.deviceId), device.signer.publicKey];
    await this.authenticator.signDevice(auth, await user.accountSigner.sign("qpq device key", ...content));
  }

  /** Resumes on a new connection; `pinned` is the certificate that the client signs. */
  async resume(
    input: { sessionId: SessionId; device: TestDevice; pinned?: Uint8Array },
  ): Promise<{ auth: ConnectionAuth; deviceSigned: boolean }> {
    const auth = this.connection();
    const { sessionId, device, pinned = new Uint8Array(32) } = input;
    const content = [auth.serverNonce, fromHex(sessionId), pinned];
    const signature = await device.signer.sign("qpq resume", ...content);
    const resumed = await this.authenticator.resume(auth, { sessionId, signature });
    return { auth, deviceSigned: resumed.deviceSigned };
  }
}

/** What a test may choose. */
export interface AuthWorldOptions {
  readonly invitations?: InvitationPolicy;
  readonly limits?: Partial<AuthLimits>;
  /** Without access tokens. */
  readonly open?: boolean;
}

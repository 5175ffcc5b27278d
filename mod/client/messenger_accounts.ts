/**
 * The account behind a client: registering, logging in and out, devices, password, invitations, blocks. What
 * must survive is in the state before the next step is taken.
 */
import { fromHex } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import { type AccountId, type DeviceId, idOf } from "../base/ids.ts";
import { SUITE_RISTRETTO255 } from "../base/opaque_suite.ts";
import { parseUserAddress, userAddressText } from "../base/user_address.ts";
import type { ServerLink } from "./identity.ts";
import { nameIn, ownAccount, ownDomain } from "./messenger_contacts.ts";
import { KEY_PACKAGE_DOMAIN, type KeyPackageUpkeep } from "./messenger_key_packages.ts";
import type { Uplink } from "./messenger_uplink.ts";
import type { KeyStretching } from "./opaque_ristretto255.ts";
import * as session from "./session.ts";
import type { ClientState } from "./state.ts";
import type { DeviceRecord, TableName } from "./state_records.ts";

/** Tables that belong to an account and go with it. */
const ACCOUNT_TABLES: readonly TableName[] = [
  "account",
  "device",
  "session",
  "cursor",
  "keyPackages",
  "groups",
  "contacts",
  "outbox",
  "inbox",
  "seen",
  "held",
  "chores",
  "files",
  "relayed",
  "early",
];

/** A name and a password, and what a new device is called. */
export interface Credentials {
  /** `user`, or `user@domain` with the server's own domain. */
  readonly userName: string;
  readonly password: string;
  /** For the first login in this state. */
  readonly deviceName?: string;
  /** Also tries the weaker OPAQUE suite P-256, for an account that this state has not logged in before. */
  readonly allowP256?: boolean;
}

/** Who a client is. */
export interface Whoami {
  readonly userName: string;
  /** Of the server; empty when it has none. */
  readonly domain: string;
  /** What users of any server may call this account: `user@domain`; on a server without a domain, the user name. */
  readonly address: string;
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
  readonly deviceName: string;
  /** A session is there to be resumed. */
  readonly loggedIn: boolean;
}

/** The own account's requests. */
export class Accounts {
  readonly #state: ClientState;
  readonly #uplink: Uplink;
  readonly #keyPackages: KeyPackageUpkeep;
  readonly #clock: Clock;
  readonly #keyStretching: KeyStretching | undefined;

  constructor(deps: {
    state: ClientState;
    uplink: Uplink;
    keyPackages: KeyPackageUpkeep;
    clock: Clock;
    keyStretching: KeyStretching | undefined;
  }) {
    this.#state = deps.state;
    this.#uplink = deps.uplink;
    this.#keyPackages = deps.keyPackages;
    this.#clock = deps.clock;
    this.#keyStretching = deps.keyStretching;
  }

  /** Who this state belongs to; null before the first login. */
  whoami(): Whoami | null {
    const account = this.#state.one("account");
    const device = this.#state.one("device");
    if (!account || !device) return null;
    const { userName } = account;
    const domain = ownDomain(this.#state);
    return {
      userName,
      domain,
      address: userAddressText({ userName, domain }),
      accountId: account.accountId,
      deviceId: device.deviceId,
      deviceName: device.name,
      loggedIn: this.#state.one("session") !== undefined,
    };
  }

  /** Registers a new account and logs this device in. */
  async register(credentials: Credentials & { invitation?: string }): Promise<Whoami> {
    const account = this.#state.one("account");
    if (account) {
      throw new QpqError(
        "alreadyLoggedIn",
        `This state belongs to ${account.userName}; use a new state folder`,
      );
    }
    return await this.#onFreshLink(async (link) => {
      const own = { ...credentials, userName: nameHere(link, credentials.userName) };
      await session.register(link, { ...own, keyStretching: this.#keyStretching });
      await this.#login(link, own);
    });
  }

  /** Logs this device in; again, with the same groups, if it was before. */
  async login(credentials: Credentials): Promise<Whoami> {
    const account = this.#state.one("account");
    const { userName } = parseUserAddress(credentials.userName);
    if (account && account.userName !== userName) {
      throw new QpqError(
        "deviceConflict",
        `This state belongs to ${account.userName}; use another state folder`,
      );
    }
    return await this.#onFreshLink((link) =>
      this.#login(link, { ...credentials, userName: nameHere(link, credentials.userName) })
    );
  }

  /** Ends the session. Groups and messages stay; log in again to go on. */
  async logout(): Promise<void> {
    ownAccount(this.#state);
    if (this.#state.one("session")) await this.#uplink.call("logout", {}).catch(forgiveEndedSession);
    await this.#state.transaction((tx) => tx.clear("session"));
    await this.#uplink.drop();
  }

  /** Changes the password; ends the account's other sessions. */
  async changePassword(change: { password: string; newPassword: string }): Promise<void> {
    const account = ownAccount(this.#state);
    await this.#withPassword(change.password, async (link) => {
      const keyStretching = this.#keyStretching;
      await session.changePassword(link, { account, password: change.newPassword, keyStretching });
    });
  }

  /**
   * Deletes the account on the server and everything of it here. It cannot be undone; the name stays taken.
   */
  async deleteAccount({ password }: { password: string }): Promise<void> {
    await this.#withPassword(password, (link) => link.connection.call("deleteAccount", {}));
    await this.#state.transaction((tx) => {
      for (const table of ACCOUNT_TABLES) tx.clear(table);
      tx.delete("settings", KEY_PACKAGE_DOMAIN);
    });
    await this.#uplink.drop();
  }

  /** The account's devices. */
  devices(): Promise<session.DeviceInfo[]> {
    return this.#uplink.retrying((link) => session.listDevices(link));
  }

  /**
   * Ends a device for good: its queue, KeyPackages and sessions go at once, its group memberships by a
   * commit.
   */
  async revokeDevice(deviceId: DeviceId, { password }: { password: string }): Promise<void> {
    const { accountId } = ownAccount(this.#state);
    await this.#withPassword(
      password,
      (link) => link.connection.call("revokeDevice", { deviceId: fromHex(deviceId) }),
    );
    await this.#state.transaction((tx) => {
      const key = `removeDevice:${deviceId}:`;
      const sinceMs = this.#clock.now();
      tx.put("chores", key, { kind: "removeDevice", accountId, deviceId, sinceMs, attempts: 0 });
    });
  }

  /** An invitation code for somebody without the access token. */
  async createInvitation(options: { ttlMs?: number }): Promise<{ invitation: string; expiresAt: number }> {
    const link = await this.#uplink.link();
    const ttlS = Math.ceil((options.ttlMs ?? 0) / 1000);
    const answer = await link.connection.call("createInvitation", { ttlS });
    return { invitation: answer.invitation, expiresAt: Number(answer.expiresAtMs) };
  }

  /** Nothing of `accountId` reaches this account any more. */
  async block(accountId: AccountId): Promise<void> {
    await this.#uplink.call("block", { accountId: fromHex(accountId) });
  }

  /** Undoes {@link block}. */
  async unblock(accountId: AccountId): Promise<void> {
    await this.#uplink.call("unblock", { accountId: fromHex(accountId) });
  }

  /** User names of blocked accounts. */
  async blocks(): Promise<{ accountId: AccountId; userName: string }[]> {
    const { accountIds } = await this.#uplink.call("listBlocks", {});
    return accountIds.map((bytes) => idOf<AccountId>(bytes))
      .map((accountId) => ({ accountId, userName: nameIn(this.#state, accountId) }));
  }

  /** Does `work`, which logs in, on a new connection; then that is the connection. */
  async #onFreshLink(work: (link: ServerLink) => Promise<void>): Promise<Whoami> {
    const link = await this.#uplink.freshRetrying();
    try {
      await work(link);
    } catch (error) {
      await link.connection.close();
      throw error;
    }
    await this.#uplink.adopt(link);
    this.#keyPackages.expireCheck();
    await this.#keyPackages.keep();
    return this.whoami()!;
  }

  async #login(link: ServerLink, credentials: Credentials): Promise<void> {
    const { userName, password, deviceName, allowP256 } = credentials;
    const device = await this.#device(deviceName);
    const former = this.#state.one("account");
    const suiteSeen = former && (former.suiteSeen ?? SUITE_RISTRETTO255);
    const keyStretching = this.#keyStretching;
    const request = { userName, password, device, suiteSeen, allowP256, keyStretching };
    const { account, sessionId, suiteSeen: suiteNow } = await session.login(link, request);
    if (former && former.accountId !== account.accountId) {
      throw new QpqError("deviceConflict", `The server knows ${account.userName} as another account now`);
    }
    await this.#state.transaction((tx) => {
      tx.set("account", { ...account, suiteSeen: suiteNow });
      tx.set("session", { sessionId });
    });
  }

  /** This device; made, and saved before the server hears of it, when there is none. */
  async #device(name?: string): Promise<DeviceRecord> {
    const known = this.#state.one("device");
    if (known) return known;
    const made = await session.makeDevice(name ?? "device");
    await this.#state.transaction((tx) => tx.set("device", made));
    return made;
  }

  /** Logs in anew with the password, which some requests demand, and does `work` on that connection. */
  async #withPassword(password: string, work: (link: ServerLink) => Promise<unknown>): Promise<void> {
    const { userName } = ownAccount(this.#state);
    const former = this.#uplink.current;
    const link = await this.#uplink.freshRetrying();
    try {
      await this.#login(link, { userName, password });
      // The former session would only be left behind.
      await former?.connection.call("logout", {}).catch(() => {});
      await this.#uplink.adopt(link);
      await work(link);
    } catch (error) {
      if (this.#uplink.current !== link) await link.connection.close();
      throw error;
    }
  }
}

/** The user name in what somebody typed for an account of this server. */
function nameHere({ hello }: ServerLink, typed: string): string {
  const { userName, domain } = parseUserAddress(typed);
  if (domain === "" || domain === hello.domain) return userName;
  const here = hello.domain === "" ? "has no domain" : `is ${hello.domain}`;
  throw new QpqError("userNameInvalid", `Cannot use ${typed} here: this server ${here}`);
}

/** A session that the server has ended already needs no logout. */
function forgiveEndedSession(error: unknown): void {
  const ended = error instanceof QpqError &&
    ["loginRequired", "sessionExpired", "deviceRevoked", "accountDisabled"].includes(error.code);
  if (!ended) throw error;
}

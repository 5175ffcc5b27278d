/**
 * Other accounts: their pinned account keys, the devices those keys have signed, and what to do when the
 * server names another key. The MLS layer asks here whether a device may be in a group. An account of another server
 * is bound to that server's domain: no other server can answer for it.
 */
import { copy, equal, fromHex } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import { type AccountId, type DeviceId, idOf } from "../base/ids.ts";
import {
  foreignDomain,
  parseUserAddress,
  tryParseUserAddress,
  type UserAddress,
  userAddressText,
} from "../base/user_address.ts";
import { tryNormaliseUserName } from "../base/user_name.ts";
import type { Device } from "../protocol/qpq_pb.ts";
import { pin, safetyNumber, trustedDevices } from "./account_keys.ts";
import { addNotice } from "./inbox_rows.ts";
import type { LeafClaim } from "./mls_credentials.ts";
import type { Uplink } from "./messenger_uplink.ts";
import type { ClientState, StateReader, StateTransaction } from "./state.ts";
import type { AccountRecord, ContactRecord } from "./state_records.ts";

/** An account as the server describes it in GetAccount and FetchKeyPackages. */
export interface AccountAnswer {
  readonly accountId: Uint8Array;
  readonly userName: string;
  readonly accountKey: Uint8Array;
  readonly devices: readonly Device[];
}

/**
 * Somebody's account key is not the pinned one: nothing is sent to them until a person trusts the new key.
 */
export class AccountKeyChangedError extends Error {
  override name = "AccountKeyChangedError";
  /** With the domain of another server. */
  readonly userName: string;

  constructor(userName: string) {
    super(
      `The account key of ${userName} has changed: they registered again, or the server lies. ` +
        `Compare the safety number with them over another channel (verify ${userName}), then trust the new key`,
    );
    this.userName = userName;
  }
}

/** A safety number and what is known of the account behind it. */
export interface Verification {
  /** With the domain of another server. */
  readonly userName: string;
  /** 60 digits in groups of five; both sides see the same. */
  readonly safetyNumber: string;
  /** A person has said that it is right. */
  readonly verified: boolean;
  /** The number is of a new key that is not trusted yet. */
  readonly changed: boolean;
}

/** The account that is logged in; throws `loginRequired` when there is none. */
export function ownAccount(state: StateReader): AccountRecord {
  const account = state.one("account");
  if (!account) throw new QpqError("loginRequired", "This state has no account; register or log in");
  return account;
}

/** What follows the @ in names of this server's users; empty when it has never told a domain. */
export function ownDomain(state: StateReader): string {
  return state.one("server")?.domain ?? "";
}

/** The user that somebody typed: the domain is empty for this account's own server. Throws `userNameInvalid`. */
export function typedAddress(state: StateReader, typed: string): UserAddress {
  const { userName, domain } = parseUserAddress(typed);
  return { userName, domain: foreignDomain(domain, ownDomain(state)) };
}

/** How a contact is written here: `user`, or `user@domain` on another server. */
export function contactAddress({ userName, domain }: Pick<ContactRecord, "userName" | "domain">): string {
  return userAddressText({ userName, domain: domain ?? "" });
}

/** An account by its id and the server that has it; the domain is empty for the own one. */
export interface AccountAddress {
  readonly accountId: AccountId;
  readonly domain: string;
}

/** The contacts of a client. */
export class Contacts {
  readonly #state: ClientState;
  readonly #uplink: Uplink;
  readonly #clock: Clock;

  constructor(deps: { state: ClientState; uplink: Uplink; clock: Clock }) {
    this.#state = deps.state;
    this.#uplink = deps.uplink;
    this.#clock = deps.clock;
  }

  /** The MLS layer's question: has the pinned account key signed this device, and is it on the account's server? */
  isTrusted(leaf: LeafClaim): boolean {
    const contact = this.#state.get("contacts", leaf.accountId);
    const key = contact?.devices?.[leaf.deviceId];
    return key !== undefined && equal(key, leaf.signatureKey) &&
      foreignDomain(leaf.domain, ownDomain(this.#state)) === (contact?.domain ?? "");
  }

  /** The server of an account that is known here; empty for the own one and for strangers. */
  domainOf(accountId: AccountId): string {
    return this.#state.get("contacts", accountId)?.domain ?? "";
  }

  /**
   * Asks the server for an account, which asks the one that has it, and learns its key and devices. False: there is no
   * such account any more.
   */
  async refresh(account: AccountAddress): Promise<boolean> {
    const { accountId, domain } = account;
    try {
      const answer = await this.#uplink.call("getAccount", { accountId: fromHex(accountId), domain });
      if (idOf(answer.accountId) !== accountId) return false;
      await this.learn(answer, domain);
      return true;
    } catch (error) {
      if (error instanceof QpqError && error.code === "notFound") return false;
      throw error;
    }
  }

  /**
   * Pins a new account's key and takes its signed devices; a changed key is kept aside and announced once. `domain`:
   * of the server that answers, empty for the own one; it is refused for an account of another.
   */
  async learn(answer: AccountAnswer, domain: string): Promise<ContactRecord> {
    const accountId = idOf<AccountId>(answer.accountId);
    checkName(answer.userName);
    const accountKey = copy(answer.accountKey);
    const claims = answer.devices.map((device) => ({
      deviceId: idOf<DeviceId>(device.deviceId),
      deviceKey: copy(device.deviceKey),
      accountSignature: device.accountSignature,
    }));
    const signed = await trustedDevices(claims, { accountId, accountKey });
    const now = this.#clock.now();
    return await this.#state.transaction((tx) => {
      const former = tx.get("contacts", accountId);
      const own = tx.one("account");
      const isOwn = own?.accountId === accountId;
      if (former || isOwn) checkServer(domain, { home: former?.domain ?? "", accountId });
      const pinned = isOwn ? own.key.publicKey : former?.accountKey;
      if (pinned && pin(pinned, accountKey) === "changed") {
        return offerKey(tx, {
          contact: former,
          accountId,
          userName: answer.userName,
          domain,
          pinned,
          accountKey,
          now,
        });
      }
      const devices = Object.fromEntries(signed.map((device) => [device.deviceId, device.deviceKey]));
      const { offered: _takenBack, ...rest } = former ?? {
        accountId,
        // The first name stands: the server could show another one later.
        userName: answer.userName,
        ...(domain === "" ? {} : { domain }),
        accountKey,
        firstSeenMs: now,
        verified: false,
      };
      const contact: ContactRecord = { ...rest, accountKey, devices: { ...former?.devices, ...devices } };
      tx.put("contacts", accountId, contact);
      return contact;
    });
  }

  /** The contact with this name or address, if it is known. */
  find(typed: string): ContactRecord | undefined {
    if (!tryParseUserAddress(typed)) return undefined;
    const { userName, domain } = typedAddress(this.#state, typed);
    return this.#state.all("contacts")
      .find((contact) => contact.userName === userName && (contact.domain ?? "") === domain);
  }

  /** User name of an account; a short form of its id when it is not known. */
  nameOf(accountId: AccountId): string {
    return nameIn(this.#state, accountId);
  }

  /** The safety number with an account, and whether it was compared. */
  verification(accountId: AccountId): Verification {
    const own = ownAccount(this.#state);
    if (accountId === own.accountId) {
      throw new TypeError("There is no safety number with oneself: it compares two accounts");
    }
    const contact = this.#state.get("contacts", accountId);
    if (!contact) throw new QpqError("notFound", "This account is not known here");
    const theirs = { accountId, accountKey: contact.offered?.key ?? contact.accountKey };
    return {
      userName: contactAddress(contact),
      safetyNumber: safetyNumber({ accountId: own.accountId, accountKey: own.key.publicKey }, theirs),
      verified: contact.verified && !contact.offered,
      changed: contact.offered !== undefined,
    };
  }

  /** A person has compared the safety number of the pinned key. */
  async markVerified(accountId: AccountId): Promise<void> {
    await this.#state.transaction((tx) => {
      const contact = tx.get("contacts", accountId);
      if (!contact) throw new QpqError("notFound", "This account is not known here");
      if (contact.offered) throw new AccountKeyChangedError(contactAddress(contact));
      tx.put("contacts", accountId, { ...contact, verified: true });
    });
  }

  /** Pins the key that the server names now. False when it is the pinned one anyway. */
  async trust(accountId: AccountId): Promise<boolean> {
    const now = this.#clock.now();
    const changed = await this.#state.transaction((tx) => {
      const contact = tx.get("contacts", accountId);
      if (!contact?.offered) return false;
      const { offered, ...rest } = contact;
      tx.put("contacts", accountId, {
        ...rest,
        accountKey: offered.key,
        verified: false,
        devices: {},
        change: { formerKey: contact.accountKey, seenMs: now, announced: true },
      });
      return true;
    });
    if (changed) await this.refresh({ accountId, domain: this.domainOf(accountId) });
    return changed;
  }
}

/**
 * User name of an account in a state, with the domain of another server; a short form of its id when it is not known.
 */
export function nameIn(state: StateReader, accountId: AccountId): string {
  const own = state.one("account");
  if (own?.accountId === accountId) return own.userName;
  const contact = state.get("contacts", accountId);
  return contact ? contactAddress(contact) : `account-${accountId.slice(0, 8)}`;
}

/** A name that could be taken for another user's address is no name. */
function checkName(userName: string): void {
  if (tryNormaliseUserName(userName) === userName) return;
  throw new QpqError("internal", "The server named an account with what is no user name");
}

/** Nobody but an account's own server answers for it. */
function checkServer(domain: string, account: { home: string; accountId: AccountId }): void {
  const { home, accountId } = account;
  if (domain === home) return;
  const [answered, bound] = [domain, home].map((one) => one === "" ? "this account's own server" : one);
  throw new QpqError(
    "internal",
    `Refused the answer of ${answered} for account ${accountId}: that one belongs to ${bound}`,
  );
}

interface Offer {
  readonly contact: ContactRecord | undefined;
  readonly accountId: AccountId;
  readonly userName: string;
  readonly domain: string;
  readonly pinned: Uint8Array;
  readonly accountKey: Uint8Array;
  readonly now: number;
}

/** Keeps another key aside until a person trusts it, and says so once for each key. */
function offerKey(tx: StateTransaction, offer: Offer): ContactRecord {
  const { contact, accountId, now } = offer;
  if (contact?.offered && equal(contact.offered.key, offer.accountKey)) return contact;
  const { userName, domain } = offer;
  const first = {
    accountId,
    userName,
    ...(domain === "" ? {} : { domain }),
    firstSeenMs: now,
    verified: false,
  };
  const kept: ContactRecord = {
    ...contact ?? first,
    accountKey: copy(offer.pinned),
    offered: { key: copy(offer.accountKey), seenMs: now },
  };
  tx.put("contacts", accountId, kept);
  addNotice(tx, { notice: { kind: "accountKeyChanged", accountId }, acceptedMs: now });
  return kept;
}

/**
 * Other accounts: their pinned account keys, the devices those keys have signed, and what to do when the
 * server names another key. The MLS layer asks here whether a device may be in a group.
 */
import { copy, equal, fromHex } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import { type AccountId, type DeviceId, idOf } from "../base/ids.ts";
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

  /** The MLS layer's question: has the pinned account key signed this device? */
  isTrusted(leaf: LeafClaim): boolean {
    const key = this.#state.get("contacts", leaf.accountId)?.devices?.[leaf.deviceId];
    return key !== undefined && equal(key, leaf.signatureKey);
  }

  /**
   * Asks the server for an account and learns its key and devices. False: there is no such account any more.
   */
  async refresh(accountId: AccountId): Promise<boolean> {
    try {
      const answer = await this.#uplink.call("getAccount", { accountId: fromHex(accountId) });
      if (idOf(answer.accountId) !== accountId) return false;
      await this.learn(answer);
      return true;
    } catch (error) {
      if (error instanceof QpqError && error.code === "notFound") return false;
      throw error;
    }
  }

  /**
   * Pins a new account's key and takes its signed devices; a changed key is kept aside and announced once.
   */
  async learn(answer: AccountAnswer): Promise<ContactRecord> {
    const accountId = idOf<AccountId>(answer.accountId);
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
      const pinned = own?.accountId === accountId ? own.key.publicKey : former?.accountKey;
      if (pinned && pin(pinned, accountKey) === "changed") {
        return offerKey(tx, {
          contact: former,
          accountId,
          userName: answer.userName,
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
        accountKey,
        firstSeenMs: now,
        verified: false,
      };
      const contact: ContactRecord = { ...rest, accountKey, devices: { ...former?.devices, ...devices } };
      tx.put("contacts", accountId, contact);
      return contact;
    });
  }

  /** The contact with this user name, if it is known. */
  find(userName: string): ContactRecord | undefined {
    const wanted = tryNormaliseUserName(userName);
    return this.#state.all("contacts").find((contact) => contact.userName === wanted);
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
      userName: contact.userName,
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
      if (contact.offered) throw new AccountKeyChangedError(contact.userName);
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
    if (changed) await this.refresh(accountId);
    return changed;
  }
}

/** User name of an account in a state; a short form of its id when it is not known. */
export function nameIn(state: StateReader, accountId: AccountId): string {
  const own = state.one("account");
  if (own?.accountId === accountId) return own.userName;
  return state.get("contacts", accountId)?.userName ?? `account-${accountId.slice(0, 8)}`;
}

interface Offer {
  readonly contact: ContactRecord | undefined;
  readonly accountId: AccountId;
  readonly userName: string;
  readonly pinned: Uint8Array;
  readonly accountKey: Uint8Array;
  readonly now: number;
}

/** Keeps another key aside until a person trusts it, and says so once for each key. */
function offerKey(tx: StateTransaction, offer: Offer): ContactRecord {
  const { contact, accountId, now } = offer;
  if (contact?.offered && equal(contact.offered.key, offer.accountKey)) return contact;
  const kept: ContactRecord = {
    ...contact ?? { accountId, userName: offer.userName, firstSeenMs: now, verified: false },
    accountKey: copy(offer.pinned),
    offered: { key: copy(offer.accountKey), seenMs: now },
  };
  tx.put("contacts", accountId, kept);
  addNotice(tx, { notice: { kind: "accountKeyChanged", accountId }, acceptedMs: now });
  return kept;
}

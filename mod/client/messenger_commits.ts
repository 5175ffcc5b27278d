/**
 * Commits that change a group's members: claim KeyPackages, commit under the guard, send the Welcome with it,
 * adopt it when it is accepted; when another commit of the epoch was first, follow that one and try again.
 */
import { fromHex } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import { type AccountId, type DeviceId, type GroupId, idOf } from "../base/ids.ts";
import { KeyedMutex } from "../base/keyed_mutex.ts";
import type { MlsSuite } from "../base/mls_suites.ts";
import { type UserAddress, userAddressText } from "../base/user_address.ts";
import { backoff } from "../base/retry.ts";
import {
  type AccountAddress,
  AccountKeyChangedError,
  contactAddress,
  type Contacts,
  nameIn,
  ownAccount,
} from "./messenger_contacts.ts";
import type { GroupStore } from "./messenger_group_store.ts";
import type { Uplink } from "./messenger_uplink.ts";
import {
  changeMembers,
  DomainMissingError,
  type GroupChanges,
  lacksDomain,
  type PendingCommit,
} from "./mls_commits.ts";
import { MlsError } from "./mls_error.ts";
import { encodeGroup, groupInfo, members, type MlsGroup, type MlsMember } from "./mls_group.ts";
import { checkKeyPackage } from "./mls_key_packages.ts";
import { addToOutbox, type Delivered, type DeliveryFailure, type Outbox, outboxPart } from "./outbox.ts";
import type { ClientState } from "./state.ts";

const ATTEMPTS_MAX = 10;
/** The commit that came first may still be on its way from another server. */
const OVERTAKEN = { initialMs: 50, maxMs: 2_000 };

/** KeyPackages of one account's devices, claimed and checked. */
export interface Claimed {
  readonly accountId: AccountId;
  /** With the domain of another server. */
  readonly userName: string;
  readonly keyPackages: ReadonlyMap<DeviceId, Uint8Array>;
  /** Devices that cannot be added: the account key has not signed them, or their KeyPackage is not valid. */
  readonly refused: readonly DeviceId[];
}

/** A change of members that the server accepted. */
export interface Committed {
  readonly added: readonly MlsMember[];
  readonly removed: readonly MlsMember[];
  readonly failures: readonly DeliveryFailure[];
}

/** Whose KeyPackages are wanted; the domain is empty for this account's own server. */
export type ClaimTarget = UserAddress | AccountAddress;

/** Makes commits. */
export class Committer {
  readonly #state: ClientState;
  readonly #uplink: Uplink;
  readonly #contacts: Contacts;
  readonly #groups: GroupStore;
  readonly #outbox: Outbox;
  readonly #clock: Clock;
  readonly #catchUp: () => Promise<void>;
  readonly #mutex = new KeyedMutex();

  constructor(deps: {
    state: ClientState;
    uplink: Uplink;
    contacts: Contacts;
    groups: GroupStore;
    outbox: Outbox;
    clock: Clock;
    /** Fetches and processes what waits in the queue. */
    catchUp: () => Promise<void>;
  }) {
    this.#state = deps.state;
    this.#uplink = deps.uplink;
    this.#contacts = deps.contacts;
    this.#groups = deps.groups;
    this.#outbox = deps.outbox;
    this.#clock = deps.clock;
    this.#catchUp = deps.catchUp;
  }

  /**
   * One commit. `plan` says what to change in the group as it is now, null when there is nothing left to do;
   * it is asked again after every commit of others that came first.
   */
  commit(
    groupId: GroupId,
    plan: (group: MlsGroup) => GroupChanges | null | Promise<GroupChanges | null>,
  ): Promise<Committed> {
    return this.#mutex.run(groupId, async () => {
      const waits = backoff(OVERTAKEN);
      for (let attempt = 1;; attempt++) {
        await this.#outbox.flush();
        await this.#outbox.settleCommit(groupId); // another one of this epoch would overtake it
        const { group } = this.#groups.load(this.#state, groupId);
        const changes = await plan(group);
        if (!changes) return { added: [], removed: [], failures: [] };
        try {
          // Additions alone leave this device's leaf as it is.
          if (changes.add && lacksDomain(this.#groups.context, group)) await this.#commitOnce(groupId, {});
          return await this.#commitOnce(groupId, changes);
        } catch (error) {
          if (!isOvertaken(error) || attempt === ATTEMPTS_MAX) throw this.#inNames(error);
          await this.#catchUp();
          if (!this.#isBehind(groupId, error)) continue;
          await this.#uplink.pause(waits.nextMs());
          await this.#catchUp();
        }
      }
    });
  }

  /** Did a commit win that has not come here yet? */
  #isBehind(groupId: GroupId, error: unknown): boolean {
    const current = error instanceof QpqError ? error.details.currentEpoch : undefined;
    if (current === undefined) return false;
    return groupInfo(this.#groups.load(this.#state, groupId).group).epoch < BigInt(current);
  }

  #inNames(error: unknown): unknown {
    if (!(error instanceof DomainMissingError)) return error;
    const users = new Set(error.devices.map(({ accountId }) => nameIn(this.#state, accountId)));
    return new MlsError(
      "domainMissing",
      "Nobody of another server can be added yet: devices of these members do not say in the group which server " +
        `they are on, and do so when their clients next receive: ${[...users].join(", ")}`,
      { cause: error },
    );
  }

  async #commitOnce(groupId: GroupId, changes: GroupChanges): Promise<Committed> {
    const { context } = this.#groups;
    const { pending, messageId } = await this.#state.transaction(async (tx) => {
      const loaded = this.#groups.load(tx, groupId);
      const { group } = loaded;
      const hub = this.#groups.hubOf(loaded);
      const pending = await changeMembers(context, group, { ...changes, hub });
      const messageId = addToOutbox(tx, {
        parts: this.#partsOf(pending, group),
        now: this.#clock.now(),
        groupId,
        guard: { ...pending.guard, hub: this.#groups.foreign(hub) },
        commit: { next: encodeGroup(pending.group), epoch: pending.guard.epoch },
      });
      return { pending, messageId };
    });
    const { failures }: Delivered = await this.#outbox.deliver(messageId);
    return { added: pending.added, removed: pending.removed, failures };
  }

  /**
   * Takes a KeyPackage of each of an account's devices (of `devices` when given). Rejects with
   * AccountKeyChangedError when the account key is not the pinned one, `noKeyPackages` when there is nothing
   * to take.
   */
  async claim(
    target: ClaimTarget,
    options: { suite: MlsSuite; devices?: readonly DeviceId[] },
  ): Promise<Claimed> {
    const { domain } = target;
    const answer = await this.#uplink.call("fetchKeyPackages", {
      ...("userName" in target ? { userName: target.userName } : { accountId: fromHex(target.accountId) }),
      domain,
      suite: options.suite,
      deviceIds: (options.devices ?? []).map(fromHex),
    });
    const accountId = idOf<AccountId>(answer.accountId);
    const asked = "userName" in target
      ? answer.userName === target.userName &&
        (this.#contacts.find(userAddressText(target))?.accountId ?? accountId) === accountId
      : target.accountId === accountId;
    if (!asked) throw new QpqError("internal", "The server answered with the KeyPackages of another account");
    const contact = await this.#contacts.learn(answer, domain);
    if (contact.offered) throw new AccountKeyChangedError(contactAddress(contact));
    const keyPackages = new Map<DeviceId, Uint8Array>();
    const refused: DeviceId[] = [];
    for (const one of answer.keyPackages) {
      const deviceId = idOf<DeviceId>(one.deviceId);
      if (await this.#isGood(one.keyPackage, { deviceId, accountId, suite: options.suite })) {
        keyPackages.set(deviceId, one.keyPackage);
      } else refused.push(deviceId);
    }
    return { accountId, userName: contactAddress(contact), keyPackages, refused };
  }

  /** KeyPackages of this account's other devices; none when there are none yet. */
  async claimOwn(
    options: { suite: MlsSuite; devices?: readonly DeviceId[] },
  ): Promise<Map<DeviceId, Uint8Array>> {
    const { accountId } = ownAccount(this.#state);
    const { deviceId } = this.#groups.context.identity;
    const devices = options.devices ?? await this.#otherDevices();
    if (devices.length === 0) return new Map();
    try {
      const claimed = await this.claim({ accountId, domain: "" }, { ...options, devices });
      const others = [...claimed.keyPackages].filter(([id]) => id !== deviceId);
      return new Map(others);
    } catch (error) {
      // A device that has just been made has uploaded nothing yet; it is added when its notice comes.
      if (error instanceof QpqError && error.code === "noKeyPackages") return new Map();
      throw error;
    }
  }

  /**
   * The commit goes to this device as well: if its answer is lost for longer than the server remembers message
   * ids, the queue still says whose commit was accepted.
   */
  #partsOf(pending: PendingCommit, group: MlsGroup) {
    const foreign = (domain: string) => this.#groups.foreign(domain);
    const parts = [outboxPart(pending.commit, members(group), foreign)];
    const joiners = pending.added.filter((member) => pending.joiners.includes(member.deviceId));
    if (pending.welcome && joiners.length > 0) parts.push(outboxPart(pending.welcome, joiners, foreign));
    return parts;
  }

  async #otherDevices(): Promise<DeviceId[]> {
    const { deviceId } = this.#groups.context.identity;
    const { devices } = await this.#uplink.call("listDevices", {});
    return devices.map((device) => idOf<DeviceId>(device.deviceId)).filter((id) => id !== deviceId);
  }

  async #isGood(
    bytes: Uint8Array,
    expected: { deviceId: DeviceId; accountId: AccountId; suite: MlsSuite },
  ): Promise<boolean> {
    try {
      const checked = await checkKeyPackage(this.#groups.context, bytes, { suite: expected.suite });
      return checked.deviceId === expected.deviceId && checked.accountId === expected.accountId;
    } catch (error) {
      if (error instanceof MlsError) return false;
      throw error;
    }
  }
}

/** Did the group change between looking at it and committing? */
function isOvertaken(error: unknown): boolean {
  if (error instanceof QpqError) return error.code === "wrongEpoch";
  return error instanceof MlsError && (error.reason === "alreadyMember" || error.reason === "notMember");
}

/** KeyPackages of devices that are not in the group yet. */
export function missingFrom(
  present: readonly MlsMember[],
  claimed: ReadonlyMap<DeviceId, Uint8Array>,
): Uint8Array[] {
  const there = new Set(present.map((member) => member.deviceId));
  return [...claimed].filter(([deviceId]) => !there.has(deviceId)).map(([, bytes]) => bytes);
}

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
import { normaliseUserName } from "../base/user_name.ts";
import { AccountKeyChangedError, type Contacts, ownAccount } from "./messenger_contacts.ts";
import type { GroupStore } from "./messenger_group_store.ts";
import type { Uplink } from "./messenger_uplink.ts";
import { changeMembers, type GroupChanges, type PendingCommit } from "./mls_commits.ts";
import { MlsError } from "./mls_error.ts";
import { encodeGroup, type MlsGroup, type MlsMember } from "./mls_group.ts";
import { checkKeyPackage } from "./mls_key_packages.ts";
import { addToOutbox, type Delivered, type DeliveryFailure, type Outbox, type OutboxPart } from "./outbox.ts";
import type { ClientState } from "./state.ts";

const ATTEMPTS_MAX = 10;

/** KeyPackages of one account's devices, claimed and checked. */
export interface Claimed {
  readonly accountId: AccountId;
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

/** Whose KeyPackages are wanted. */
export type ClaimTarget = { readonly userName: string } | { readonly accountId: AccountId };

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
      for (let attempt = 1;; attempt++) {
        await this.#outbox.flush();
        const changes = await plan(this.#groups.load(this.#state, groupId).group);
        if (!changes) return { added: [], removed: [], failures: [] };
        try {
          return await this.#commitOnce(groupId, changes);
        } catch (error) {
          if (!isOvertaken(error) || attempt === ATTEMPTS_MAX) throw error;
          await this.#catchUp();
        }
      }
    });
  }

  async #commitOnce(groupId: GroupId, changes: GroupChanges): Promise<Committed> {
    const { context } = this.#groups;
    const { pending, messageId } = await this.#state.transaction(async (tx) => {
      const { group } = this.#groups.load(tx, groupId);
      const pending = await changeMembers(context, group, changes);
      const messageId = addToOutbox(tx, {
        parts: partsOf(pending, context.identity.deviceId),
        now: this.#clock.now(),
        groupId,
        guard: pending.guard,
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
    const userName = "userName" in target ? normaliseUserName(target.userName) : undefined;
    const answer = await this.#uplink.call("fetchKeyPackages", {
      ...("userName" in target ? { userName: userName! } : { accountId: fromHex(target.accountId) }),
      suite: options.suite,
      deviceIds: (options.devices ?? []).map(fromHex),
    });
    const accountId = idOf<AccountId>(answer.accountId);
    const asked = "userName" in target
      ? answer.userName === userName && (this.#contacts.find(userName!)?.accountId ?? accountId) === accountId
      : target.accountId === accountId;
    if (!asked) throw new QpqError("internal", "The server answered with the KeyPackages of another account");
    const contact = await this.#contacts.learn(answer);
    if (contact.offered) throw new AccountKeyChangedError(contact.userName);
    const keyPackages = new Map<DeviceId, Uint8Array>();
    const refused: DeviceId[] = [];
    for (const one of answer.keyPackages) {
      const deviceId = idOf<DeviceId>(one.deviceId);
      if (await this.#isGood(one.keyPackage, { deviceId, accountId, suite: options.suite })) {
        keyPackages.set(deviceId, one.keyPackage);
      } else refused.push(deviceId);
    }
    return { accountId, userName: contact.userName, keyPackages, refused };
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
      const claimed = await this.claim({ accountId }, { ...options, devices });
      const others = [...claimed.keyPackages].filter(([id]) => id !== deviceId);
      return new Map(others);
    } catch (error) {
      // A device that has just been made has uploaded nothing yet; it is added when its notice comes.
      if (error instanceof QpqError && error.code === "noKeyPackages") return new Map();
      throw error;
    }
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

/**
 * The commit goes to this device as well: if its answer is lost for longer than the server remembers message
 * ids, the queue still says whose commit was accepted.
 */
function partsOf(pending: PendingCommit, ownDevice: DeviceId): OutboxPart[] {
  const parts: OutboxPart[] = [{ payload: pending.commit, recipients: [...pending.recipients, ownDevice] }];
  if (pending.welcome && pending.joiners.length > 0) {
    parts.push({ payload: pending.welcome, recipients: pending.joiners });
  }
  return parts;
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

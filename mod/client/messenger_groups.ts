/**
 * Groups as people use them: by name, with users as members. Each account is in a group with all its devices.
 * A conversation of two is a nameless group that is made when it is first used.
 */
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import { type AccountId, type DeviceId, type GroupId, randomId } from "../base/ids.ts";
import { MLS_SUITE_X25519, type MlsSuite } from "../base/mls_suites.ts";
import { tryParseUserAddress, userAddressText } from "../base/user_address.ts";
import { type Claimed, type Committed, type Committer, missingFrom } from "./messenger_commits.ts";
import { contactAddress, type Contacts, nameIn, ownAccount, typedAddress } from "./messenger_contacts.ts";
import { earlyOf } from "./inbox_early.ts";
import { groupLabel } from "./messenger_events.ts";
import type { GroupStore } from "./messenger_group_store.ts";
import { proposeLeave } from "./mls_commits.ts";
import { createGroup, groupInfo, members, type MlsGroup } from "./mls_group.ts";
import { addToOutbox, type Outbox, outboxPart } from "./outbox.ts";
import type { ClientState } from "./state.ts";
import type { ContactRecord } from "./state_records.ts";

const NAME_CHARACTERS_MAX = 64;

/** A group in a list. */
export interface GroupSummary {
  readonly id: GroupId;
  /** Its name; of a conversation of two, the other's user name. */
  readonly name: string;
  readonly direct: boolean;
  /**
   * `removed`: this device is not in it any more. `broken`: a part was missed, another member must add it
   * again.
   */
  readonly status: "active" | "removed" | "broken";
  readonly epoch: number;
  readonly suite: MlsSuite;
  readonly members: readonly string[];
  /** Messages that came before a commit of another member, and wait for it. */
  readonly waiting: number;
}

/** An account in a group. */
export interface GroupMember {
  /** With the domain of another server. */
  readonly userName: string;
  readonly accountId: AccountId;
  readonly own: boolean;
  readonly devices: readonly DeviceId[];
}

/** What changed, in user names. */
export interface MembersChanged {
  readonly groupId: GroupId;
  readonly added: readonly string[];
  readonly removed: readonly string[];
  /** Devices that could not be added: not signed by their account, or without a valid KeyPackage. */
  readonly refusedDevices: readonly DeviceId[];
  /** Devices whose queue was full or that are gone: they will not see the change. */
  readonly unreached: readonly DeviceId[];
}

/** Groups. */
export class Groups {
  readonly #state: ClientState;
  readonly #contacts: Contacts;
  readonly #store: GroupStore;
  readonly #committer: Committer;
  readonly #outbox: Outbox;
  readonly #clock: Clock;

  constructor(deps: {
    state: ClientState;
    contacts: Contacts;
    store: GroupStore;
    committer: Committer;
    outbox: Outbox;
    clock: Clock;
  }) {
    this.#state = deps.state;
    this.#contacts = deps.contacts;
    this.#store = deps.store;
    this.#committer = deps.committer;
    this.#outbox = deps.outbox;
    this.#clock = deps.clock;
  }

  /** All groups that are known here. */
  list(): GroupSummary[] {
    return this.#state.all("groups").map((row) => {
      const { epoch, suite } = groupInfo(this.#store.load(this.#state, row.id).group);
      return {
        id: row.id,
        name: groupLabel(this.#state, row),
        direct: row.direct !== undefined,
        status: row.status === "active" && row.broken ? "broken" : row.status,
        epoch: Number(epoch),
        suite,
        members: this.members(row.id).map((member) => member.userName),
        waiting: earlyOf(this.#state, row.id).length,
      };
    });
  }

  /** The group with this name or id. Throws `notFound`, and TypeError when several have the name. */
  find(nameOrId: string): GroupId {
    const found = this.tryFind(nameOrId);
    if (!found) throw new QpqError("notFound", `There is no group ${nameOrId} here (group list shows them)`);
    return found;
  }

  /** Like {@link find}; undefined when there is none. */
  tryFind(nameOrId: string): GroupId | undefined {
    const byId = this.#state.get("groups", nameOrId as GroupId);
    if (byId) return byId.id;
    const named = this.#state.all("groups").filter((row) => row.name === nameOrId && nameOrId !== "");
    const active = named.filter((row) => row.status === "active");
    const candidates = active.length > 0 ? active : named;
    if (candidates.length > 1) {
      const ids = candidates.map((row) => row.id).join(", ");
      throw new TypeError(`Several groups are called ${nameOrId}; use one of their ids: ${ids}`);
    }
    return candidates[0]?.id;
  }

  /** The account of a user; asks the server for one that is not known here. */
  async accountOf(user: string): Promise<AccountId> {
    if (this.#isOwn(user)) return ownAccount(this.#state).accountId;
    const contact = this.#contacts.find(user);
    if (contact) return contact.accountId;
    return (await this.#claim(user, MLS_SUITE_X25519)).accountId;
  }

  /** Does what somebody typed name this account? */
  #isOwn(typed: string): boolean {
    const { userName, domain } = typedAddress(this.#state, typed);
    return domain === "" && userName === ownAccount(this.#state).userName;
  }

  #claim(typed: string, suite: MlsSuite): Promise<Claimed> {
    return this.#committer.claim(typedAddress(this.#state, typed), { suite });
  }

  /** Accounts in a group, this one first. */
  members(groupId: GroupId): GroupMember[] {
    const { row, group } = this.#store.load(this.#state, groupId);
    const own = ownAccount(this.#state).accountId;
    const byAccount = new Map<AccountId, DeviceId[]>();
    for (const { accountId, deviceId } of members(group)) {
      byAccount.set(accountId, [...byAccount.get(accountId) ?? [], deviceId]);
    }
    const listed = [...byAccount].map(([accountId, devices]) => ({
      userName: row.names[accountId] ?? nameIn(this.#state, accountId),
      accountId,
      own: accountId === own,
      devices,
    }));
    return listed.sort((a, b) => Number(b.own) - Number(a.own) || a.userName.localeCompare(b.userName));
  }

  /** Makes a group with this account's devices and those of `users`. */
  async create(
    name: string,
    options: { users?: readonly string[]; suite?: MlsSuite } = {},
  ): Promise<MembersChanged> {
    const trimmed = name.trim();
    if (trimmed === "" || trimmed.length > NAME_CHARACTERS_MAX) {
      throw new TypeError(`A group's name has 1 to ${NAME_CHARACTERS_MAX} characters`);
    }
    if (this.#state.all("groups").some((row) => row.name === trimmed && row.status === "active")) {
      throw new TypeError(`There is a group called ${trimmed} already`);
    }
    const suite = options.suite ?? MLS_SUITE_X25519;
    const claimed: Claimed[] = [];
    for (const user of options.users ?? []) claimed.push(await this.#claim(user, suite));
    return await this.#create(trimmed, { suite, claimed });
  }

  /** The conversation with a user; made when there is none. */
  async direct(user: string): Promise<GroupId> {
    if (this.#isOwn(user)) {
      throw new TypeError("There is no conversation with oneself; make a group instead");
    }
    const contact = this.#contacts.find(user);
    const known = contact ? this.#directWith(contact) : [];
    const reachable = known.find((one) => one.isReachable) ?? known[0];
    if (contact && reachable) {
      // Their devices may all be gone (revoked, or registered again): then they are taken in anew.
      if (!reachable.isReachable) await this.add(reachable.groupId, contactAddress(contact));
      return reachable.groupId;
    }
    const claimed = await this.#claim(user, MLS_SUITE_X25519);
    return (await this.#create("", { suite: MLS_SUITE_X25519, claimed: [claimed] })).groupId;
  }

  /**
   * The conversations with a contact. When both sides began one at the same time there are two: the smaller
   * id is first, on both sides.
   */
  #directWith(contact: ContactRecord): { groupId: GroupId; isReachable: boolean }[] {
    return this.#state.all("groups")
      .filter((row) => row.direct === contact.accountId && row.status === "active" && !row.broken)
      .sort((a, b) => a.id < b.id ? -1 : 1)
      .map(({ id }) => {
        const devices = devicesOf(this.#store.load(this.#state, id).group, contact.accountId);
        return {
          groupId: id,
          isReachable: devices.some((device) => contact.devices?.[device] !== undefined),
        };
      });
  }

  /** Adds all devices of a user that are not in the group; a device that lost its state is taken in anew. */
  async add(groupId: GroupId, user: string): Promise<MembersChanged> {
    const { suite } = groupInfo(this.#store.load(this.#state, groupId).group);
    const claimed = await this.#claim(user, suite);
    const committed = await this.#committer.commit(groupId, (group) => {
      const add = missingFrom(members(group), claimed.keyPackages);
      return add.length > 0 ? { add } : null;
    });
    return this.#changed(groupId, { committed, claimed: [claimed] });
  }

  /** Takes a user's devices out and in again: for one who missed a part of the group's history. */
  async readd(groupId: GroupId, user: string): Promise<MembersChanged> {
    const { suite } = groupInfo(this.#store.load(this.#state, groupId).group);
    const claimed = await this.#claim(user, suite);
    const committed = await this.#committer.commit(groupId, (group) => ({
      remove: devicesOf(group, claimed.accountId),
      add: [...claimed.keyPackages.values()],
    }));
    return this.#changed(groupId, { committed, claimed: [claimed] });
  }

  /** Removes all devices of a user: they cannot read what is sent from now on. */
  async remove(groupId: GroupId, user: string): Promise<MembersChanged> {
    const wanted = tryParseUserAddress(user) && userAddressText(typedAddress(this.#state, user));
    const member = this.members(groupId).find((one) => one.userName === wanted);
    if (!member) throw new QpqError("notFound", `${user} is not in this group`);
    if (member.own) throw new TypeError("To go yourself, leave the group");
    const committed = await this.#committer.commit(groupId, (group) => {
      const remove = devicesOf(group, member.accountId);
      return remove.length > 0 ? { remove } : null;
    });
    return this.#changed(groupId, { committed, claimed: [] });
  }

  /**
   * Asks the others to let this account go: its other devices are removed at once, this one by whoever
   * commits next. Alone in it, the group is just forgotten.
   */
  async leave(groupId: GroupId): Promise<void> {
    const { accountId } = ownAccount(this.#state);
    const { deviceId } = this.#store.context.identity;
    await this.#committer.commit(groupId, (group) => {
      const remove = devicesOf(group, accountId).filter((one) => one !== deviceId);
      return remove.length > 0 ? { remove } : null;
    });
    const messageId = await this.#state.transaction(async (tx) => {
      const { row, group } = this.#store.load(tx, groupId);
      const recipients = members(group).filter((one) => one.deviceId !== deviceId);
      if (recipients.length === 0) {
        tx.delete("groups", groupId);
        return undefined;
      }
      const proposed = await proposeLeave(group);
      this.#store.save(tx, { row, group: proposed.group });
      const now = this.#clock.now();
      const part = outboxPart(proposed.bytes, recipients, (domain) => this.#store.foreign(domain));
      return addToOutbox(tx, { parts: [part], now, groupId });
    });
    if (messageId) await this.#outbox.deliver(messageId);
  }

  /** Forgets a group that this device is not in any more. */
  async forget(groupId: GroupId): Promise<void> {
    await this.#state.transaction((tx) => {
      const row = tx.get("groups", groupId);
      if (row?.status === "active" && !row.broken) {
        throw new TypeError("Leave the group before you forget it");
      }
      tx.delete("groups", groupId);
    });
  }

  /** A new group with the same members, for one that is stalled; the old one is left as it is. */
  async recreate(groupId: GroupId): Promise<MembersChanged> {
    const { row, group } = this.#store.load(this.#state, groupId);
    const { suite } = groupInfo(group);
    const claimed: Claimed[] = [];
    for (const { accountId, own } of this.members(groupId)) {
      if (own) continue;
      claimed.push(
        await this.#committer.claim({ accountId, domain: this.#contacts.domainOf(accountId) }, { suite }),
      );
    }
    return await this.#create(this.#nextName(row.name), { suite, claimed });
  }

  /** "team" → "team (2)": two groups of one name could be taken for each other. */
  #nextName(name: string): string {
    if (name === "") return "";
    const base = name.replace(/ \(\d+\)$/, "");
    const taken = new Set(this.#state.all("groups").map((row) => row.name));
    let number = 2;
    while (taken.has(`${base} (${number})`)) number++;
    return `${base} (${number})`;
  }

  async #create(
    name: string,
    options: { suite: MlsSuite; claimed: readonly Claimed[] },
  ): Promise<MembersChanged> {
    const { suite, claimed } = options;
    const groupId = randomId<GroupId>();
    const own = await this.#committer.claimOwn({ suite });
    const group = await createGroup(this.#store.context, { groupId, name, suite });
    const [partner] = claimed;
    await this.#state.transaction((tx) => {
      const changes = name === "" && partner ? { direct: partner.accountId } : {};
      this.#store.save(tx, { group, changes });
    });
    const everybody = new Map([...own, ...claimed.flatMap((one) => [...one.keyPackages])]);
    const committed = await this.#committer.commit(groupId, (now) => {
      const add = missingFrom(members(now), everybody);
      return add.length > 0 ? { add } : null;
    });
    return this.#changed(groupId, { committed, claimed });
  }

  #changed(
    groupId: GroupId,
    { committed, claimed }: { committed: Committed; claimed: readonly Claimed[] },
  ): MembersChanged {
    const names = (devices: Committed["added"]) => [
      ...new Set(devices.map(({ accountId }) => nameIn(this.#state, accountId))),
    ];
    return {
      groupId,
      added: names(committed.added),
      removed: names(committed.removed),
      refusedDevices: claimed.flatMap((one) => one.refused),
      unreached: committed.failures.map((failure) => failure.deviceId),
    };
  }
}

function devicesOf(group: MlsGroup, accountId: AccountId): DeviceId[] {
  return members(group).filter((member) => member.accountId === accountId).map((member) => member.deviceId);
}

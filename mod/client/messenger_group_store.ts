/**
 * Groups between the state folder and MLS: loading (decoded once, kept while the row is the same), saving,
 * adopting an own commit that was accepted. Everything that moves a ratchet happens inside a state
 * transaction, so that no key is used twice whatever is interrupted.
 */
import { type Bytes, copy } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import type { AccountId, GroupId } from "../base/ids.ts";
import { foreignDomain } from "../base/user_address.ts";
import { type Contacts, nameIn, ownAccount, ownDomain } from "./messenger_contacts.ts";
import { adoptCommit } from "./mls_commits.ts";
import type { LeafClaim, MlsContext } from "./mls_credentials.ts";
import { decodeGroup, encodeGroup, groupInfo, members, type MlsGroup, type MlsMember } from "./mls_group.ts";
import type { StoredGroup } from "./mls_state.ts";
import { nodeOfLeaf } from "./mls_tree.ts";
import type { ClientState, StateReader, StateTransaction } from "./state.ts";
import type { GroupRecord, OutboxRecord } from "./state_records.ts";

/** A group's row and its MLS state. */
export interface LoadedGroup {
  readonly row: GroupRecord;
  readonly group: MlsGroup;
}

/** The groups of a client. */
export class GroupStore {
  readonly #state: ClientState;
  readonly #contacts: Contacts;
  readonly #clock: Clock;
  readonly #decoded = new Map<GroupId, { mls: StoredGroup; group: MlsGroup }>();
  #context: MlsContext | null = null;

  constructor(deps: { state: ClientState; contacts: Contacts; clock: Clock }) {
    this.#state = deps.state;
    this.#contacts = deps.contacts;
    this.#clock = deps.clock;
  }

  /** This device as MLS sees it. Throws `loginRequired` before the first login. */
  get context(): MlsContext {
    const { accountId } = ownAccount(this.#state);
    const device = this.#state.one("device");
    if (!device) throw new QpqError("loginRequired", "This state has no device; log in");
    const { domain: formerDomain = "", federationOff } = this.#state.one("server") ?? {};
    const domain = federationOff ? "" : formerDomain;
    const known = this.#context?.identity;
    if (known?.accountId !== accountId || known.domain !== domain) {
      this.#decoded.clear();
      this.#context = {
        identity: { accountId, deviceId: device.deviceId, domain, key: device.key },
        formerDomain,
        isTrusted: (leaf) => Promise.resolve(this.#contacts.isTrusted(leaf)),
        clock: this.#clock,
      };
    }
    return this.#context!;
  }

  /**
   * For what others have made: lets every device through and notes the accounts of those that are not
   * trusted, with their server's domain. Nothing of such a device is shown, and nothing is sent while it is a
   * member ({@link untrusted}).
   */
  lenientContext(noted: Map<AccountId, string> = new Map()): MlsContext {
    const isTrusted = (leaf: LeafClaim) => {
      if (!this.#contacts.isTrusted(leaf)) noted.set(leaf.accountId, this.foreign(leaf.domain));
      return Promise.resolve(true);
    };
    return { ...this.context, isTrusted };
  }

  /** A group for reading in a {@link lenientContext}. */
  loadIn(context: MlsContext, row: GroupRecord): MlsGroup {
    return decodeGroup(context, row.mls);
  }

  /** Members whose device is not signed by the account key that is pinned, this device excepted. */
  untrusted(group: MlsGroup): MlsMember[] {
    const { deviceId } = this.context.identity;
    return members(group).filter((member) => {
      if (member.deviceId === deviceId) return false;
      const signatureKey = signatureKeyOf(group, member);
      return !this.#contacts.isTrusted({ ...member, signatureKey });
    });
  }

  /** A domain as this account's server has to be told it: empty for that server itself. */
  foreign(domain: string): string {
    return foreignDomain(domain, ownDomain(this.#state));
  }

  /** Domain of the server that owns a group's commit guard; empty: this account's own one, which has no domain. */
  hubOf({ row, group }: LoadedGroup): string {
    return groupInfo(group).creator.domain || (row.hub ?? ownDomain(this.#state));
  }

  /** Is a device or the hub on another server? Then things do not come in the order in which they were sent. */
  spansServers(loaded: LoadedGroup): boolean {
    return this.foreign(this.hubOf(loaded)) !== "" ||
      members(loaded.group).some((member) => this.foreign(member.domain) !== "");
  }

  /** A group; throws `notFound` when this device does not know it. */
  load(reader: StateReader, groupId: GroupId): LoadedGroup {
    const row = reader.get("groups", groupId);
    if (!row) throw new QpqError("notFound", `There is no group ${groupId}`);
    const { context } = this;
    const known = this.#decoded.get(groupId);
    if (known?.mls === row.mls) return { row, group: known.group };
    const group = decodeGroup(context, row.mls);
    this.#decoded.set(groupId, { mls: row.mls, group });
    return { row, group };
  }

  /**
   * Saves what a group has become; `changes` are other fields of its row. It is read anew after a lenient
   * reading.
   */
  save(
    tx: StateTransaction,
    saved: { row?: GroupRecord; group: MlsGroup; changes?: Partial<GroupRecord>; isLenient?: boolean },
  ): GroupRecord {
    const { group } = saved;
    const info = groupInfo(group);
    const mls = encodeGroup(group, saved.row?.mls);
    const names: Record<AccountId, string> = { ...saved.row?.names };
    for (const { accountId } of members(group)) names[accountId] ??= nameIn(tx, accountId);
    const direct = saved.row?.direct ?? directPartner(group, ownAccount(tx).accountId);
    const row: GroupRecord = {
      joinedMs: this.#clock.now(),
      seq: 0,
      ...saved.row,
      id: info.id,
      name: info.name,
      status: info.status,
      mls,
      names,
      ...(direct ? { direct } : {}),
      ...saved.changes,
    };
    tx.put("groups", info.id, row);
    // What was read leniently must not stay: its group would let everybody in.
    if (saved.isLenient) this.#decoded.delete(info.id);
    else this.#decoded.set(info.id, { mls, group });
    return row;
  }

  /**
   * An own commit was accepted: the group moves into its epoch. Nothing when it has left the old one already.
   */
  async adopt(tx: StateTransaction, sent: OutboxRecord): Promise<void> {
    if (!sent.commit || !sent.groupId || !tx.get("groups", sent.groupId)) return;
    const { row, group } = this.load(tx, sent.groupId);
    if (groupInfo(group).epoch !== sent.commit.epoch) return;
    const next = decodeGroup(this.context, sent.commit.next);
    this.save(tx, { row, group: adoptCommit(group, next) });
  }
}

/** With whom a nameless group of two accounts is. */
function directPartner(group: MlsGroup, own: AccountId): AccountId | undefined {
  if (groupInfo(group).name !== "") return undefined;
  const others = new Set(members(group).map((one) => one.accountId).filter((one) => one !== own));
  return others.size === 1 ? [...others][0] : undefined;
}

/** The signature key that a member has in the group, or had in an earlier epoch; empty for a blank leaf. */
export function signatureKeyOf(
  group: MlsGroup,
  { leafIndex, epoch }: { leafIndex: number; epoch?: bigint },
): Bytes {
  const { state } = group;
  const past = epoch === undefined ? undefined : state.historicalReceiverData.get(epoch);
  const node = (past ?? state).ratchetTree[nodeOfLeaf(leafIndex)];
  return node?.nodeType === "leaf" ? copy(node.leaf.signaturePublicKey) : new Uint8Array(0);
}

/**
 * Groups between the state folder and MLS: loading (decoded once, kept while the row is the same), saving, adopting an own
 * commit that was accepted. Everything that moves a ratchet happens inside a state transaction, so that no key is
 * used twice whatever is interrupted.
 */
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import type { AccountId, GroupId } from "../base/ids.ts";
import { type Contacts, nameIn, ownAccount } from "./messenger_contacts.ts";
import { adoptCommit } from "./mls_commits.ts";
import type { LeafClaim, MlsContext } from "./mls_credentials.ts";
import { MlsError } from "./mls_error.ts";
import { decodeGroup, encodeGroup, groupInfo, members, type MlsGroup } from "./mls_group.ts";
import type { StoredGroup } from "./mls_state.ts";
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
    if (this.#context?.identity.accountId !== accountId) {
      this.#decoded.clear();
      this.#context = {
        identity: { accountId, deviceId: device.deviceId, key: device.key },
        isTrusted: (leaf) => Promise.resolve(this.#contacts.isTrusted(leaf)),
        clock: this.#clock,
      };
    }
    return this.#context!;
  }

  /**
   * The accounts whose devices `look` meets and that are not known. It gets a context of its own, which lets every
   * device through: what it makes must be thrown away.
   */
  async unknownIn(look: (context: MlsContext) => Promise<unknown>): Promise<AccountId[]> {
    const unknown = new Set<AccountId>();
    const isTrusted = (leaf: LeafClaim) => {
      if (!this.#contacts.isTrusted(leaf)) unknown.add(leaf.accountId);
      return Promise.resolve(true);
    };
    try {
      await look({ ...this.context, isTrusted });
    } catch (error) {
      if (!(error instanceof MlsError)) throw error; // only who is in it was wanted
    }
    return [...unknown];
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

  /** Saves what a group has become; `changes` are other fields of its row. */
  save(
    tx: StateTransaction,
    saved: { row?: GroupRecord; group: MlsGroup; changes?: Partial<GroupRecord> },
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
    this.#decoded.set(info.id, { mls, group });
    return row;
  }

  /** An own commit was accepted: the group moves into its epoch. Nothing when it has left the old one already. */
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

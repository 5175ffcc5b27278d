/**
 * One message of the delivery queue, read inside the transaction that remembers it: which group it is for, what it
 * changes there, what of it is to be shown, what it leaves to be done, and what becomes of it when it cannot be read.
 */
import { type Bytes } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { type AccountId, type DeviceId, type EntryId, type GroupId, shortId } from "../base/ids.ts";
import { logger } from "../base/log.ts";
import type { EntryKind } from "../protocol/qpq_pb.ts";
import { giveUpGroup, keepEarly, keepStranger } from "./inbox_early.ts";
import { addChore, addMessage, addNotice, holdMessage } from "./inbox_rows.ts";
import { type Contacts, ownDomain } from "./messenger_contacts.ts";
import { type GroupStore, signatureKeyOf } from "./messenger_group_store.ts";
import { lacksDomain } from "./mls_commits.ts";
import type { DeviceIdentity, MlsContext } from "./mls_credentials.ts";
import { MlsError } from "./mls_error.ts";
import { groupInfo, members, type MlsGroup } from "./mls_group.ts";
import { type MessageHeader, type Processed, processMessage, readHeader } from "./mls_messages.ts";
import { joinGroup } from "./mls_welcome.ts";
import { pendingCommit } from "./outbox.ts";
import type { StateReader, StateTransaction } from "./state.ts";
import type { CursorRecord, EarlyRecord, GroupRecord, InboxNotice } from "./state_records.ts";

const log = logger("client");

/** An entry on its way through. */
export interface Arrival {
  /** Tells it from every other entry, also of the same message: a device can get two parts. */
  readonly id: EntryId;
  readonly seq: number;
  readonly kind: EntryKind;
  readonly acceptedMs: number;
  readonly payload: Bytes;
  /** The server that vouches for the sender; empty: this account's own one. */
  readonly senderDomain: string;
  /** Where the queue stands with it. */
  readonly cursor: CursorRecord | null;
  /** It came before its time, and was kept. */
  readonly wasEarly: boolean;
}

/** `strict` refuses unknown devices; `lenient`, once the server was asked, follows but never shows them. */
export type Reading = "strict" | "lenient";

/** Reads messages. */
export class EntryReader {
  readonly #contacts: Contacts;
  readonly #groups: GroupStore;
  readonly #clock: Clock;

  constructor(deps: { contacts: Contacts; groups: GroupStore; clock: Clock }) {
    this.#contacts = deps.contacts;
    this.#groups = deps.groups;
    this.#clock = deps.clock;
  }

  /** In which epoch a group is here; undefined when this device is not in it. */
  epochOf(reader: StateReader, groupId: GroupId): number | undefined {
    const row = reader.get("groups", groupId);
    if (!row || row.status === "removed") return undefined;
    return Number(groupInfo(this.#groups.load(reader, groupId).group).epoch);
  }

  /** One message. Throws MlsError; `untrusted` only when it reads strictly. */
  async applyMessage(
    tx: StateTransaction,
    { arrival, reading }: { arrival: Arrival; reading: Reading },
  ): Promise<void> {
    const { payload } = arrival;
    const header = readHeader(payload);
    const isLenient = reading === "lenient";
    const context = isLenient ? this.#groups.lenientContext() : this.#groups.context;
    if (header.kind === "welcome") return await this.#join(tx, { arrival, context, isLenient });
    const row = tx.get("groups", header.groupId);
    if (!row || row.status === "removed") return this.#keepStranger(tx, { arrival, header });
    if (header.content === "commit" && await this.#adoptOwn(tx, header.groupId, arrival)) return;
    const group = isLenient ? this.#groups.loadIn(context, row) : this.#groups.load(tx, row.id).group;
    if (this.#keepEarly(tx, { arrival, header, row, group })) return;
    const processed = await processMessage(context, group, payload);
    this.#checkServer(processed.sender, arrival);
    // A commit that can be followed after all: it was late.
    const healed = row.broken && processed.kind === "commit" ? { broken: false } : {};
    this.#groups.save(tx, {
      row,
      group: processed.group,
      changes: { seq: arrival.seq, ...healed },
      isLenient,
    });
    this.#keep(tx, { arrival, row, before: group, processed });
  }

  /** A member is vouched for by its own server only. */
  #checkServer(sender: DeviceIdentity, { senderDomain }: Arrival): void {
    if (this.#groups.foreign(sender.domain) === senderDomain) return;
    throw new MlsError(
      "wrongServer",
      `Refused a message of device ${sender.deviceId} on ${sender.domain || "this server"}: ` +
        `it came from ${senderDomain || "this server"}`,
    );
  }

  /** Keeps a message of an epoch that this device has not reached, where the order of things is not that of sending. */
  #keepEarly(
    tx: StateTransaction,
    kept: { arrival: Arrival; header: GroupHeader; row: GroupRecord; group: MlsGroup },
  ): boolean {
    const { arrival, header, row, group } = kept;
    if (header.epoch <= groupInfo(group).epoch || row.broken || !this.#groups.spansServers(kept)) {
      return false;
    }
    const now = this.#clock.now();
    if (!keepEarly(tx, earlyRow({ arrival, header, now }))) {
      giveUpGroup(tx, { groupId: row.id, now, entryId: arrival.id });
    }
    return true;
  }

  /** Without other servers a group's Welcome comes before its messages: what comes then is of a group that was left. */
  #keepStranger(tx: StateTransaction, { arrival, header }: { arrival: Arrival; header: GroupHeader }): void {
    if (ownDomain(tx) === "" || arrival.wasEarly) return;
    const row = earlyRow({ arrival, header, now: this.#clock.now() });
    keepStranger(tx, row, (groupId) => this.epochOf(tx, groupId));
  }

  /** Is it the own commit whose answer did not arrive? Then it was accepted. */
  async #adoptOwn(tx: StateTransaction, groupId: GroupId, arrival: Arrival): Promise<boolean> {
    const waiting = tx.all("outbox").filter((one) => one.groupId === groupId);
    const own = pendingCommit(waiting, arrival.payload);
    if (!own) return false;
    await this.#groups.adopt(tx, own);
    tx.delete("outbox", own.messageId);
    return true;
  }

  #keep(
    tx: StateTransaction,
    kept: { arrival: Arrival; row: GroupRecord; before: MlsGroup; processed: Processed },
  ): void {
    const { arrival, row, processed } = kept;
    const { accountId, deviceId } = processed.sender;
    const common = {
      entryId: arrival.id,
      groupId: row.id,
      seq: arrival.seq,
      senderAccountId: accountId,
      senderDeviceId: deviceId,
      acceptedMs: arrival.acceptedMs,
    };
    if (processed.kind === "application") {
      const message = { ...common, content: processed.plaintext };
      const { leafIndex } = processed.sender;
      const deviceKey = signatureKeyOf(kept.before, { leafIndex, epoch: processed.epoch });
      const domain = this.#groups.foreign(processed.sender.domain);
      if (this.#contacts.isTrusted({ ...processed.sender, signatureKey: deviceKey })) addMessage(tx, message);
      else holdMessage(tx, { deviceKey, row: message, ...(domain === "" ? {} : { domain }) });
      return;
    }
    if (processed.kind === "proposal") {
      if (!processed.leaving) return;
      addNotice(tx, { ...common, notice: { kind: "leaving" } });
      if (this.#isFirstToCommit(processed.group)) {
        addChore(tx, {
          kind: "removeDevice",
          groupId: row.id,
          accountId,
          deviceId,
          sinceMs: this.#clock.now(),
        });
      }
      return;
    }
    if (processed.gotDomain) this.#followDomain(tx, processed.group);
    const added = accountsOf(processed.added);
    const removed = accountsOf(processed.removed);
    if (processed.selfRemoved) addNotice(tx, { ...common, notice: { kind: "removedFromGroup" } });
    else if (added.length + removed.length > 0) {
      addNotice(tx, { ...common, notice: { kind: "membersChanged", added, removed } });
    }
  }

  /** A member wants to have others from other servers: for that every leaf has to name its domain. */
  #followDomain(tx: StateTransaction, group: MlsGroup): void {
    const { context } = this.#groups;
    if (!lacksDomain(context, group)) return;
    const { accountId, deviceId } = context.identity;
    const groupId = groupInfo(group).id;
    addChore(tx, { kind: "nameDomain", groupId, accountId, deviceId, sinceMs: this.#clock.now() });
  }

  /** One member commits a leave request, not all of them at once: the first in the tree. */
  #isFirstToCommit(group: MlsGroup): boolean {
    const { leaving, ownLeafIndex } = groupInfo(group);
    const gone = new Set(leaving.map((member) => member.deviceId));
    return members(group).find((member) => !gone.has(member.deviceId))?.leafIndex === ownLeafIndex;
  }

  async #join(
    tx: StateTransaction,
    { arrival, context, isLenient }: { arrival: Arrival; context: MlsContext; isLenient: boolean },
  ): Promise<void> {
    const joined = await joinGroup(context, arrival.payload, (ref) => tx.get("keyPackages", ref));
    this.#checkServer(joined.inviter, arrival);
    const { id, creator } = groupInfo(joined.group);
    const former = tx.get("groups", id);
    if (!joined.used.lastResort) tx.delete("keyPackages", joined.used.ref);
    if (former && !this.#mayReplace(tx, { former, inviter: joined.inviter.deviceId })) return;
    const hub = creator.domain === "" && joined.hub !== "" ? { hub: joined.hub } : {};
    const fields = { seq: arrival.seq, joinedMs: this.#clock.now(), broken: false, ...hub };
    this.#groups.save(tx, { group: joined.group, changes: fields, isLenient });
    addNotice(tx, {
      notice: { kind: "joined" },
      entryId: arrival.id,
      groupId: id,
      seq: arrival.seq,
      senderAccountId: joined.inviter.accountId,
      senderDeviceId: joined.inviter.deviceId,
      acceptedMs: arrival.acceptedMs,
    });
  }

  /**
   * Only somebody who was in it may bring this device back into a group, and only if it cannot go on by
   * itself.
   */
  #mayReplace(
    tx: StateTransaction,
    { former, inviter }: { former: GroupRecord; inviter: DeviceId },
  ): boolean {
    if (former.status === "active" && !former.broken) return false;
    const { group } = this.#groups.load(tx, former.id);
    return members(group).some((member) => member.deviceId === inviter);
  }

  /** An entry that cannot be read: said where a person would miss something, silent where nothing is lost. */
  refuse(tx: StateTransaction, { arrival, error }: { arrival: Arrival; error: MlsError }): void {
    const header = tryHeader(arrival.payload);
    const groupId = header?.kind === "message" ? header.groupId : undefined;
    log.debug("entry not read: {reason}", {
      reason: error.message,
      group: groupId && shortId(groupId),
      seq: arrival.seq,
    });
    const isCommit = header?.kind === "message" && header.content === "commit";
    // What waited for a Welcome may be older than it.
    if (error.reason === "own" || (error.reason === "epochTooOld" && (isCommit || arrival.wasEarly))) return;
    const row = groupId && tx.get("groups", groupId);
    const isForged = error.reason === "wrongServer"; // the true one may still come
    const missed = !isForged && (error.reason === "futureEpoch" || isCommit);
    if (row && missed) {
      if (row.broken) return;
      tx.put("groups", row.id, { ...row, broken: true });
    }
    const notice: InboxNotice = row && missed
      ? { kind: "missedCommit" }
      : { kind: "unreadable", reason: error.reason };
    addNotice(tx, {
      notice,
      entryId: arrival.id,
      seq: arrival.seq,
      acceptedMs: arrival.acceptedMs,
      ...(row ? { groupId: row.id } : {}),
    });
  }
}

type GroupHeader = Extract<MessageHeader, { kind: "message" }>;

function earlyRow(early: { arrival: Arrival; header: GroupHeader; now: number }): EarlyRecord {
  const { arrival, header, now } = early;
  return {
    entryId: arrival.id,
    groupId: header.groupId,
    epoch: Number(header.epoch),
    isCommit: header.content === "commit",
    seq: arrival.seq,
    acceptedMs: arrival.acceptedMs,
    receivedMs: now,
    senderDomain: arrival.senderDomain,
    payload: arrival.payload,
  };
}

function accountsOf(devices: readonly { accountId: AccountId }[]): AccountId[] {
  return [...new Set(devices.map((device) => device.accountId))];
}

function tryHeader(payload: Uint8Array): MessageHeader | undefined {
  try {
    return readHeader(payload);
  } catch {
    return undefined; // said by the error that led here
  }
}

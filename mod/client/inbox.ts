/**
 * What comes out of the delivery queue: each entry is processed in one state transaction that also remembers
 * it, moves the cursor and keeps what is to be shown. Only then may it be acknowledged; so a crash loses
 * nothing, and an entry that comes again is recognised.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { copy, equal, hex, sha256 } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { type AccountId, type DeviceId, type EntryId, type GroupId, idOf, shortId } from "../base/ids.ts";
import { KeyedMutex } from "../base/keyed_mutex.ts";
import { logger } from "../base/log.ts";
import { type Cursor, type Entry, EntryKind, type Notice, NoticeSchema } from "../protocol/qpq_pb.ts";
import { addChore, addMessage, addNotice, choreKey } from "./inbox_rows.ts";
import { type Contacts, ownAccount } from "./messenger_contacts.ts";
import { type GroupStore, signatureKeyOf } from "./messenger_group_store.ts";
import type { MlsContext } from "./mls_credentials.ts";
import { MlsError } from "./mls_error.ts";
import { groupInfo, members, type MlsGroup } from "./mls_group.ts";
import { type MessageHeader, type Processed, processMessage, readHeader } from "./mls_messages.ts";
import { joinGroup } from "./mls_welcome.ts";
import { pendingCommit } from "./outbox.ts";
import type { ClientState, StateTransaction } from "./state.ts";
import type { CursorRecord, GroupRecord, HeldRecord, InboxNotice } from "./state_records.ts";

const log = logger("client");

/** Messages that may wait for a person's trust; more are dropped and said to be unreadable. */
const HELD_MAX = 1000;

/** An entry on its way through. */
interface Arrival {
  /** Tells it from every other entry, also of the same message: a device can get two parts. */
  readonly id: EntryId;
  readonly seq: number;
  readonly kind: EntryKind;
  readonly acceptedMs: number;
  readonly payload: Uint8Array;
  /** Where the queue stands with it. */
  readonly cursor: CursorRecord | null;
}

/** `strict` refuses unknown devices; `lenient`, once the server was asked, follows but never shows them. */
type Reading = "strict" | "lenient";

/** Takes entries in. */
export class Inbox {
  readonly #state: ClientState;
  readonly #contacts: Contacts;
  readonly #groups: GroupStore;
  readonly #clock: Clock;
  readonly #onKeyPackagesLow: () => void;
  readonly #mutex = new KeyedMutex();
  #waiters: (() => void)[] = [];

  constructor(deps: {
    state: ClientState;
    contacts: Contacts;
    groups: GroupStore;
    clock: Clock;
    onKeyPackagesLow: () => void;
  }) {
    this.#state = deps.state;
    this.#contacts = deps.contacts;
    this.#groups = deps.groups;
    this.#clock = deps.clock;
    this.#onKeyPackagesLow = deps.onKeyPackagesLow;
  }

  /** Where to fetch on from. */
  get after(): number {
    return this.#state.one("cursor")?.after ?? 0;
  }

  /**
   * Notes where the queue stands. False: the server's store was restored from a backup, so the numbers begin
   * anew and what was fetched with the former ones is to be fetched again.
   */
  async observe(cursor: Cursor): Promise<boolean> {
    const saved = this.#state.one("cursor");
    const incarnation = copy(cursor.incarnation);
    const isSame = saved !== undefined && equal(saved.incarnation, incarnation);
    const dropped = Number(cursor.droppedCount);
    const knownDropped = isSame ? saved.droppedCount ?? 0 : 0;
    if (isSame && dropped <= knownDropped) return true;
    await this.#state.transaction((tx) => {
      const after = isSame ? tx.one("cursor")?.after ?? 0 : 0;
      tx.set("cursor", { incarnation, after, droppedCount: dropped });
      if (dropped <= knownDropped) return;
      const notice: InboxNotice = { kind: "lost", count: dropped - knownDropped };
      addNotice(tx, { notice, acceptedMs: this.#clock.now() });
    });
    this.#wake();
    return isSame || saved === undefined;
  }

  /** Processes entries in order; when this resolves they may be acknowledged. */
  take(entries: readonly Entry[]): Promise<void> {
    return this.#mutex.run("", async () => {
      for (const entry of entries) {
        const seq = Number(entry.seq);
        const cursor = this.#state.one("cursor");
        if (cursor && seq <= cursor.after) continue; // fetched twice, by a subscription and a catch-up
        const digest = hex(await sha256(entry.payload)).slice(0, 16);
        await this.#process({
          id: `${idOf<EntryId>(entry.entryId)}${digest}` as EntryId,
          seq,
          kind: entry.kind,
          acceptedMs: Number(entry.acceptedAtMs),
          payload: copy(entry.payload),
          cursor: cursor ? { ...cursor, after: seq } : null,
        });
        this.#wake();
      }
    });
  }

  /** Shows what was held and comes from devices that are trusted by now. */
  async releaseHeld(): Promise<void> {
    await this.#state.transaction((tx) => {
      for (const { row, deviceKey } of tx.all("held")) {
        const leaf = {
          accountId: row.senderAccountId,
          deviceId: row.senderDeviceId,
          signatureKey: deviceKey,
        };
        if (!this.#contacts.isTrusted(leaf)) continue;
        tx.delete("held", row.entryId);
        addMessage(tx, row);
      }
    });
    this.#wake();
  }

  /** Resolves when something may have been added, or when `signal` aborts. */
  async changed(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const done = () => {
        signal.removeEventListener("abort", done);
        resolve();
      };
      this.#waiters.push(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  async #process(arrival: Arrival): Promise<void> {
    try {
      await this.#apply(arrival, "strict");
    } catch (error) {
      if (!isUntrusted(error)) throw error;
      await this.#learnDevices(arrival);
      await this.#apply(arrival, "lenient");
    }
  }

  /**
   * One entry, one transaction. Strictly, it throws MlsError `untrusted` and changes nothing for an unknown
   * device.
   */
  #apply(arrival: Arrival, reading: Reading): Promise<void> {
    return this.#state.transaction(async (tx) => {
      if (arrival.cursor) tx.set("cursor", arrival.cursor);
      if (!tx.markSeen(arrival.id)) return;
      try {
        if (arrival.kind === EntryKind.MESSAGE) await this.#applyMessage(tx, { arrival, reading });
        else if (arrival.kind === EntryKind.NOTICE) this.#applyNotice(tx, arrival);
      } catch (error) {
        const isRefusal = error instanceof MlsError &&
          (reading === "lenient" || error.reason !== "untrusted");
        if (!isRefusal) throw error;
        this.#refuse(tx, { arrival, error });
      }
    });
  }

  async #applyMessage(
    tx: StateTransaction,
    { arrival, reading }: { arrival: Arrival; reading: Reading },
  ): Promise<void> {
    const { payload } = arrival;
    const header = readHeader(payload);
    const isLenient = reading === "lenient";
    const context = isLenient ? this.#groups.lenientContext() : this.#groups.context;
    if (header.kind === "welcome") return await this.#join(tx, { arrival, context, isLenient });
    const row = tx.get("groups", header.groupId);
    if (!row || row.status === "removed") return;
    if (header.content === "commit" && await this.#adoptOwn(tx, header.groupId, arrival)) return;
    const group = isLenient ? this.#groups.loadIn(context, row) : this.#groups.load(tx, row.id).group;
    const processed = await processMessage(context, group, payload);
    this.#groups.save(tx, { row, group: processed.group, changes: { seq: arrival.seq }, isLenient });
    this.#keep(tx, { arrival, row, before: group, processed });
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
      if (this.#contacts.isTrusted({ accountId, deviceId, signatureKey: deviceKey })) addMessage(tx, message);
      else this.#hold(tx, { deviceKey, row: message });
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
    const added = accountsOf(processed.added);
    const removed = accountsOf(processed.removed);
    if (processed.selfRemoved) addNotice(tx, { ...common, notice: { kind: "removedFromGroup" } });
    else if (added.length + removed.length > 0) {
      addNotice(tx, { ...common, notice: { kind: "membersChanged", added, removed } });
    }
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
    const { id } = groupInfo(joined.group);
    const former = tx.get("groups", id);
    if (!joined.used.lastResort) tx.delete("keyPackages", joined.used.ref);
    if (former && !this.#mayReplace(tx, { former, inviter: joined.inviter.deviceId })) return;
    const fields = { seq: arrival.seq, joinedMs: this.#clock.now(), broken: false };
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

  #applyNotice(tx: StateTransaction, arrival: Arrival): void {
    const { notice } = readNotice(arrival.payload);
    const common = { entryId: arrival.id, seq: arrival.seq, acceptedMs: arrival.acceptedMs };
    const { accountId } = ownAccount(tx);
    const sinceMs = this.#clock.now();
    if (notice.case === "deviceAdded") {
      const deviceId = idOf<DeviceId>(notice.value.deviceId);
      addNotice(tx, { ...common, notice: { kind: "deviceAdded", deviceId } });
      addChore(tx, { kind: "addDevice", accountId, deviceId, sinceMs });
    } else if (notice.case === "deviceRevoked") {
      const deviceId = idOf<DeviceId>(notice.value.deviceId);
      addNotice(tx, { ...common, notice: { kind: "deviceRevoked", deviceId } });
      tx.delete("chores", choreKey({ kind: "addDevice", deviceId }));
      addChore(tx, { kind: "removeDevice", accountId, deviceId, sinceMs });
    } else if (notice.case === "keyPackagesLow") this.#onKeyPackagesLow();
  }

  /** Keeps a message until a person trusts the account key that signed its sender's device; says so once. */
  #hold(tx: StateTransaction, held: HeldRecord): void {
    const { row } = held;
    const all = tx.all("held");
    const isFirst = !all.some((one) => one.row.senderAccountId === row.senderAccountId);
    const { entryId, groupId, seq, acceptedMs } = row;
    if (all.length < HELD_MAX) tx.put("held", entryId, held);
    if (!isFirst && all.length < HELD_MAX) return;
    addNotice(tx, { notice: { kind: "unreadable", reason: "untrusted" }, entryId, groupId, seq, acceptedMs });
  }

  /** An entry that cannot be read: said where a person would miss something, silent where nothing is lost. */
  #refuse(tx: StateTransaction, { arrival, error }: { arrival: Arrival; error: MlsError }): void {
    const header = tryHeader(arrival.payload);
    const groupId = header?.kind === "message" ? header.groupId : undefined;
    log.debug("entry not read: {reason}", {
      reason: error.message,
      group: groupId && shortId(groupId),
      seq: arrival.seq,
    });
    const isCommit = header?.kind === "message" && header.content === "commit";
    if (error.reason === "own" || (error.reason === "epochTooOld" && isCommit)) return;
    const row = groupId && tx.get("groups", groupId);
    const missed = error.reason === "futureEpoch" || isCommit;
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

  /** Asks the server for the accounts behind devices that are not known here. */
  async #learnDevices({ payload }: Arrival): Promise<void> {
    const unknown = new Set<AccountId>();
    const context = this.#groups.lenientContext(unknown);
    try {
      await this.#look(context, payload);
    } catch (error) {
      if (!(error instanceof MlsError)) throw error; // only who is in it was wanted
    }
    for (const accountId of unknown) await this.#contacts.refresh(accountId);
  }

  /** Reads a message without keeping anything. */
  async #look(context: MlsContext, payload: Uint8Array): Promise<void> {
    const header = readHeader(payload);
    if (header.kind === "welcome") {
      await joinGroup(context, payload, (ref) => this.#state.get("keyPackages", ref));
      return;
    }
    const row = this.#state.get("groups", header.groupId);
    if (row) await processMessage(context, this.#groups.loadIn(context, row), payload);
  }
}

function isUntrusted(error: unknown): boolean {
  return error instanceof MlsError && error.reason === "untrusted";
}

function accountsOf(devices: readonly { accountId: AccountId }[]): AccountId[] {
  return [...new Set(devices.map((device) => device.accountId))];
}

function readNotice(payload: Uint8Array): Notice {
  try {
    return fromBinary(NoticeSchema, payload);
  } catch (cause) {
    throw new MlsError("malformed", `Cannot read a notice of the server: ${messageOf(cause)}`, { cause });
  }
}

function tryHeader(payload: Uint8Array): MessageHeader | undefined {
  try {
    return readHeader(payload);
  } catch {
    return undefined; // said by the error that led here
  }
}

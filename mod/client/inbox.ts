/**
 * What comes out of the delivery queue: each entry is processed in one state transaction that also remembers it,
 * moves the cursor and keeps what is to be shown. Only then may it be acknowledged; so a crash loses nothing, and an
 * entry that comes again is recognised.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { copy, equal, hex, sha256 } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { type AccountId, type DeviceId, type EntryId, type GroupId, idOf, shortId } from "../base/ids.ts";
import { KeyedMutex } from "../base/keyed_mutex.ts";
import { logger } from "../base/log.ts";
import { type Cursor, type Entry, EntryKind, type Notice, NoticeSchema } from "../protocol/qpq_pb.ts";
import { decodeContent, type FileReference } from "./content.ts";
import { addInboxRow, addNotice } from "./inbox_rows.ts";
import { fileIdOf } from "./messenger_events.ts";
import { type Contacts, ownAccount } from "./messenger_contacts.ts";
import type { GroupStore } from "./messenger_group_store.ts";
import type { MlsContext } from "./mls_credentials.ts";
import { MlsError } from "./mls_error.ts";
import { decodeGroup, groupInfo, members, type MlsGroup } from "./mls_group.ts";
import { type MessageHeader, type Processed, processMessage, readHeader } from "./mls_messages.ts";
import { joinGroup } from "./mls_welcome.ts";
import { pendingCommit } from "./outbox.ts";
import type { ClientState, StateTransaction } from "./state.ts";
import type { CursorRecord, GroupRecord, InboxNotice } from "./state_records.ts";

const log = logger("client");

/** Entries that may wait for a person's trust; more are dropped and said to be unreadable. */
const HELD_MAX = 1000;
/** Files that are remembered. */
const FILES_MAX = 1000;

/** An entry on its way through. */
interface Arrival {
  /** Tells it from every other entry, also of the same message: a device can get two parts of one. */
  readonly id: EntryId;
  readonly seq: number;
  readonly kind: EntryKind;
  readonly acceptedMs: number;
  readonly payload: Uint8Array;
  /** Where the queue stands with it. */
  readonly cursor: CursorRecord | null;
  /** Its row among the held ones, when it comes from there. */
  readonly heldKey?: string;
}

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
   * Notes where the queue stands. False: the server's store was restored from a backup, so the numbers begin anew and
   * what was fetched with the former ones is to be fetched again.
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

  /** Tries again what waited for a person's trust. */
  retryHeld(): Promise<void> {
    return this.#mutex.run("", async () => {
      for (const held of this.#state.all("held")) {
        await this.#process({
          id: held.entryId,
          seq: held.seq,
          kind: EntryKind.MESSAGE,
          acceptedMs: held.acceptedMs,
          payload: held.payload,
          cursor: null,
          heldKey: held.entryId,
        });
        this.#wake();
      }
    });
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
      await this.#apply(arrival, "readable");
    } catch (error) {
      if (!isUntrusted(error)) throw error;
      const isKnown = await this.#learnDevices(arrival);
      try {
        await this.#apply(arrival, isKnown ? "readable" : "held");
      } catch (again) {
        if (!isUntrusted(again)) throw again;
        await this.#apply(arrival, "held");
      }
    }
  }

  /** One entry, one transaction. Throws MlsError `untrusted` and changes nothing when a device is not known. */
  #apply(arrival: Arrival, as: "readable" | "held"): Promise<void> {
    return this.#state.transaction(async (tx) => {
      if (arrival.cursor) tx.set("cursor", arrival.cursor);
      if (arrival.heldKey) {
        if (as === "held") return;
        tx.delete("held", arrival.heldKey);
      } else if (!tx.markSeen(arrival.id)) return;
      try {
        if (as === "held") this.#hold(tx, arrival);
        else if (arrival.kind === EntryKind.MESSAGE) await this.#applyMessage(tx, arrival);
        else if (arrival.kind === EntryKind.NOTICE) this.#applyNotice(tx, arrival);
      } catch (error) {
        if (!(error instanceof MlsError) || error.reason === "untrusted") throw error;
        this.#refuse(tx, { arrival, error });
      }
    });
  }

  async #applyMessage(tx: StateTransaction, arrival: Arrival): Promise<void> {
    const header = readHeader(arrival.payload);
    if (header.kind === "welcome") return await this.#join(tx, arrival);
    const row = tx.get("groups", header.groupId);
    // Order within a group stands: what comes behind a held entry waits as well. A held Welcome may be of any group.
    const holdsBack = row?.status === "active" ? header.groupId : "";
    const earlier = tx.all("held").filter((held) => held.seq < arrival.seq);
    if (earlier.some((held) => held.groupId === holdsBack)) return this.#hold(tx, arrival);
    if (!row || row.status === "removed") return;
    if (header.content === "commit" && await this.#adoptOwn(tx, header.groupId, arrival)) return;
    const { group } = this.#groups.load(tx, header.groupId);
    const processed = await processMessage(this.#groups.context, group, arrival.payload);
    this.#keep(tx, { arrival, row, processed });
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
    kept: { arrival: Arrival; row: GroupRecord; processed: Processed },
  ): void {
    const { arrival, row, processed } = kept;
    const { accountId, deviceId } = processed.sender;
    this.#groups.save(tx, { row, group: processed.group, changes: { seq: arrival.seq } });
    const common = {
      entryId: arrival.id,
      groupId: row.id,
      seq: arrival.seq,
      senderAccountId: accountId,
      senderDeviceId: deviceId,
      acceptedMs: arrival.acceptedMs,
    };
    if (processed.kind === "application") {
      addInboxRow(tx, { ...common, content: processed.plaintext });
      const content = decodeContent(processed.plaintext);
      if (content.kind === "file") {
        addFile(tx, { ...common, fileId: fileIdOf(arrival.id), file: content.file });
      }
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

  async #join(tx: StateTransaction, arrival: Arrival): Promise<void> {
    const joined = await joinGroup(
      this.#groups.context,
      arrival.payload,
      (ref) => tx.get("keyPackages", ref),
    );
    const { id } = groupInfo(joined.group);
    const former = tx.get("groups", id);
    if (!joined.used.lastResort) tx.delete("keyPackages", joined.used.ref);
    if (former && !this.#mayReplace(tx, { former, inviter: joined.inviter.deviceId })) return;
    const fields = { seq: arrival.seq, joinedMs: this.#clock.now(), broken: false };
    this.#groups.save(tx, { group: joined.group, changes: fields });
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

  /** Only somebody who was in it may bring this device back into a group, and only if it cannot go on by itself. */
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

  #hold(tx: StateTransaction, arrival: Arrival): void {
    const all = tx.all("held");
    if (all.length >= HELD_MAX) throw new MlsError("invalid", "Too many messages wait for a person's trust");
    const header = readHeader(arrival.payload);
    const groupId = header.kind === "message" ? header.groupId : "" as GroupId;
    const { seq, acceptedMs } = arrival;
    tx.put("held", arrival.id, {
      seq,
      entryId: arrival.id,
      groupId,
      acceptedMs,
      payload: copy(arrival.payload),
    });
    const isFirst = groupId === "" ||
      (tx.get("groups", groupId) !== undefined && !all.some((held) => held.groupId === groupId));
    if (arrival.heldKey || !isFirst) return;
    const notice: InboxNotice = { kind: "unreadable", reason: "untrusted" };
    addNotice(tx, { notice, entryId: arrival.id, groupId, seq, acceptedMs });
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

  /** Asks the server for the accounts behind devices that are not known. True when there was any to ask for. */
  async #learnDevices({ payload }: Arrival): Promise<boolean> {
    const unknown = await this.#groups.unknownIn((context) => this.#look(context, payload));
    let found = false;
    for (const accountId of unknown) found = await this.#contacts.refresh(accountId) || found;
    return found;
  }

  #look(context: MlsContext, payload: Uint8Array): Promise<unknown> {
    const header = readHeader(payload);
    if (header.kind === "welcome") {
      return joinGroup(context, payload, (ref) => this.#state.get("keyPackages", ref));
    }
    const row = this.#state.get("groups", header.groupId);
    if (!row) return Promise.resolve();
    return processMessage(context, decodeGroup(context, row.mls), payload);
  }
}

/** The key of a chore: one device is added, or removed, once. */
export function choreKey(
  chore: { kind: string; deviceId: DeviceId; groupId?: GroupId },
): string {
  return `${chore.kind}:${chore.deviceId}:${chore.groupId ?? ""}`;
}

/** Notes something to do in the groups. */
export function addChore(
  tx: StateTransaction,
  chore: {
    kind: "addDevice" | "removeDevice";
    groupId?: GroupId;
    accountId: AccountId;
    deviceId: DeviceId;
    sinceMs: number;
  },
): void {
  tx.put("chores", choreKey(chore), { ...chore, attempts: 0 });
}

/** Remembers a file, forgetting the oldest of too many. */
export function addFile(
  tx: StateTransaction,
  file: {
    fileId: string;
    groupId: GroupId;
    senderAccountId: AccountId;
    acceptedMs: number;
    file: FileReference;
  },
): void {
  const { fileId, groupId, senderAccountId, acceptedMs } = file;
  const files = tx.all("files");
  for (const old of files.slice(0, Math.max(0, files.length + 1 - FILES_MAX))) tx.delete("files", old.fileId);
  tx.put("files", fileId, { fileId, groupId, senderAccountId, acceptedMs, file: file.file });
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

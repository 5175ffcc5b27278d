/**
 * Rows that arrivals leave behind: what is to be shown, in order, until it has been; files; what is to be
 * done.
 */
import { type AccountId, type DeviceId, type EntryId, type GroupId, randomId } from "../base/ids.ts";
import { decodeContent, type FileReference } from "./content.ts";
import type { StateTransaction } from "./state.ts";
import type { HeldRecord, InboxNotice, InboxRecord } from "./state_records.ts";

/** Messages that may wait for a person's trust; more are dropped and said to be unreadable. */
const HELD_MAX = 1000;
/** Files that are remembered. */
const FILES_MAX = 1000;

/** Under what id a received file is remembered. */
export function fileIdOf(entryId: string): string {
  return entryId.slice(0, 12);
}

/** Puts a row behind the others. */
function addInboxRow(tx: StateTransaction, row: InboxRecord): void {
  tx.put("inbox", row.entryId, row);
}

/** Puts something that happened behind the messages. */
export function addNotice(
  tx: StateTransaction,
  row: {
    notice: InboxNotice;
    acceptedMs: number;
    entryId?: EntryId;
    groupId?: GroupId;
    seq?: number;
    senderAccountId?: AccountId;
    senderDeviceId?: DeviceId;
  },
): void {
  addInboxRow(tx, {
    entryId: row.entryId ?? randomId<EntryId>(),
    groupId: row.groupId ?? "" as GroupId,
    seq: row.seq ?? 0,
    senderAccountId: row.senderAccountId ?? "" as AccountId,
    senderDeviceId: row.senderDeviceId ?? "" as DeviceId,
    acceptedMs: row.acceptedMs,
    content: new Uint8Array(0),
    notice: row.notice,
  });
}

/** Puts a message behind the others, and remembers the file in it. */
export function addMessage(tx: StateTransaction, row: InboxRecord): void {
  addInboxRow(tx, row);
  const content = decodeContent(row.content);
  if (content.kind === "file") addFile(tx, { ...row, fileId: fileIdOf(row.entryId), file: content.file });
}

/** The key of a chore: one device is added, or removed, once. */
export function choreKey(
  chore: { kind: string; deviceId: DeviceId; groupId?: GroupId },
): string {
  return `${chore.kind}:${chore.deviceId}:${chore.groupId ?? ""}`;
}

/** Keeps a message until a person trusts the account key that signed its sender's device; says so once. */
export function holdMessage(tx: StateTransaction, held: HeldRecord): void {
  const { row } = held;
  const all = tx.all("held");
  const isFirst = !all.some((one) => one.row.senderAccountId === row.senderAccountId);
  const { entryId, groupId, seq, acceptedMs } = row;
  if (all.length < HELD_MAX) tx.put("held", entryId, held);
  if (!isFirst && all.length < HELD_MAX) return;
  addNotice(tx, { notice: { kind: "unreadable", reason: "untrusted" }, entryId, groupId, seq, acceptedMs });
}

/** Notes something to do in the groups. */
export function addChore(
  tx: StateTransaction,
  chore: {
    kind: "addDevice" | "removeDevice" | "nameDomain";
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

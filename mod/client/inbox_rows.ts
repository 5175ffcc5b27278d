/** Rows of the inbox: what was received, in order, until it has been shown. */
import { type AccountId, type DeviceId, type EntryId, type GroupId, randomId } from "../base/ids.ts";
import type { StateTransaction } from "./state.ts";
import type { InboxNotice, InboxRecord } from "./state_records.ts";

/** Puts a row behind the others. */
export function addInboxRow(tx: StateTransaction, row: InboxRecord): void {
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

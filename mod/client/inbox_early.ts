/**
 * Messages that came before what they build upon. Each server delivers in order, but a group's members can be on
 * several: a message of the next epoch may overtake the commit that begins it, and a group's first message the
 * Welcome to it. They are kept, durably and within bounds, and read when their time has come.
 */
import type { EntryId, GroupId } from "../base/ids.ts";
import { addNotice } from "./inbox_rows.ts";
import type { StateReader, StateTransaction } from "./state.ts";
import type { EarlyRecord } from "./state_records.ts";

/** For a group that this device is in. */
const GROUP_BOUNDS = { messages: 1_000, bytes: 8 << 20 };
/** For all groups together that it is not in: a Welcome may follow. */
const STRANGER_BOUNDS = { messages: 200, bytes: 2 << 20 };
/** Longer than servers keep on trying to deliver (3 days by default): what is missing after that will not come. */
const WAIT_MS_MAX = 4 * 86_400_000;

/** In which epoch a group is here; undefined when this device is not in it. */
export type EpochOf = (groupId: GroupId) => number | undefined;

/** Keeps a message of a group that this device is in. False: there is no more room. */
export function keepEarly(tx: StateTransaction, row: EarlyRecord): boolean {
  return keep(tx, { row, others: earlyOf(tx, row.groupId), bounds: GROUP_BOUNDS });
}

/** Keeps a message of a group that this device is not in, unless there are too many such messages. */
export function keepStranger(tx: StateTransaction, row: EarlyRecord, epochOf: EpochOf): void {
  const others = tx.all("early").filter((one) => epochOf(one.groupId) === undefined);
  keep(tx, { row, others, bounds: STRANGER_BOUNDS });
}

function keep(
  tx: StateTransaction,
  kept: { row: EarlyRecord; others: readonly EarlyRecord[]; bounds: typeof GROUP_BOUNDS },
): boolean {
  const { row, others, bounds } = kept;
  const bytes = others.reduce((sum, one) => sum + one.payload.length, row.payload.length);
  if (others.length >= bounds.messages || bytes > bounds.bytes) return false;
  tx.put("early", row.entryId, row);
  return true;
}

/** What waits of a group. */
export function earlyOf(reader: StateReader, groupId: GroupId): EarlyRecord[] {
  return reader.all("early").filter((row) => row.groupId === groupId);
}

/** The next message whose epoch has begun: within an epoch its commit is the last. */
export function nextEarly(reader: StateReader, epochOf: EpochOf): EarlyRecord | undefined {
  const ready = reader.all("early").filter((row) => row.epoch <= (epochOf(row.groupId) ?? -1));
  return ready.sort((a, b) => a.epoch - b.epoch || Number(a.isCommit) - Number(b.isCommit))[0];
}

/**
 * A group cannot go on: what is missing did not come in time, or too much waits for it. Says so once; what waited is
 * dropped.
 */
export function giveUpGroup(
  tx: StateTransaction,
  lost: { groupId: GroupId; now: number; entryId?: EntryId },
): void {
  const { groupId, now, entryId } = lost;
  for (const row of earlyOf(tx, groupId)) tx.delete("early", row.entryId);
  const group = tx.get("groups", groupId);
  if (!group || group.broken || group.status === "removed") return;
  tx.put("groups", groupId, { ...group, broken: true });
  addNotice(tx, {
    notice: { kind: "missedCommit" },
    groupId,
    acceptedMs: now,
    ...(entryId ? { entryId } : {}),
  });
}

/** Gives up what has waited for too long. */
export function expireEarly(tx: StateTransaction, now: number): void {
  const overdue = tx.all("early").filter((row) => now - row.receivedMs > WAIT_MS_MAX);
  for (const groupId of new Set(overdue.map((row) => row.groupId))) giveUpGroup(tx, { groupId, now });
}

/** Does {@link expireEarly} have anything to do? */
export function hasOverdue(reader: StateReader, now: number): boolean {
  return reader.all("early").some((row) => now - row.receivedMs > WAIT_MS_MAX);
}

/** Delivery queues in memory: verbs of {@link QueueStore}. Tables and indexes are in queue_index.ts. */
import { equal } from "../../base/bytes.ts";
import type { AccountId, DeviceId } from "../../base/ids.ts";
import type {
  Accepted,
  CommitGuard,
  Cursor,
  Entry,
  NewMessage,
  QueueStore,
  RecipientStatus,
  ServerNotice,
} from "../store.ts";
import { addToOutboxes, notePeer } from "./outbox.ts";
import { senderKeyOf } from "./queue_index.ts";
import type { BodyRow, DailyRow, EntryRow, QueueRow, SenderKey } from "./rows.ts";
import { activeDevice } from "./sessions.ts";
import type { State } from "./state.ts";
import { lettersOf, type Statuses, statusesOf } from "./status_letters.ts";
import { numberKey } from "./table.ts";

const DAY_MS = 86_400_000;
type EnqueueResult = Awaited<ReturnType<QueueStore["enqueue"]>>;

/** See {@link QueueStore.enqueue}. */
export function enqueue(state: State, message: NewMessage): EnqueueResult {
  const own = message.origin === null && activeDevice(state, message.senderDevice);
  // Deleted or revoked while its last request was on the way: nothing may be sent any more.
  if (own !== false && own?.accountId !== message.senderAccount) return quotaExceeded(message);
  return replay(state, message) ?? checkGuard(state, message) ?? checkOrder(state, message) ??
    checkQuota(state, message) ?? accept(state, message);
}

/** For whom the message is counted. */
function senderOf(message: NewMessage): SenderKey {
  return senderKeyOf(message.origin, message.senderAccount);
}

/** The first result of a message id that is remembered. */
function replay(state: State, message: NewMessage): EnqueueResult | undefined {
  const row = state.queues.messageIds.get(senderOf(message) + message.messageId);
  if (!row || row.acceptedAt + message.limits.idempotencyMs <= message.now) return undefined;
  if (!equal(row.requestSha256, message.requestSha256)) return { status: "idConflict" };
  return {
    status: "accepted",
    replayed: true,
    ...statusesOf(row.recipients),
    acceptedAt: row.acceptedAt,
    expiresAt: row.expiresAt,
  };
}

function checkGuard(state: State, message: NewMessage): EnqueueResult | undefined {
  const { commitsTo, guard } = message;
  const { guards } = state.queues;
  const unguarded = commitsTo.some((groupId) => guards.has(groupId) && guard?.groupId !== groupId);
  if (unguarded) return { status: "guardRequired" };
  if (!guard) return undefined;
  const row = guards.get(guard.groupId);
  if (!row) {
    const begun = dailyOf(state, senderOf(message), message.now).guards;
    return begun >= message.limits.guardsPerDay ? { status: "guardLimit" } : undefined;
  }
  const passes = row.epoch === guard.epoch && equal(row.tokenSha256, guard.tokenSha256);
  return passes ? undefined : { status: "wrongEpoch", currentEpoch: row.epoch };
}

function checkOrder(state: State, message: NewMessage): EnqueueResult | undefined {
  const sender = senderOf(message);
  const overtakes = message.behind.some((id) => !state.queues.messageIds.has(sender + id));
  return overtakes ? { status: "heldBack" } : undefined;
}

function checkQuota(state: State, message: NewMessage): EnqueueResult | undefined {
  const sent = dailyOf(state, senderOf(message), message.now).sentBytes;
  if (sent + logicalBytes(message) <= message.limits.senderBytesPerDay) return undefined;
  return quotaExceeded(message);
}

function quotaExceeded(message: NewMessage): EnqueueResult {
  return { status: "quotaExceeded", retryAfterMs: DAY_MS - message.now % DAY_MS };
}

/** Bytes × recipients. */
function logicalBytes(message: NewMessage): number {
  const remote = message.remote.reduce((sum, { body, recipients }) => sum + body.length * recipients, 0);
  return message.parts.reduce((sum, part) => sum + part.payload.length * part.recipients.length, remote);
}

/** The sender's sums of the day of `now`. */
function dailyOf(state: State, accountId: SenderKey, now: number): DailyRow {
  const day = Math.floor(now / DAY_MS);
  const row = state.queues.daily.get(accountId);
  return row?.day === day ? row : { accountId, day, sentBytes: 0, guards: 0 };
}

function accept(state: State, message: NewMessage): Accepted {
  const { senderAccount, limits, now } = message;
  if (message.origin !== null) notePeer(state, message.origin);
  const daily = dailyOf(state, senderOf(message), now);
  const begins = message.guard !== null && !state.queues.guards.has(message.guard.groupId);
  state.put(state.queues.daily, {
    ...daily,
    sentBytes: daily.sentBytes + logicalBytes(message),
    guards: daily.guards + (begins ? 1 : 0),
  });
  if (message.guard) moveGuard(state, message.guard, now);
  const recipients: RecipientStatus[] = [];
  for (const { payload, recipients: devices } of message.parts) {
    const body = newBody(state, {
      kind: "message",
      entryId: message.entryId,
      senderAccount,
      senderDevice: message.senderDevice,
      senderDomain: message.origin,
      acceptedAt: now,
      expiresAt: message.expiresAt,
      length: payload.length,
    });
    // A device named twice in one part gets one entry for it.
    const reached = new Set<DeviceId>();
    for (const deviceId of devices) {
      const status = reached.has(deviceId) ? "ok" : deliver(state, deviceId, { body, limits });
      if (status === "ok") reached.add(deviceId);
      recipients.push(status);
    }
    if (state.queueIndex.usersOf(body.bodyId) > 0) state.stagePayload(numberKey(body.bodyId), payload);
    else state.remove(state.queues.bodies, numberKey(body.bodyId));
  }
  const statuses = { recipients, remote: addToOutboxes(state, message) };
  remember(state, message, statuses);
  return { status: "accepted", replayed: false, ...statuses, acceptedAt: now, expiresAt: message.expiresAt };
}

function moveGuard(state: State, guard: CommitGuard, now: number): void {
  state.put(state.queues.guards, {
    groupId: guard.groupId,
    epoch: guard.epoch + 1,
    tokenSha256: guard.nextTokenSha256,
    usedAt: now,
  });
}

/** Remembers the result, and forgets the sender's oldest ones beyond its count. */
function remember(state: State, message: NewMessage, statuses: Statuses): void {
  const { messageIds } = state.queues;
  const { origin, messageId, limits } = message;
  const senderAccount = senderOf(message);
  const senderDevice = senderKeyOf(origin, message.senderDevice as string as SenderKey);
  // A forgotten id that is used again counts as new, so it must not keep its old place.
  state.remove(messageIds, senderAccount + messageId);
  state.put(messageIds, {
    senderAccount,
    messageId,
    senderDevice,
    requestSha256: message.requestSha256,
    recipients: lettersOf(statuses),
    acceptedAt: message.now,
    expiresAt: message.expiresAt,
  });
  const remembered = state.queueIndex.messageIdsOf(senderDevice);
  while (remembered.size > limits.idempotencyCountMax) {
    const [oldest] = remembered;
    state.remove(messageIds, oldest!);
  }
}

/** A row for a new body, whose bytes are to be staged. */
export function newBody(state: State, fields: Omit<BodyRow, "bodyId" | "segment" | "offset">): BodyRow {
  const body = { bodyId: state.queueIndex.newBodyId(), ...fields, segment: 0, offset: 0 };
  state.put(state.queues.bodies, body);
  return body;
}

function deliver(
  state: State,
  deviceId: DeviceId,
  { body, limits }: { body: BodyRow; limits: NewMessage["limits"] },
): RecipientStatus {
  const device = activeDevice(state, deviceId);
  const queue = state.queues.queues.get(deviceId);
  if (!device || !queue) return "unknownDevice";
  if (state.accountIndex.blockedBy(device.accountId).has(body.senderAccount!)) return "blocked";
  const list = state.queueIndex.list(deviceId);
  const sender = senderKeyOf<SenderKey>(body.senderDomain, body.senderAccount!);
  const held = state.queueIndex.heldBy(list, sender);
  const share = device.accountId === sender ? 1 : limits.senderShare;
  const full = state.queues.entries.size >= state.limits.queueEntriesMax ||
    list.load.entries + 1 > limits.queueDepthMax ||
    list.load.bytes + body.length > limits.queueBytesMax ||
    held.entries + 1 > limits.queueDepthMax * share ||
    held.bytes + body.length > limits.queueBytesMax * share;
  if (full) {
    state.put(state.queues.queues, withDropped(queue, queue.nextSeq - 1));
    return "queueFull";
  }
  addEntry(state, queue, body);
  return "ok";
}

function withDropped(queue: QueueRow, through: number): QueueRow {
  const droppedThrough = Math.max(queue.droppedThrough, through);
  return { ...queue, droppedThrough, droppedCount: queue.droppedCount + 1 };
}

function addEntry(state: State, queue: QueueRow, body: BodyRow): void {
  state.put(state.queues.entries, { deviceId: queue.deviceId, seq: queue.nextSeq, bodyId: body.bodyId });
  state.put(state.queues.queues, { ...queue, nextSeq: queue.nextSeq + 1 });
}

/** Puts an entry of the server's own into a queue, past every bound. */
export function enqueueNotice(state: State, deviceId: DeviceId, notice: ServerNotice, now: number): void {
  const queue = state.queues.queues.get(deviceId);
  if (!queue) return;
  const body = newBody(state, {
    kind: "notice",
    entryId: notice.entryId,
    senderAccount: null,
    senderDevice: null,
    senderDomain: null,
    acceptedAt: now,
    expiresAt: notice.expiresAt,
    length: notice.payload.length,
  });
  state.stagePayload(numberKey(body.bodyId), notice.payload);
  addEntry(state, queue, body);
}

/** An entry whose payload is still to be read. */
export interface FoundEntry {
  readonly seq: number;
  readonly body: BodyRow;
}

/** The entry with its payload. */
export function toEntry({ seq, body }: FoundEntry, payload: Uint8Array): Entry {
  const { entryId, senderAccount, senderDevice, senderDomain, acceptedAt, expiresAt } = body;
  const kind = body.kind === "notice" ? "notice" : "message";
  const sender = { senderAccount, senderDevice, senderDomain };
  return { seq, kind, entryId, ...sender, payload, acceptedAt, expiresAt };
}

/** Finds what {@link QueueStore.fetchAfter} answers; the payloads are read afterwards. */
export function findEntries(
  state: State,
  fetch: Parameters<QueueStore["fetchAfter"]>[0],
): { entries: FoundEntry[]; more: boolean; cursor: Cursor } | null {
  const cursor = cursorOf(state, fetch.deviceId);
  if (!cursor) return null;
  const entries: FoundEntry[] = [];
  let bytes = 0;
  for (const { seq, bodyId } of state.queueIndex.list(fetch.deviceId).after(fetch.after)) {
    const body = state.queues.bodies.get(numberKey(bodyId))!;
    if (body.expiresAt <= fetch.now) continue;
    bytes += body.length;
    const fits = entries.length < fetch.entriesMax && bytes <= fetch.bytesMax;
    if (entries.length > 0 && !fits) return { entries, more: true, cursor };
    entries.push({ seq, body });
  }
  return { entries, more: false, cursor };
}

/** See {@link QueueStore.ack}. */
export function ack(
  state: State,
  deviceId: DeviceId,
  through: number,
): Awaited<ReturnType<QueueStore["ack"]>> {
  const queue = activeDevice(state, deviceId) && state.queues.queues.get(deviceId);
  if (!queue) return { status: "noDevice" };
  if (through >= queue.nextSeq) return { status: "beyondEnd" };
  const acked: EntryRow[] = [];
  for (const entry of state.queueIndex.list(deviceId).after(0)) {
    if (entry.seq > through) break;
    acked.push(entry);
  }
  for (const entry of acked) removeEntry(state, entry);
  if (through > queue.ackedThrough) state.put(state.queues.queues, { ...queue, ackedThrough: through });
  return { status: "acked", deleted: acked.length, cursor: cursorOf(state, deviceId)! };
}

function removeEntry(state: State, entry: EntryRow): void {
  state.remove(state.queues.entries, state.queues.entries.keyOf(entry));
  if (state.queueIndex.usersOf(entry.bodyId) > 0) return;
  state.remove(state.queues.bodies, numberKey(entry.bodyId));
}

/** See {@link QueueStore.cursor}. */
export function cursorOf(state: State, deviceId: DeviceId): Cursor | null {
  const queue = activeDevice(state, deviceId) && state.queues.queues.get(deviceId);
  if (!queue) return null;
  const { deviceId: _, ...cursor } = queue;
  return cursor;
}

/** See {@link QueueStore.expireEntries}. */
export function expireEntries(state: State, now: number, limit: number): number {
  const expired: EntryRow[] = [];
  for (const entry of state.queues.entries.rows()) {
    if (expired.length >= limit) break;
    if (state.queues.bodies.get(numberKey(entry.bodyId))!.expiresAt <= now) expired.push(entry);
  }
  for (const entry of expired) {
    removeEntry(state, entry);
    state.put(state.queues.queues, withDropped(state.queues.queues.get(entry.deviceId)!, entry.seq));
  }
  return expired.length;
}

/** See AdminStore.purgeQueue. */
export function purgeQueue(state: State, deviceId: DeviceId): number | null {
  const queue = activeDevice(state, deviceId) && state.queues.queues.get(deviceId);
  if (!queue) return null;
  const entries = [...state.queueIndex.list(deviceId).after(0)];
  if (entries.length === 0) return 0;
  for (const entry of entries) removeEntry(state, entry);
  const droppedThrough = queue.nextSeq - 1;
  const droppedCount = queue.droppedCount + entries.length;
  state.put(state.queues.queues, { ...queue, droppedThrough, droppedCount });
  return entries.length;
}

/** See {@link QueueStore.expireMessageIds}. */
export function expireMessageIds(
  state: State,
  { before, remoteBefore }: { before: number; remoteBefore: number },
  limit: number,
): number {
  const keys: string[] = [];
  for (const row of state.queues.messageIds.rows()) {
    if (keys.length >= limit) break;
    const remote = row.senderAccount.startsWith("@");
    if (row.acceptedAt < (remote ? remoteBefore : before)) keys.push(row.senderAccount + row.messageId);
  }
  for (const key of keys) state.remove(state.queues.messageIds, key);
  const sums: SenderKey[] = [];
  const dayBefore = Math.floor(before / DAY_MS);
  for (const row of state.queues.daily.rows()) {
    if (keys.length + sums.length >= limit) break;
    if (row.day < dayBefore) sums.push(row.accountId);
  }
  for (const accountId of sums) state.remove(state.queues.daily, accountId);
  return keys.length + sums.length;
}

/** See {@link QueueStore.expireGuards}. */
export function expireGuards(state: State, before: number, limit: number): number {
  const keys: string[] = [];
  for (const row of state.queues.guards.rows()) {
    if (keys.length >= limit) break;
    if (row.usedAt < before) keys.push(row.groupId);
  }
  for (const key of keys) state.remove(state.queues.guards, key);
  return keys.length;
}

/** Removes a device's queue with all its entries. */
export function dropQueue(state: State, deviceId: DeviceId): void {
  for (const entry of [...state.queueIndex.list(deviceId).after(0)]) removeEntry(state, entry);
  state.remove(state.queues.queues, deviceId);
}

/** Removes what is remembered of an account as a sender. */
export function dropSenderRecords(state: State, accountId: AccountId): void {
  for (const row of [...state.queues.messageIds.rows()]) {
    if (row.senderAccount === accountId) {
      state.remove(state.queues.messageIds, row.senderAccount + row.messageId);
    }
  }
  state.remove(state.queues.daily, accountId);
}

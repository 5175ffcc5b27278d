/** Devices and login sessions in memory: tables, indexes and verbs of {@link SessionStore}. */
import { copy, equal } from "../../base/bytes.ts";
import type { AccountId, DeviceId, SessionId } from "../../base/ids.ts";
import type { Device, NewSession, ServerNotice, SessionState, SessionStore } from "../store.ts";
import { ENDED_SESSIONS_KEPT } from "../store.ts";
import { dropKeyPackages } from "./keypackages.ts";
import { dropQueue, enqueueNotice } from "./queues.ts";
import type { DeviceRow, SessionRow } from "./rows.ts";
import type { State } from "./state.ts";
import { Table } from "./table.ts";

/** The tables of this file. */
export function sessionTables() {
  return {
    devices: new Table<DeviceRow>(20, {
      key: (row) => row.deviceId,
      columns: {
        deviceId: "text",
        accountId: "text",
        deviceKey: "bytes",
        name: "text",
        accountSignature: "bytes?",
        createdAt: "number",
        lastSeenAt: "number",
        revoked: "flag",
      },
    }),
    sessions: new Table<SessionRow>(21, {
      key: (row) => row.sessionId,
      columns: {
        sessionId: "text",
        accountId: "text",
        deviceId: "text",
        createdAt: "number",
        lastSeenAt: "number",
        ended: "flag",
      },
    }),
  };
}

type SessionTables = ReturnType<typeof sessionTables>;

/** Devices by account, sessions by device, sessions that have not ended, devices that are not revoked. */
export class SessionIndex {
  readonly #tables: SessionTables;
  readonly #devices = new Map<AccountId, Set<DeviceId>>();
  readonly #sessions = new Map<DeviceId, Set<SessionId>>();
  /** Sessions that have not ended. */
  readonly live = new Set<SessionId>();
  /** Devices that are not revoked. */
  deviceCount = 0;

  constructor(tables: SessionTables) {
    this.#tables = tables;
    tables.devices.onChange = (before, after) => {
      if (before && !before.revoked) this.deviceCount--;
      if (after && !after.revoked) this.deviceCount++;
      if (before && !after) drop(this.#devices, before.accountId, before.deviceId);
      if (after) add(this.#devices, after.accountId, after.deviceId);
    };
    tables.sessions.onChange = (before, after) => {
      if (before && before.deviceId !== after?.deviceId) {
        drop(this.#sessions, before.deviceId, before.sessionId);
      }
      if (after) add(this.#sessions, after.deviceId, after.sessionId);
      if (after && !after.ended) this.live.add(after.sessionId);
      else if (before) this.live.delete(before.sessionId);
    };
  }

  /** The account's devices, oldest first, revoked ones too. */
  devicesOf(accountId: AccountId): DeviceRow[] {
    return [...this.#devices.get(accountId) ?? []]
      .map((deviceId) => this.#tables.devices.get(deviceId)!)
      .sort((a, b) => a.createdAt - b.createdAt);
  }

  /** The account's devices that are not revoked, oldest first. */
  activeDevicesOf(accountId: AccountId): DeviceRow[] {
    return this.devicesOf(accountId).filter((device) => !device.revoked);
  }

  /** The device's sessions, ended ones too. */
  sessionsOf(deviceId: DeviceId): SessionRow[] {
    return [...this.#sessions.get(deviceId) ?? []].map((id) => this.#tables.sessions.get(id)!);
  }
}

function add<Key, Item>(sets: Map<Key, Set<Item>>, key: Key, item: Item): void {
  const set = sets.get(key);
  if (set) set.add(item);
  else sets.set(key, new Set([item]));
}

function drop<Key, Item>(sets: Map<Key, Set<Item>>, key: Key, item: Item): void {
  const set = sets.get(key);
  set?.delete(item);
  if (set?.size === 0) sets.delete(key);
}

/** The device if it is there and not revoked. */
export function activeDevice(state: State, deviceId: DeviceId): DeviceRow | undefined {
  const device = state.sessions.devices.get(deviceId);
  return device?.revoked === false ? device : undefined;
}

/** See {@link SessionStore.createSession}. */
export function createSession(
  state: State,
  session: NewSession,
): Awaited<ReturnType<SessionStore["createSession"]>> {
  const { devices, sessions } = state.sessions;
  const { accountId, deviceId, now } = session;
  if (!state.accounts.accounts.has(accountId)) return { status: "noAccount" };
  const known = devices.get(deviceId);
  if (known) {
    const same = known.accountId === accountId && equal(known.deviceKey, session.deviceKey);
    if (!same || known.revoked) return { status: "deviceConflict" };
    endAndForget(state, deviceId);
    state.put(devices, { ...known, name: session.deviceName, lastSeenAt: Math.max(known.lastSeenAt, now) });
  } else {
    const others = state.sessionIndex.activeDevicesOf(accountId);
    if (others.length >= session.devicesMax) return { status: "tooManyDevices" };
    addDevice(state, session);
    for (const other of others) enqueueNotice(state, other.deviceId, session.deviceAddedNotice, now);
  }
  const { sessionId } = session;
  state.put(sessions, { sessionId, accountId, deviceId, createdAt: now, lastSeenAt: now, ended: false });
  return { status: "created", newDevice: !known, deviceSigned: Boolean(known?.accountSignature) };
}

/** Ends the device's sessions and forgets all but the last. */
function endAndForget(state: State, deviceId: DeviceId): void {
  const newestFirst = state.sessionIndex.sessionsOf(deviceId).sort((a, b) => b.createdAt - a.createdAt);
  for (const [index, row] of newestFirst.entries()) {
    if (index < ENDED_SESSIONS_KEPT) end(state, row);
    else state.remove(state.sessions.sessions, row.sessionId);
  }
}

function addDevice(state: State, session: NewSession): void {
  const { accountId, deviceId, now } = session;
  state.put(state.sessions.devices, {
    deviceId,
    accountId,
    deviceKey: session.deviceKey,
    name: session.deviceName,
    accountSignature: null,
    createdAt: now,
    lastSeenAt: now,
    revoked: false,
  });
  const start = { ackedThrough: 0, nextSeq: 1, droppedThrough: 0, droppedCount: 0 };
  state.put(state.queues.queues, { deviceId, ...start });
}

/** See {@link SessionStore.findSession}. */
export function findSession(state: State, sessionId: SessionId): SessionState | null {
  const row = state.sessions.sessions.get(sessionId);
  const device = row && state.sessions.devices.get(row.deviceId);
  const account = row && state.accounts.accounts.get(row.accountId);
  if (!device || !account) return null;
  return {
    ...row,
    deviceKey: copy(device.deviceKey),
    deviceRevoked: device.revoked,
    deviceSigned: device.accountSignature !== null,
    accountEnabled: account.enabled,
  };
}

/** See {@link SessionStore.touchSession}. An ended session stays as it is. */
export function touchSession(state: State, sessionId: SessionId, now: number): void {
  const { devices, sessions } = state.sessions;
  const row = sessions.get(sessionId);
  if (!row || row.ended) return;
  if (row.lastSeenAt < now) state.put(sessions, { ...row, lastSeenAt: now });
  const device = devices.get(row.deviceId);
  if (device && device.lastSeenAt < now) state.put(devices, { ...device, lastSeenAt: now });
}

/** See {@link SessionStore.endSession}. */
export function endSession(state: State, sessionId: SessionId): void {
  const row = state.sessions.sessions.get(sessionId);
  if (row) end(state, row);
}

function end(state: State, row: SessionRow): void {
  if (!row.ended) state.put(state.sessions.sessions, { ...row, ended: true });
}

/** Ends every session of the account but one. */
export function endSessionsOf(state: State, accountId: AccountId, keep: SessionId | null): void {
  for (const device of state.sessionIndex.devicesOf(accountId)) {
    for (const row of state.sessionIndex.sessionsOf(device.deviceId)) {
      if (row.sessionId !== keep) end(state, row);
    }
  }
}

/** See {@link SessionStore.expireSessions}. */
export function expireSessions(
  state: State,
  bounds: { idleBefore: number; createdBefore: number; limit: number },
): number {
  const expired: SessionRow[] = [];
  for (const sessionId of state.sessionIndex.live) {
    if (expired.length >= bounds.limit) break;
    const row = state.sessions.sessions.get(sessionId)!;
    if (row.lastSeenAt < bounds.idleBefore || row.createdAt < bounds.createdBefore) expired.push(row);
  }
  for (const row of expired) end(state, row);
  return expired.length;
}

/** See {@link SessionStore.listDevices}. */
export function listDevices(state: State, accountId: AccountId): Device[] {
  return state.sessionIndex.activeDevicesOf(accountId).map(({ revoked: _, ...device }) => ({
    ...device,
    deviceKey: copy(device.deviceKey),
    accountSignature: device.accountSignature && copy(device.accountSignature),
  }));
}

/** See {@link SessionStore.signDevice}. */
export function signDevice(
  state: State,
  which: { accountId: AccountId; deviceId: DeviceId },
  signature: Uint8Array,
): boolean {
  const device = activeDevice(state, which.deviceId);
  if (device?.accountId !== which.accountId) return false;
  state.put(state.sessions.devices, { ...device, accountSignature: signature });
  return true;
}

/** See {@link SessionStore.revokeDevice}. */
export function revokeDevice(
  state: State,
  which: { accountId: AccountId; deviceId: DeviceId },
  { notice, now }: { notice: ServerNotice; now: number },
): boolean {
  const device = activeDevice(state, which.deviceId);
  if (device?.accountId !== which.accountId) return false;
  for (const row of state.sessionIndex.sessionsOf(device.deviceId)) end(state, row);
  dropQueue(state, device.deviceId);
  dropKeyPackages(state, device.deviceId);
  state.put(state.sessions.devices, { ...device, revoked: true });
  for (const other of state.sessionIndex.activeDevicesOf(device.accountId)) {
    enqueueNotice(state, other.deviceId, notice, now);
  }
  return true;
}

/** See {@link SessionStore.expireDevices}. */
export function expireDevices(state: State, idleBefore: number, limit: number): DeviceId[] {
  const idle: DeviceRow[] = [];
  for (const device of state.sessions.devices.rows()) {
    if (idle.length >= limit) break;
    if (device.lastSeenAt < idleBefore) idle.push(device);
  }
  for (const device of idle) forgetDevice(state, device);
  return idle.map((device) => device.deviceId);
}

/** Removes the device with its queue, KeyPackages and sessions. */
export function forgetDevice(state: State, device: DeviceRow): void {
  for (const row of state.sessionIndex.sessionsOf(device.deviceId)) {
    state.remove(state.sessions.sessions, row.sessionId);
  }
  dropQueue(state, device.deviceId);
  dropKeyPackages(state, device.deviceId);
  state.remove(state.sessions.devices, device.deviceId);
}

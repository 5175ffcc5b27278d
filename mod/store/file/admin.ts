/** What operators do to the store, in memory: verbs of {@link AdminStore} that are one transaction. */
import { copy, randomBytes } from "../../base/bytes.ts";
import type { BlobHash } from "../../base/ids.ts";
import type { AccountSummary, AdminStore, DeviceSummary, QueueSummary } from "../admin_store.ts";
import type { OpaqueSetup } from "../store.ts";
import type { AccountRow } from "./rows.ts";
import type { State } from "./state.ts";
import { numberKey, type Table } from "./table.ts";

/** See {@link AdminStore.listAccounts}. */
export function listAccounts(
  state: State,
  { afterName, limit }: { afterName: string; limit: number },
): AccountSummary[] {
  return [...state.accounts.accounts.rows()]
    .filter((row) => row.userName > afterName)
    .sort((a, b) => a.userName < b.userName ? -1 : 1)
    .slice(0, limit)
    .map((row) => summaryOf(state, row));
}

function summaryOf(state: State, row: AccountRow): AccountSummary {
  const { accountId, userName, createdAt, enabled, setupId } = row;
  const devices = state.sessionIndex.activeDevicesOf(accountId);
  const queueEntries = devices.reduce((sum, { deviceId }) => {
    return sum + state.queueIndex.list(deviceId).length;
  }, 0);
  const lastSeenAt = devices.length === 0 ? null : Math.max(...devices.map((device) => device.lastSeenAt));
  const counts = { devices: devices.length, queueEntries, lastSeenAt };
  return { accountId, userName, createdAt, enabled, setupId, ...counts };
}

/** See {@link AdminStore.accountsBySetup}. */
export function accountsBySetup(state: State): { setupId: number; accounts: number }[] {
  return [...state.setups.rows()]
    .map(({ setupId }) => ({ setupId, accounts: state.accountIndex.accountsUnder(setupId) }))
    .sort((a, b) => a.setupId - b.setupId);
}

/** See {@link AdminStore.addOpaqueSetup}. */
export function addOpaqueSetup(
  state: State,
  { suiteId, secret, createdAt }: Parameters<AdminStore["addOpaqueSetup"]>[0],
): OpaqueSetup {
  const setup = { setupId: newestSetup(state) + 1, suiteId, secret, createdAt, retiredAt: null };
  state.put(state.setups, setup);
  return { ...setup, secret: copy(secret) };
}

function newestSetup(state: State): number {
  return Math.max(0, ...[...state.setups.rows()].map((row) => row.setupId));
}

/** See {@link AdminStore.retireOpaqueSetup}. */
export function retireOpaqueSetup(
  state: State,
  { setupId, force, namesMax, now }: Parameters<AdminStore["retireOpaqueSetup"]>[0],
): Awaited<ReturnType<AdminStore["retireOpaqueSetup"]>> {
  const setup = state.setups.get(numberKey(setupId));
  if (!setup) return { status: "unknown" };
  if (setupId === newestSetup(state)) return { status: "newest" };
  const names: string[] = [];
  for (const row of state.accounts.accounts.rows()) if (row.setupId === setupId) names.push(row.userName);
  const named = names.sort().slice(0, namesMax);
  if (names.length > 0 && !force) return { status: "inUse", accounts: names.length, names: named };
  if (setup.retiredAt === null) state.put(state.setups, { ...setup, retiredAt: now });
  return { status: "retired", lockedOut: names.length, names: named };
}

/** See {@link AdminStore.findDevices}. */
export function findDevices(
  state: State,
  { prefix, limit }: { prefix: string; limit: number },
): DeviceSummary[] {
  return [...state.sessions.devices.rows()]
    .filter((row) => !row.revoked && row.deviceId.startsWith(prefix))
    .sort((a, b) => a.deviceId < b.deviceId ? -1 : 1)
    .slice(0, limit)
    .map((row) => {
      const { deviceId, accountId, name, createdAt, lastSeenAt } = row;
      const list = state.queueIndex.list(deviceId);
      return {
        deviceId,
        accountId,
        userName: state.accounts.accounts.get(accountId)!.userName,
        name,
        signed: row.accountSignature !== null,
        createdAt,
        lastSeenAt,
        entries: list.length,
        bytes: list.load.bytes,
      };
    });
}

/** See {@link AdminStore.topQueues}. */
export function topQueues(state: State, limit: number): QueueSummary[] {
  return [...state.queues.queues.keys()]
    .map((deviceId) => state.sessions.devices.get(deviceId)!)
    .map((device) => ({ device, list: state.queueIndex.list(device.deviceId) }))
    .filter(({ list }) => list.length > 0)
    .sort((a, b) => b.list.length - a.list.length)
    .slice(0, limit)
    .map(({ device: { deviceId, accountId }, list }) => {
      const [first] = list.after(0);
      return {
        deviceId,
        accountId,
        userName: state.accounts.accounts.get(accountId)!.userName,
        entries: list.length,
        bytes: list.load.bytes,
        oldestAcceptedAt: state.queues.bodies.get(numberKey(first!.bodyId))!.acceptedAt,
      };
    });
}

/** See {@link AdminStore.listBlobs}. */
export function listBlobs(
  state: State,
  { after, limit }: { after: BlobHash | null; limit: number },
): { hash: BlobHash; bytes: number }[] {
  return [...state.blobIndex.hashes()]
    .filter((hash) => after === null || hash > after)
    .sort()
    .slice(0, limit)
    .map((hash) => ({ hash, bytes: state.blobIndex.referencesTo(hash)[0]!.bytes }));
}

/** See {@link AdminStore.markRestored}. */
export function markRestored(state: State): Uint8Array {
  const incarnation = randomBytes(16);
  state.put(state.meta, { name: "incarnation", number: null, bytes: incarnation });
  const { packages, lowNotices } = state.keyPackages;
  for (const row of packages.rows()) if (row.bytes) state.put(packages, { ...row, bytes: null });
  empty(state, lowNotices);
  empty(state, state.sessions.sessions);
  empty(state, state.queues.guards);
  empty(state, state.queues.messageIds);
  return copy(incarnation);
}

function empty<Row extends object>(state: State, table: Table<Row>): void {
  for (const key of [...table.keys()]) state.remove(table, key);
}

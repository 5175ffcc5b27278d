/** KeyPackages in memory: tables, indexes and verbs of {@link KeyPackageStore}. */
import { copy, hex } from "../../base/bytes.ts";
import type { DeviceId } from "../../base/ids.ts";
import type { ClaimedKeyPackage, KeyPackageCount, KeyPackageStore, NewKeyPackage } from "../store.ts";
import { enqueueNotice } from "./queues.ts";
import type { KeyPackageRow, LowNoticeRow } from "./rows.ts";
import { activeDevice } from "./sessions.ts";
import type { State } from "./state.ts";
import { numberKey, Table } from "./table.ts";

/** The tables of this file. */
export function keyPackageTables() {
  return {
    packages: new Table<KeyPackageRow>(30, {
      key: (row) => row.ref,
      columns: {
        ref: "text",
        deviceId: "text",
        suite: "number",
        bytes: "bytes?",
        notAfter: "number",
        lastResort: "flag",
      },
    }),
    lowNotices: new Table<LowNoticeRow>(31, {
      key: (row) => row.deviceId + numberKey(row.suite),
      columns: { deviceId: "text", suite: "number" },
    }),
  };
}

/** What one device has in one suite. */
interface Supply {
  /** Refs of packages to be given out once, oldest first. */
  readonly once: Set<string>;
  lastResort: string | null;
}

/** Packages that can be given out, by device and suite. */
export class KeyPackageIndex {
  readonly #supplies = new Map<DeviceId, Map<number, Supply>>();
  /** Packages that can be given out, last-resort ones included. */
  packageCount = 0;

  constructor(tables: ReturnType<typeof keyPackageTables>) {
    tables.packages.onChange = (before, after) => {
      if (before?.bytes) this.#remove(before);
      if (after?.bytes) this.#add(after);
    };
  }

  /** Suites of which the device has packages, ascending. */
  suitesOf(deviceId: DeviceId): number[] {
    return [...this.#supplies.get(deviceId)?.keys() ?? []].sort((a, b) => a - b);
  }

  supply(deviceId: DeviceId, suite: number): Readonly<Supply> {
    return this.#supplies.get(deviceId)?.get(suite) ?? { once: new Set(), lastResort: null };
  }

  #add(row: KeyPackageRow): void {
    const suites = this.#supplies.get(row.deviceId) ?? new Map<number, Supply>();
    const supply = suites.get(row.suite) ?? { once: new Set(), lastResort: null };
    this.#supplies.set(row.deviceId, suites.set(row.suite, supply));
    if (row.lastResort) supply.lastResort = row.ref;
    else supply.once.add(row.ref);
    this.packageCount++;
  }

  #remove(row: KeyPackageRow): void {
    this.packageCount--;
    const suites = this.#supplies.get(row.deviceId);
    const supply = suites?.get(row.suite);
    if (!suites || !supply) return;
    supply.once.delete(row.ref);
    if (supply.lastResort === row.ref) supply.lastResort = null;
    if (supply.once.size === 0 && supply.lastResort === null) suites.delete(row.suite);
    if (suites.size === 0) this.#supplies.delete(row.deviceId);
  }
}

/** The unexpired ones of these, soonest to expire first. */
function unexpired(state: State, refs: Iterable<string>, now: number): KeyPackageRow[] {
  const rows: KeyPackageRow[] = [];
  for (const ref of refs) {
    const row = state.keyPackages.packages.get(ref)!;
    if (row.notAfter > now) rows.push(row);
  }
  return rows.sort((a, b) => a.notAfter - b.notAfter);
}

/** See {@link KeyPackageStore.uploadKeyPackages}. */
export function uploadKeyPackages(
  state: State,
  upload: Parameters<KeyPackageStore["uploadKeyPackages"]>[0],
): Awaited<ReturnType<KeyPackageStore["uploadKeyPackages"]>> {
  const { deviceId, now } = upload;
  if (!activeDevice(state, deviceId)) return { status: "noDevice" };
  const fresh = new Map<string, NewKeyPackage>();
  const stored = upload.packages.map((keyPackage) => {
    const ref = hex(keyPackage.ref);
    if (state.keyPackages.packages.has(ref) || fresh.has(ref)) return false;
    fresh.set(ref, keyPackage);
    return true;
  });
  const added = new Map<number, number>();
  for (const { suite, lastResort } of fresh.values()) {
    if (!lastResort) added.set(suite, (added.get(suite) ?? 0) + 1);
  }
  for (const [suite, count] of added) {
    const { once } = state.keyPackageIndex.supply(deviceId, suite);
    if (unexpired(state, once, now).length + count > upload.perSuiteMax) return { status: "full" };
  }
  for (const [ref, keyPackage] of fresh) addPackage(state, deviceId, { ref, keyPackage });
  for (const suite of added.keys()) {
    state.remove(state.keyPackages.lowNotices, deviceId + numberKey(suite));
  }
  return { status: "stored", stored, counts: countKeyPackages(state, deviceId, now) };
}

function addPackage(
  state: State,
  deviceId: DeviceId,
  { ref, keyPackage }: { ref: string; keyPackage: NewKeyPackage },
): void {
  const { suite, notAfter, lastResort } = keyPackage;
  const former = lastResort ? state.keyPackageIndex.supply(deviceId, suite).lastResort : null;
  if (former !== null) markSeen(state, state.keyPackages.packages.get(former)!);
  const row = { ref, deviceId, suite, bytes: keyPackage.bytes, notAfter, lastResort };
  state.put(state.keyPackages.packages, row);
}

/** The package is gone; its ref stays known until its end. */
function markSeen(state: State, row: KeyPackageRow): void {
  state.put(state.keyPackages.packages, { ...row, bytes: null });
}

/** See {@link KeyPackageStore.countKeyPackages}. */
export function countKeyPackages(state: State, deviceId: DeviceId, now: number): KeyPackageCount[] {
  const counts: KeyPackageCount[] = [];
  for (const suite of state.keyPackageIndex.suitesOf(deviceId)) {
    const { once, lastResort } = state.keyPackageIndex.supply(deviceId, suite);
    const count = unexpired(state, once, now).length;
    const [last] = unexpired(state, lastResort === null ? [] : [lastResort], now);
    if (count > 0 || last) counts.push({ suite, count, lastResortNotAfter: last?.notAfter ?? null });
  }
  return counts;
}

/** See {@link KeyPackageStore.claimKeyPackages}. */
export function claimKeyPackages(
  state: State,
  claim: Parameters<KeyPackageStore["claimKeyPackages"]>[0],
): ClaimedKeyPackage[] {
  const wanted = claim.devices && new Set(claim.devices);
  const claimed: ClaimedKeyPackage[] = [];
  for (const device of state.sessionIndex.activeDevicesOf(claim.accountId)) {
    if (device.accountSignature === null || (wanted && !wanted.has(device.deviceId))) continue;
    const taken = takePackage(state, device.deviceId, claim);
    if (taken) claimed.push(taken);
  }
  return claimed;
}

function takePackage(
  state: State,
  deviceId: DeviceId,
  claim: Parameters<KeyPackageStore["claimKeyPackages"]>[0],
): ClaimedKeyPackage | undefined {
  const { suite, now } = claim;
  const supply = state.keyPackageIndex.supply(deviceId, suite);
  const once = unexpired(state, supply.once, now);
  const [lastResort] = unexpired(state, supply.lastResort === null ? [] : [supply.lastResort], now);
  const taken = claim.lastResortOnly ? lastResort : once[0] ?? lastResort;
  if (!taken?.bytes) return undefined;
  if (!taken.lastResort) markSeen(state, taken);
  const left = once.length - (taken.lastResort ? 0 : 1);
  const told = state.keyPackages.lowNotices.has(deviceId + numberKey(suite));
  if (!claim.lastResortOnly && left < claim.lowBelow && !told) {
    state.put(state.keyPackages.lowNotices, { deviceId, suite });
    enqueueNotice(state, deviceId, claim.lowNotice, now);
  }
  return { deviceId, bytes: copy(taken.bytes), lastResort: taken.lastResort };
}

/** See {@link KeyPackageStore.expireKeyPackages}. */
export function expireKeyPackages(state: State, now: number, limit: number): number {
  const expired: string[] = [];
  for (const row of state.keyPackages.packages.rows()) {
    if (expired.length >= limit) break;
    if (row.notAfter <= now) expired.push(row.ref);
  }
  for (const ref of expired) state.remove(state.keyPackages.packages, ref);
  return expired.length;
}

/** Removes what a device could still give out; the refs stay known until their end. */
export function dropKeyPackages(state: State, deviceId: DeviceId): void {
  for (const suite of state.keyPackageIndex.suitesOf(deviceId)) {
    const { once, lastResort } = state.keyPackageIndex.supply(deviceId, suite);
    for (const ref of lastResort === null ? [...once] : [...once, lastResort]) {
      markSeen(state, state.keyPackages.packages.get(ref)!);
    }
  }
  for (const row of [...state.keyPackages.lowNotices.rows()]) {
    if (row.deviceId === deviceId) {
      state.remove(state.keyPackages.lowNotices, state.keyPackages.lowNotices.keyOf(row));
    }
  }
}

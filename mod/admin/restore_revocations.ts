/**
 * What was taken away after a backup was made, done again to the store that was restored from it. Devices and accounts
 * are gone for good, so their lines always count; whether an account is enabled counts from the backup on.
 */
import { readTextIfThere, writeFileAtomic } from "../base/files.ts";
import type { AccountId, DeviceId } from "../base/ids.ts";
import { parseRevocations, type Revocation, revocationsText } from "../store/revocation_log.ts";
import type { ServerNotice, Store } from "../store/store.ts";
import { AdminError } from "./operations_error.ts";

/** Every line that was found, in order of time. */
export interface GatheredRevocations {
  readonly revocations: readonly Revocation[];
  /** Where lines of the time after the backup could come from; none: nothing is known of it. */
  readonly sources: readonly string[];
  readonly damagedLines: number;
  /** Writes them as the restored folder's log: the next restore may be of an older backup. */
  write(path: string): Promise<void>;
}

/** What was done again. */
export interface Replayed {
  readonly sources: readonly string[];
  readonly damagedLines: number;
  readonly devicesRevoked: number;
  readonly accountsDeleted: number;
  readonly accountsDisabled: number;
  readonly accountsEnabled: number;
  /** Names of accounts that were registered again since: their former password works again. */
  readonly accountsReset: readonly string[];
}

/** Reads the log in the backup, that of the folder restored into, and one that the operator names. */
export async function gatherRevocations(
  logs: { fromBackup: string; ofFolder: string; given: string | null; formerStore: boolean },
): Promise<GatheredRevocations> {
  const lines = new Map<string, Revocation>();
  const sources: string[] = [];
  let damagedLines = 0;
  for (const path of [logs.fromBackup, logs.ofFolder, logs.given]) {
    const text = path === null ? null : await readTextIfThere(path);
    if (text === null && path !== null && path === logs.given) {
      throw new AdminError(`There is no file ${path}`);
    }
    // A folder whose store is there and whose log is not has seen nothing revoked.
    if (path === logs.ofFolder && text === null && logs.formerStore) sources.push(path);
    if (path === null || text === null) continue;
    if (path !== logs.fromBackup) sources.push(path);
    const found = parseRevocations(text);
    damagedLines += found.damagedLines;
    for (const revocation of found.revocations) lines.set(revocationsText([revocation]), revocation);
  }
  const revocations = [...lines.values()].sort((a, b) => a.at - b.at);
  return {
    revocations,
    sources,
    damagedLines,
    async write(path) {
      if (revocations.length > 0) await writeFileAtomic(path, revocationsText(revocations), { mode: 0o600 });
    },
  };
}

/** Does to `store` what the lines say and it does not know. `since`: when the backup was made. */
export async function replayRevocations(
  store: Store,
  { revocations, sources, damagedLines }: GatheredRevocations,
  options: { since: number; deviceRevokedNotice: (device: DeviceId) => ServerNotice },
): Promise<Replayed> {
  let [devicesRevoked, accountsDeleted, accountsDisabled, accountsEnabled] = [0, 0, 0, 0];
  const accountsReset = new Set<string>();
  const enabled = new Map<AccountId, boolean>();
  const revoke = async (account: AccountId, device: DeviceId, at: number) => {
    if (await store.revokeDevice(account, device, options.deviceRevokedNotice(device), at)) devicesRevoked++;
  };
  for (const revocation of revocations) {
    const { account, at, kind } = revocation;
    const later = at >= options.since;
    if (kind === "deviceRevoked") {
      const devices = await store.listDevices(account);
      if (devices.some(({ deviceId }) => deviceId === revocation.device)) {
        await revoke(account, revocation.device, at);
      }
    } else if (kind === "accountDeleted") {
      if (await store.deleteAccount(account, at)) accountsDeleted++;
    } else if (kind === "accountReset" && later) {
      const found = await store.findAccount(account);
      if (!found) continue;
      accountsReset.add(found.userName);
      for (const device of await store.listDevices(account)) {
        if (device.createdAt <= at) await revoke(account, device.deviceId, at);
      }
    } else if (later) enabled.set(account, kind === "accountEnabled");
  }
  for (const [account, wanted] of enabled) {
    const found = await store.findAccount(account);
    if (!found || found.enabled === wanted) continue;
    await store.setAccountEnabled(account, wanted);
    if (wanted) accountsEnabled++;
    else accountsDisabled++;
  }
  const counts = { devicesRevoked, accountsDeleted, accountsDisabled, accountsEnabled };
  return { sources, damagedLines, ...counts, accountsReset: [...accountsReset] };
}

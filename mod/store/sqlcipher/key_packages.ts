/** The verbs of KeyPackageStore inside the worker; see store.ts for what they promise. */
import { type DeviceId, idOf } from "../../base/ids.ts";
import type { ClaimedKeyPackage, KeyPackageCount, KeyPackageStore, NewKeyPackage } from "../store.ts";
import type { Connection, Prepared } from "./connection.ts";
import type { Ledger } from "./ledger.ts";
import type { Queues } from "./queues.ts";

interface PackageRow {
  id: number;
  bytes: Uint8Array;
}

interface ClaimableDevice {
  id: number;
  device_id: Uint8Array;
}

type Upload = Parameters<KeyPackageStore["uploadKeyPackages"]>[0];
type UploadResult = Awaited<ReturnType<KeyPackageStore["uploadKeyPackages"]>>;
type Claim = Parameters<KeyPackageStore["claimKeyPackages"]>[0];

/** KeyPackages. */
export class KeyPackages {
  readonly #ledger: Ledger;
  readonly #queues: Queues;
  readonly #refSeen: Prepared<{ not_after: number }>;
  readonly #insertRef: Prepared<never>;
  readonly #insert: Prepared<never>;
  readonly #supply: Prepared<{ count: number }>;
  readonly #count: Prepared<{ suite: number; last_resort: number; count: number; not_after: number }>;
  readonly #deleteLastResort: Prepared<never>;
  readonly #claimable: Prepared<ClaimableDevice>;
  readonly #next: Prepared<PackageRow>;
  readonly #lastResort: Prepared<PackageRow>;
  readonly #delete: Prepared<never>;
  readonly #low: Prepared<{ suite: number }>;
  readonly #setLow: Prepared<never>;
  readonly #clearLow: Prepared<never>;
  readonly #expire: Prepared<never>;
  readonly #expireRefs: Prepared<never>;

  constructor(connection: Connection, parts: { ledger: Ledger; queues: Queues }) {
    this.#ledger = parts.ledger;
    this.#queues = parts.queues;
    const prepare = <Row = never>(sql: string) => connection.prepare<Row>(sql);
    this.#refSeen = prepare("SELECT not_after FROM key_package_refs WHERE ref = ?");
    this.#insertRef = prepare("INSERT INTO key_package_refs (ref, not_after) VALUES (?, ?)");
    this.#insert = prepare(
      "INSERT INTO key_packages (device, suite, last_resort, not_after, bytes) VALUES (?, ?, ?, ?, ifnull(?, x''))",
    );
    this.#supply = prepare(
      `SELECT count(*) AS count FROM key_packages
       WHERE device = ? AND suite = ? AND last_resort = 0 AND not_after > ?`,
    );
    this.#count = prepare(
      `SELECT suite, last_resort, count(*) AS count, max(not_after) AS not_after FROM key_packages
       WHERE device = ? AND not_after > ? GROUP BY suite, last_resort`,
    );
    this.#deleteLastResort = prepare(
      "DELETE FROM key_packages WHERE device = ? AND suite = ? AND last_resort = 1",
    );
    this.#claimable = prepare(
      `SELECT d.id, d.device_id FROM accounts a JOIN devices d ON d.account = a.id
       WHERE a.account_id = ? AND a.deleted_at IS NULL AND d.revoked = 0 AND d.account_signature IS NOT NULL
       ORDER BY d.id`,
    );
    const find = `SELECT id, bytes FROM key_packages WHERE device = ? AND suite = ?`;
    this.#next = prepare(`${find} AND last_resort = 0 AND not_after > ? ORDER BY not_after, id LIMIT 1`);
    this.#lastResort = prepare(`${find} AND last_resort = 1 AND not_after > ?`);
    this.#delete = prepare("DELETE FROM key_packages WHERE id = ?");
    this.#low = prepare("SELECT suite FROM key_package_lows WHERE device = ? AND suite = ?");
    this.#setLow = prepare("INSERT INTO key_package_lows (device, suite) VALUES (?, ?)");
    this.#clearLow = prepare("DELETE FROM key_package_lows WHERE device = ? AND suite = ?");
    this.#expire = prepare("DELETE FROM key_packages WHERE not_after <= ? ORDER BY not_after LIMIT ?");
    this.#expireRefs = prepare(
      "DELETE FROM key_package_refs WHERE not_after <= ? ORDER BY not_after LIMIT ?",
    );
  }

  uploadKeyPackages(upload: Upload): UploadResult {
    const { deviceId, packages, perSuiteMax, now } = upload;
    const device = this.#ledger.queue(deviceId)?.device;
    if (device === undefined) return { status: "noDevice" };
    const stored = this.#unseen(packages);
    const supplies = new Map<number, number>();
    for (const [index, { suite, lastResort }] of packages.entries()) {
      if (stored[index] && !lastResort) supplies.set(suite, (supplies.get(suite) ?? 0) + 1);
    }
    for (const [suite, added] of supplies) {
      if (this.#supply.get(device, suite, now)!.count + added > perSuiteMax) return { status: "full" };
    }
    for (const [index, keyPackage] of packages.entries()) if (stored[index]) this.#store(device, keyPackage);
    for (const suite of supplies.keys()) this.#clearLow.run(device, suite);
    return { status: "stored", stored, counts: this.#countsOf(device, now) };
  }

  /** Which of the packages are new to the store, and not named earlier in the list. */
  #unseen(packages: readonly NewKeyPackage[]): boolean[] {
    const inList = new Set<string>();
    return packages.map(({ ref }) => {
      const text = ref.toHex();
      if (inList.has(text) || this.#refSeen.get(ref)) return false;
      inList.add(text);
      return true;
    });
  }

  #store(device: number, keyPackage: NewKeyPackage): void {
    const { ref, suite, bytes, notAfter, lastResort } = keyPackage;
    this.#insertRef.run(ref, notAfter);
    const replaced = lastResort ? this.#deleteLastResort.run(device, suite) : 0;
    this.#insert.run(device, suite, lastResort ? 1 : 0, notAfter, bytes);
    this.#ledger.totals.change().keyPackages += 1 - replaced;
  }

  countKeyPackages(deviceId: DeviceId, now: number): KeyPackageCount[] {
    const queue = this.#ledger.queue(deviceId);
    return queue ? this.#countsOf(queue.device, now) : [];
  }

  #countsOf(device: number, now: number): KeyPackageCount[] {
    const counts = new Map<number, KeyPackageCount>();
    for (const row of this.#count.all(device, now)) {
      const { count, lastResortNotAfter } = counts.get(row.suite) ?? { count: 0, lastResortNotAfter: null };
      counts.set(
        row.suite,
        row.last_resort
          ? { suite: row.suite, count, lastResortNotAfter: row.not_after }
          : { suite: row.suite, count: row.count, lastResortNotAfter },
      );
    }
    return [...counts.values()];
  }

  claimKeyPackages(claim: Claim): ClaimedKeyPackage[] {
    const wanted = claim.devices && new Set<string>(claim.devices);
    const claimed: ClaimedKeyPackage[] = [];
    const low: DeviceId[] = [];
    for (const device of this.#claimable.all(Uint8Array.fromHex(claim.accountId))) {
      const deviceId: DeviceId = idOf(device.device_id);
      if (wanted && !wanted.has(deviceId)) continue;
      const taken = claim.lastResortOnly ? undefined : this.#next.get(device.id, claim.suite, claim.now);
      if (taken) {
        this.#delete.run(taken.id);
        this.#ledger.totals.change().keyPackages -= 1;
      }
      const answer = taken ?? this.#lastResort.get(device.id, claim.suite, claim.now);
      if (!answer) continue;
      claimed.push({ deviceId, bytes: answer.bytes, lastResort: !taken });
      if (!claim.lastResortOnly && this.#becameLow(device.id, claim)) low.push(deviceId);
    }
    this.#queues.notify(low, claim.lowNotice, claim.now);
    return claimed;
  }

  /** Is the supply low, and the owner not told yet? */
  #becameLow(device: number, { suite, lowBelow, now }: Claim): boolean {
    if (this.#supply.get(device, suite, now)!.count >= lowBelow) return false;
    if (this.#low.get(device, suite)) return false;
    this.#setLow.run(device, suite);
    return true;
  }

  expireKeyPackages(now: number, limit: number): number {
    const packages = this.#expire.run(now, limit);
    this.#ledger.totals.change().keyPackages -= packages;
    return packages + this.#expireRefs.run(now, limit - packages);
  }
}

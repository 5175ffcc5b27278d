/** The verbs of AdminStore inside the worker that are one transaction; see admin_store.ts for what they promise. */
import { hex, randomBytes } from "../../base/bytes.ts";
import { type BlobHash, ID_BYTES, idOf } from "../../base/ids.ts";
import type { AccountSummary, AdminStore, DeviceSummary, QueueSummary } from "../admin_store.ts";
import type { OpaqueSetup } from "../store.ts";
import type { Connection } from "./connection.ts";
import type { Ledger } from "./ledger.ts";

interface AccountRow {
  account_id: Uint8Array;
  user_name: string;
  created_at: number;
  enabled: number;
  setup_id: number;
  devices: number;
  entries: number;
  last_seen_at: number | null;
}

interface QueueRow {
  device_id: Uint8Array;
  account_id: Uint8Array;
  user_name: string;
  depth: number;
  bytes: number;
  oldest: number | null;
}

interface DeviceRow {
  device_id: Uint8Array;
  account_id: Uint8Array;
  user_name: string;
  name: string;
  signed: number;
  created_at: number;
  last_seen_at: number;
  depth: number;
  bytes: number;
}

type RetireResult = Awaited<ReturnType<AdminStore["retireOpaqueSetup"]>>;

const ACCOUNTS_SQL = `SELECT a.account_id, a.user_name, a.created_at, a.enabled, a.setup_id,
    (SELECT count(*) FROM devices d WHERE d.account = a.id AND d.revoked = 0) AS devices,
    (SELECT ifnull(sum(q.depth), 0) FROM devices d JOIN queues q ON q.device = d.id WHERE d.account = a.id)
      AS entries,
    (SELECT max(d.last_seen_at) FROM devices d WHERE d.account = a.id AND d.revoked = 0) AS last_seen_at
  FROM accounts a WHERE a.user_name > ? AND a.deleted_at IS NULL ORDER BY a.user_name LIMIT ?`;

const QUEUES_SQL = `SELECT d.device_id, a.account_id, a.user_name, q.depth, q.bytes,
    (SELECT p.accepted_at FROM entries e JOIN payloads p ON p.id = e.payload WHERE e.device = q.device
     ORDER BY e.seq LIMIT 1) AS oldest
  FROM (SELECT device, depth, bytes FROM queues WHERE depth > 0 ORDER BY depth DESC LIMIT ?) q
  JOIN devices d ON d.id = q.device JOIN accounts a ON a.id = d.account ORDER BY q.depth DESC`;

const DEVICES_SQL = `SELECT d.device_id, a.account_id, a.user_name, d.name, d.created_at, d.last_seen_at,
    d.account_signature IS NOT NULL AS signed, ifnull(q.depth, 0) AS depth, ifnull(q.bytes, 0) AS bytes
  FROM devices d JOIN accounts a ON a.id = d.account LEFT JOIN queues q ON q.device = d.id
  WHERE d.device_id BETWEEN ? AND ? AND d.revoked = 0 ORDER BY d.device_id LIMIT ?`;

/** What a restore deletes. */
const RESTORED_SQL = ["key_packages", "key_package_lows", "sessions", "guards", "message_ids"]
  .map((table) => `DELETE FROM ${table};`).join(" ");

/** Operators' verbs. Their statements are compiled when they are needed, which is seldom. */
export class Admin {
  readonly #connection: Connection;
  readonly #ledger: Ledger;

  constructor(connection: Connection, ledger: Ledger) {
    this.#connection = connection;
    this.#ledger = ledger;
  }

  listAccounts({ afterName, limit }: { afterName: string; limit: number }): AccountSummary[] {
    return this.#connection.rows<AccountRow>(ACCOUNTS_SQL, [afterName, limit]).map((row) => ({
      accountId: idOf(row.account_id),
      userName: row.user_name,
      createdAt: row.created_at,
      enabled: row.enabled === 1,
      devices: row.devices,
      queueEntries: row.entries,
      lastSeenAt: row.last_seen_at,
      setupId: row.setup_id,
    }));
  }

  accountsBySetup(): { setupId: number; accounts: number }[] {
    const sql = `SELECT s.setup_id, ifnull(c.accounts, 0) AS accounts
      FROM opaque_setups s LEFT JOIN setup_accounts c ON c.setup_id = s.setup_id ORDER BY s.setup_id`;
    return this.#connection.rows<{ setup_id: number; accounts: number }>(sql)
      .map((row) => ({ setupId: row.setup_id, accounts: row.accounts }));
  }

  addOpaqueSetup(setup: Parameters<AdminStore["addOpaqueSetup"]>[0]): OpaqueSetup {
    const { suiteId, secret, createdAt } = setup;
    const setupId = this.#newestSetup() + 1;
    this.#connection.rows(
      "INSERT INTO opaque_setups (setup_id, suite_id, secret, created_at) VALUES (?, ?, ?, ?)",
      [setupId, suiteId, secret, createdAt],
    );
    return { setupId, suiteId, secret, createdAt, retiredAt: null };
  }

  #newestSetup(): number {
    return Number(this.#connection.value("SELECT ifnull(max(setup_id), 0) FROM opaque_setups"));
  }

  retireOpaqueSetup(retire: Parameters<AdminStore["retireOpaqueSetup"]>[0]): RetireResult {
    const { setupId, force, namesMax, now } = retire;
    const known = this.accountsBySetup().find((setup) => setup.setupId === setupId);
    if (!known) return { status: "unknown" };
    if (setupId === this.#newestSetup()) return { status: "newest" };
    const { accounts } = known;
    const names = this.#connection.rows<{ user_name: string }>(
      "SELECT user_name FROM accounts WHERE setup_id = ? ORDER BY user_name LIMIT ?",
      [setupId, namesMax],
    ).map((row) => row.user_name);
    if (accounts > 0 && !force) return { status: "inUse", accounts, names };
    this.#connection.rows(
      "UPDATE opaque_setups SET retired_at = ifnull(retired_at, ?) WHERE setup_id = ?",
      [now, setupId],
    );
    return { status: "retired", lockedOut: accounts, names };
  }

  findDevices({ prefix, limit }: { prefix: string; limit: number }): DeviceSummary[] {
    const bound = (digit: string) => Uint8Array.fromHex(prefix.padEnd(2 * ID_BYTES, digit));
    return this.#connection.rows<DeviceRow>(DEVICES_SQL, [bound("0"), bound("f"), limit]).map((row) => ({
      deviceId: idOf(row.device_id),
      accountId: idOf(row.account_id),
      userName: row.user_name,
      name: row.name,
      signed: row.signed === 1,
      createdAt: row.created_at,
      lastSeenAt: row.last_seen_at,
      entries: row.depth,
      bytes: row.bytes,
    }));
  }

  topQueues(limit: number): QueueSummary[] {
    return this.#connection.rows<QueueRow>(QUEUES_SQL, [limit]).map((row) => ({
      deviceId: idOf(row.device_id),
      accountId: idOf(row.account_id),
      userName: row.user_name,
      entries: row.depth,
      bytes: row.bytes,
      oldestAcceptedAt: row.oldest,
    }));
  }

  listBlobs(
    { after, limit }: { after: BlobHash | null; limit: number },
  ): { hash: BlobHash; bytes: number }[] {
    const sql = `SELECT hash, bytes FROM blobs ${
      after === null ? "" : "WHERE hash > ?"
    } ORDER BY hash LIMIT ?`;
    const params = after === null ? [limit] : [Uint8Array.fromHex(after), limit];
    return this.#connection.rows<{ hash: Uint8Array; bytes: number }>(sql, params)
      .map((row) => ({ hash: hex(row.hash) as BlobHash, bytes: row.bytes }));
  }

  markRestored(): Uint8Array {
    const incarnation = randomBytes(16);
    this.#connection.exec(RESTORED_SQL);
    this.#connection.rows("UPDATE store SET incarnation = ? WHERE id = 1", [incarnation]);
    this.#ledger.totals.change().keyPackages = 0;
    return incarnation;
  }
}

/** The verbs of SessionStore inside the worker, and the dropping of devices; see store.ts for the promises. */
import { equal } from "../../base/bytes.ts";
import { type AccountId, type DeviceId, idOf, type SessionId } from "../../base/ids.ts";
import type { Device, NewSession, ServerNotice, SessionState, SessionStore } from "../store.ts";
import { ENDED_SESSIONS_KEPT } from "../store.ts";
import type { Connection, Prepared } from "./connection.ts";
import type { Ledger } from "./ledger.ts";
import type { Queues } from "./queues.ts";

interface DeviceRow {
  id: number;
  device_id: Uint8Array;
  account: number;
  device_key: Uint8Array;
  name: string;
  account_signature: Uint8Array | null;
  created_at: number;
  last_seen_at: number;
  revoked: number;
}

interface SessionRow {
  account_id: Uint8Array;
  device_id: Uint8Array;
  device_key: Uint8Array;
  created_at: number;
  last_seen_at: number;
  ended: number;
  revoked: number;
  signed: number;
  enabled: number;
}

type SessionResult = Awaited<ReturnType<SessionStore["createSession"]>>;

const DEVICE_COLUMNS =
  "id, device_id, account, device_key, name, account_signature, created_at, last_seen_at, revoked";

/** Devices and sessions. */
export class Devices {
  readonly #ledger: Ledger;
  readonly #queues: Queues;
  readonly #findAccount: Prepared<{ id: number }>;
  readonly #find: Prepared<DeviceRow>;
  readonly #list: Prepared<DeviceRow>;
  readonly #insert: Prepared<never>;
  readonly #insertQueue: Prepared<never>;
  readonly #rename: Prepared<never>;
  readonly #sign: Prepared<never>;
  readonly #revoke: Prepared<never>;
  readonly #idle: Prepared<DeviceRow>;
  readonly #deletes: Prepared<never>[];
  readonly #deletePackages: Prepared<never>;
  readonly #deleteRows: Prepared<never>[];
  readonly #insertSession: Prepared<never>;
  readonly #findSession: Prepared<SessionRow>;
  readonly #touchSession: Prepared<{ device: number }>;
  readonly #touchDevice: Prepared<never>;
  readonly #endSession: Prepared<never>;
  readonly #endOfDevice: Prepared<never>;
  readonly #endedOfDevice: Prepared<{ session_id: Uint8Array; created_at: number }>;
  readonly #forgetSession: Prepared<never>;
  readonly #idleSessions: Prepared<{ session_id: Uint8Array }>;
  readonly #oldSessions: Prepared<{ session_id: Uint8Array }>;

  constructor(connection: Connection, parts: { ledger: Ledger; queues: Queues }) {
    this.#ledger = parts.ledger;
    this.#queues = parts.queues;
    const prepare = <Row = never>(sql: string) => connection.prepare<Row>(sql);
    this.#findAccount = prepare("SELECT id FROM accounts WHERE account_id = ? AND deleted_at IS NULL");
    this.#find = prepare(`SELECT ${DEVICE_COLUMNS} FROM devices WHERE device_id = ?`);
    this.#list = prepare(`SELECT ${DEVICE_COLUMNS} FROM devices WHERE account = ? ORDER BY id`);
    this.#insert = prepare(
      `INSERT INTO devices (device_id, account, device_key, name, created_at, last_seen_at)
       VALUES (?, ?, ifnull(?, x''), ?, ?, ?)`,
    );
    this.#insertQueue = prepare("INSERT INTO queues (device) VALUES (?)");
    this.#rename = prepare("UPDATE devices SET name = ?, last_seen_at = max(last_seen_at, ?) WHERE id = ?");
    this.#sign = prepare("UPDATE devices SET account_signature = ifnull(?, x'') WHERE id = ?");
    this.#revoke = prepare("UPDATE devices SET revoked = 1 WHERE id = ?");
    this.#idle = prepare(
      `SELECT ${DEVICE_COLUMNS} FROM devices WHERE last_seen_at < ? ORDER BY last_seen_at LIMIT ?`,
    );
    this.#deletes = ["queues", "senders", "key_package_lows"].map((table) =>
      prepare(`DELETE FROM ${table} WHERE device = ?`)
    );
    this.#deletePackages = prepare("DELETE FROM key_packages WHERE device = ?");
    this.#deleteRows = [
      prepare("DELETE FROM sessions WHERE session_id IN (SELECT session_id FROM sessions WHERE device = ?)"),
      prepare("DELETE FROM devices WHERE id = ?"),
    ];
    this.#insertSession = prepare(
      "INSERT INTO sessions (session_id, device, created_at, last_seen_at) VALUES (?, ?, ?, ?)",
    );
    this.#findSession = prepare(
      `SELECT a.account_id, d.device_id, d.device_key, s.created_at, s.last_seen_at, s.ended, d.revoked,
       d.account_signature IS NOT NULL AS signed, a.enabled
       FROM sessions s JOIN devices d ON d.id = s.device JOIN accounts a ON a.id = d.account WHERE s.session_id = ?`,
    );
    this.#touchSession = prepare(
      "UPDATE sessions SET last_seen_at = max(last_seen_at, ?) WHERE session_id = ? AND ended = 0 RETURNING device",
    );
    this.#touchDevice = prepare("UPDATE devices SET last_seen_at = max(last_seen_at, ?) WHERE id = ?");
    this.#endSession = prepare("UPDATE sessions SET ended = 1 WHERE session_id = ?");
    this.#endOfDevice = prepare(
      "UPDATE sessions SET ended = 1 WHERE device = ? AND ended = 0 AND session_id IS NOT ?",
    );
    this.#endedOfDevice = prepare(
      "SELECT session_id, created_at FROM sessions WHERE device = ? AND ended = 1",
    );
    this.#forgetSession = prepare("DELETE FROM sessions WHERE session_id = ?");
    this.#idleSessions = prepare(
      "SELECT session_id FROM sessions WHERE ended = 0 AND last_seen_at < ? ORDER BY last_seen_at LIMIT ?",
    );
    this.#oldSessions = prepare(
      "SELECT session_id FROM sessions WHERE ended = 0 AND created_at < ? ORDER BY created_at LIMIT ?",
    );
  }

  createSession(session: NewSession): SessionResult {
    const { now, deviceName } = session;
    const account = this.#findAccount.get(Uint8Array.fromHex(session.accountId))?.id;
    if (account === undefined) return { status: "noAccount" };
    const deviceId = Uint8Array.fromHex(session.deviceId);
    const sessionId = Uint8Array.fromHex(session.sessionId);
    const known = this.#find.get(deviceId);
    if (known) {
      const same = known.account === account && !known.revoked && equal(known.device_key, session.deviceKey);
      if (!same) return { status: "deviceConflict" };
      this.#rename.run(deviceName, now, known.id);
      this.#endOfDevice.run(known.id, null);
      this.#forgetEnded(known.id);
      this.#insertSession.run(sessionId, known.id, now, now);
      return { status: "created", newDevice: false, deviceSigned: known.account_signature !== null };
    }
    const others = this.#active(account);
    if (others.length >= session.devicesMax) return { status: "tooManyDevices" };
    const device = this.#insert.insert(deviceId, account, session.deviceKey, deviceName, now, now);
    this.#insertQueue.run(device);
    this.#insertSession.run(sessionId, device, now, now);
    this.#ledger.totals.change().devices += 1;
    this.#queues.notify(others.map((other) => idOf(other.device_id)), session.deviceAddedNotice, now);
    return { status: "created", newDevice: true, deviceSigned: false };
  }

  /** Few rows, since each new session of the device does this: sorted here, without an index for it. */
  #forgetEnded(device: number): void {
    const newestFirst = this.#endedOfDevice.all(device).sort((a, b) => b.created_at - a.created_at);
    for (const row of newestFirst.slice(ENDED_SESSIONS_KEPT)) this.#forgetSession.run(row.session_id);
  }

  #active(account: number): DeviceRow[] {
    return this.#list.all(account).filter((device) => !device.revoked);
  }

  findSession(sessionId: SessionId): SessionState | null {
    const row = this.#findSession.get(Uint8Array.fromHex(sessionId));
    return row
      ? {
        sessionId,
        accountId: idOf(row.account_id),
        deviceId: idOf(row.device_id),
        deviceKey: row.device_key,
        createdAt: row.created_at,
        lastSeenAt: row.last_seen_at,
        ended: row.ended === 1,
        deviceRevoked: row.revoked === 1,
        deviceSigned: row.signed === 1,
        accountEnabled: row.enabled === 1,
      }
      : null;
  }

  touchSession(sessionId: SessionId, now: number): void {
    const touched = this.#touchSession.get(now, Uint8Array.fromHex(sessionId));
    if (touched) this.#touchDevice.run(now, touched.device);
  }

  endSession(sessionId: SessionId): void {
    this.#endSession.run(Uint8Array.fromHex(sessionId));
  }

  expireSessions(idleBefore: number, createdBefore: number, limit: number): number {
    const idle = this.#idleSessions.all(idleBefore, limit);
    for (const row of idle) this.#endSession.run(row.session_id);
    const old = this.#oldSessions.all(createdBefore, limit - idle.length);
    for (const row of old) this.#endSession.run(row.session_id);
    return idle.length + old.length;
  }

  listDevices(accountId: AccountId): Device[] {
    const account = this.#findAccount.get(Uint8Array.fromHex(accountId))?.id;
    if (account === undefined) return [];
    return this.#active(account).map((row) => ({
      deviceId: idOf(row.device_id),
      accountId,
      deviceKey: row.device_key,
      name: row.name,
      accountSignature: row.account_signature,
      createdAt: row.created_at,
      lastSeenAt: row.last_seen_at,
    }));
  }

  signDevice(accountId: AccountId, deviceId: DeviceId, signature: Uint8Array): boolean {
    const device = this.#own(accountId, deviceId);
    if (device) this.#sign.run(signature, device.id);
    return device !== undefined;
  }

  /** The device if it is the account's and not revoked. */
  #own(accountId: AccountId, deviceId: DeviceId): DeviceRow | undefined {
    const account = this.#findAccount.get(Uint8Array.fromHex(accountId))?.id;
    const device = this.#find.get(Uint8Array.fromHex(deviceId));
    return device && device.account === account && !device.revoked ? device : undefined;
  }

  revokeDevice(accountId: AccountId, deviceId: DeviceId, notice: ServerNotice, now: number): boolean {
    const device = this.#own(accountId, deviceId);
    if (!device) return false;
    this.#drop(device);
    this.#revoke.run(device.id);
    this.#endOfDevice.run(device.id, null);
    this.#queues.notify(this.#active(device.account).map((other) => idOf(other.device_id)), notice, now);
    return true;
  }

  expireDevices(idleBefore: number, limit: number): DeviceId[] {
    return this.#idle.all(idleBefore, limit).map((device) => {
      this.#forget(device);
      return idOf(device.device_id);
    });
  }

  /** Forgets all devices of an account; returns those that were not revoked. */
  forgetAll(account: number): DeviceId[] {
    const devices = this.#list.all(account);
    for (const device of devices) this.#forget(device);
    return devices.filter((device) => !device.revoked).map((device) => idOf(device.device_id));
  }

  /** Ends all sessions of an account but one. */
  endSessionsOf(account: number, keep: SessionId | null): void {
    const kept = keep && Uint8Array.fromHex(keep);
    for (const device of this.#list.all(account)) this.#endOfDevice.run(device.id, kept);
  }

  #forget(device: DeviceRow): void {
    if (!device.revoked) this.#drop(device);
    for (const statement of this.#deleteRows) statement.run(device.id);
  }

  /** Deletes queue and KeyPackages. */
  #drop(device: DeviceRow): void {
    this.#ledger.settle();
    const queue = this.#ledger.queueByKey(device.id);
    if (queue) {
      this.#queues.empty(queue);
      this.#ledger.dropQueue(queue);
    }
    for (const statement of this.#deletes) statement.run(device.id);
    const totals = this.#ledger.totals.change();
    totals.keyPackages -= this.#deletePackages.run(device.id);
    totals.devices -= 1;
  }
}

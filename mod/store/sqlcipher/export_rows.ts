/**
 * The database as rows that every backend understands (store_rows.ts), in pages: one statement for each kind, each
 * page continuing behind the key that the one before ended with.
 */
import { copy } from "../../base/bytes.ts";
import { type AccountId, type DeviceId, ID_BYTES, idOf } from "../../base/ids.ts";
import { EXPORT_BATCH_BYTES, ROW_KINDS, type RowKind, type StoreRow } from "../store_rows.ts";
import type { Connection, Value } from "./connection.ts";
import { readStatuses } from "./message_ids.ts";

/** Where an export goes on: behind this key of this kind. */
export interface ExportPosition {
  readonly kind: RowKind;
  readonly key: readonly Value[] | null;
}

/** Some rows, and where to go on; null at the end. */
export interface ExportPage {
  readonly rows: StoreRow[];
  readonly next: ExportPosition | null;
}

type Row = Record<string, Value>;

interface Source {
  /** What is selected besides the key, and from where. */
  readonly sql: string;
  readonly where?: string;
  readonly pageRows?: number;
  readonly key: readonly string[];
  readonly row: (row: Row) => StoreRow;
}

/** Rows of a page, but for payloads. */
const PAGE_ROWS = 1000;
const PAIR_BYTES = 16;

const number = (value: Value | undefined) => value as number;
const text = (value: Value | undefined) => value as string;
/** A copy of its own: the binding's buffers must not be sent away. */
const bytes = (value: Value | undefined) => copy(value as Uint8Array);
const id = <Id extends string>(value: Value | undefined): Id => idOf<Id>(value as Uint8Array);
const idOrNull = <Id extends string>(value: Value | undefined): Id | null => value ? id<Id>(value) : null;

const SOURCES: Record<Exclude<RowKind, "payload">, Source> = {
  store: {
    sql: "incarnation, realm_id, mark FROM store",
    key: ["id"],
    row: (row) => ({
      kind: "store",
      incarnation: bytes(row.incarnation),
      realmId: text(row.realm_id),
      mark: row.mark as number | null,
    }),
  },
  setup: {
    sql: "suite_id, secret, created_at, retired_at FROM opaque_setups",
    key: ["setup_id"],
    row: (row) => ({
      kind: "setup",
      setupId: number(row.key0),
      suiteId: number(row.suite_id),
      secret: bytes(row.secret),
      createdAt: number(row.created_at),
      retiredAt: row.retired_at as number | null,
    }),
  },
  reservedName: {
    sql: "user_name, account_id FROM accounts",
    where: "deleted_at IS NOT NULL",
    key: ["id"],
    row: (row) => ({ kind: "reservedName", userName: text(row.user_name), accountId: id(row.account_id) }),
  },
  account: {
    sql:
      `account_id, user_name, suite_id, setup_id, record, wrapped_account_key, account_key, created_at, enabled
      FROM accounts`,
    where: "deleted_at IS NULL",
    key: ["id"],
    row: (row) => ({
      kind: "account",
      accountId: id(row.account_id),
      userName: text(row.user_name),
      credential: {
        suiteId: number(row.suite_id),
        setupId: number(row.setup_id),
        record: bytes(row.record),
        wrappedAccountKey: bytes(row.wrapped_account_key),
      },
      accountKey: bytes(row.account_key),
      createdAt: number(row.created_at),
      enabled: row.enabled === 1,
    }),
  },
  block: {
    sql: "a.account_id FROM blocks b JOIN accounts a ON a.id = b.account",
    key: ["b.account", "b.blocked"],
    row: (row) => ({ kind: "block", accountId: id(row.account_id), blocked: id(row.key1) }),
  },
  invitation: {
    sql: `c.account_id AS creator, t.account_id AS target, i.expires_at FROM invitations i
      LEFT JOIN accounts c ON c.id = i.created_by LEFT JOIN accounts t ON t.id = i.for_account`,
    key: ["i.sha256"],
    row: (row) => ({
      kind: "invitation",
      sha256: bytes(row.key0),
      createdBy: idOrNull(row.creator),
      forAccount: idOrNull(row.target),
      expiresAt: number(row.expires_at),
    }),
  },
  device: {
    sql:
      `d.device_id, a.account_id, d.device_key, d.name, d.account_signature, d.created_at, d.last_seen_at, d.revoked
      FROM devices d JOIN accounts a ON a.id = d.account`,
    key: ["d.id"],
    row: (row) => ({
      kind: "device",
      deviceId: id(row.device_id),
      accountId: id(row.account_id),
      deviceKey: bytes(row.device_key),
      name: text(row.name),
      accountSignature: row.account_signature && bytes(row.account_signature),
      createdAt: number(row.created_at),
      lastSeenAt: number(row.last_seen_at),
      revoked: row.revoked === 1,
    } as StoreRow),
  },
  session: {
    sql:
      "d.device_id, s.created_at, s.last_seen_at, s.ended FROM sessions s JOIN devices d ON d.id = s.device",
    key: ["s.session_id"],
    row: (row) => ({
      kind: "session",
      sessionId: id(row.key0),
      deviceId: id(row.device_id),
      createdAt: number(row.created_at),
      lastSeenAt: number(row.last_seen_at),
      ended: row.ended === 1,
    }),
  },
  keyPackageRef: {
    sql: "not_after FROM key_package_refs",
    key: ["ref"],
    row: (row) => ({ kind: "keyPackageRef", ref: bytes(row.key0), notAfter: number(row.not_after) }),
  },
  keyPackage: {
    sql: `d.device_id, k.suite, k.last_resort, k.not_after, k.bytes
      FROM key_packages k JOIN devices d ON d.id = k.device`,
    key: ["k.id"],
    row: (row) => ({
      kind: "keyPackage",
      deviceId: id(row.device_id),
      suite: number(row.suite),
      lastResort: row.last_resort === 1,
      notAfter: number(row.not_after),
      bytes: bytes(row.bytes),
    }),
  },
  lowSupply: {
    sql: "d.device_id FROM key_package_lows l JOIN devices d ON d.id = l.device",
    key: ["l.device", "l.suite"],
    row: (row) => ({ kind: "lowSupply", deviceId: id(row.device_id), suite: number(row.key1) }),
  },
  queue: {
    sql: `d.device_id, q.acked_through, q.next_seq, q.dropped_through, q.dropped_count
      FROM queues q JOIN devices d ON d.id = q.device`,
    key: ["q.device"],
    row: (row) => ({
      kind: "queue",
      deviceId: id(row.device_id),
      ackedThrough: number(row.acked_through),
      nextSeq: number(row.next_seq),
      droppedThrough: number(row.dropped_through),
      droppedCount: number(row.dropped_count),
    }),
  },
  peer: {
    sql: "domain, blocked_at FROM peers",
    key: ["id"],
    row: (row) => ({
      kind: "peer",
      domain: text(row.domain),
      blockedAt: row.blocked_at as number | null,
    }),
  },
  outbox: {
    sql:
      `p.domain, o.sender_account, o.sender_device, o.message_id, o.recipients, o.accepted_at, o.expires_at, o.body
      FROM outbox o JOIN peers p ON p.id = o.peer`,
    key: ["o.id"],
    // A body may be a megabyte.
    pageRows: 16,
    row: (row) => ({
      kind: "outbox",
      domain: text(row.domain),
      senderAccount: id(row.sender_account),
      senderDevice: id(row.sender_device),
      messageId: id(row.message_id),
      recipients: number(row.recipients),
      acceptedAt: number(row.accepted_at),
      expiresAt: number(row.expires_at),
      bytes: bytes(row.body),
    }),
  },
  messageId: {
    sql:
      `a.account_id, p.domain, d.device_id, m.message_id, m.request_sha256, m.accepted_at, m.expires_at, m.statuses
      FROM message_ids m LEFT JOIN accounts a ON a.id = m.account LEFT JOIN peers p ON p.id = -m.account
      LEFT JOIN devices d ON d.id = m.device`,
    where: "(p.id IS NOT NULL OR (a.id IS NOT NULL AND a.deleted_at IS NULL))",
    key: ["m.id"],
    row: (row) => ({
      kind: "messageId",
      senderAccount: idOrNull(row.account_id),
      senderDomain: row.domain as string | null,
      senderDevice: idOrNull(row.device_id),
      messageId: id(row.message_id),
      requestSha256: bytes(row.request_sha256),
      ...readStatuses(row.statuses as Uint8Array),
      acceptedAt: number(row.accepted_at),
      expiresAt: number(row.expires_at),
    }),
  },
  daily: {
    sql: `a.account_id, p.domain, y.day, y.bytes, y.guards FROM daily y
      LEFT JOIN accounts a ON a.id = y.account LEFT JOIN peers p ON p.id = -y.account`,
    where: "(p.id IS NOT NULL OR (a.id IS NOT NULL AND a.deleted_at IS NULL))",
    key: ["y.account"],
    row: (row) => ({
      kind: "daily",
      accountId: idOrNull(row.account_id),
      domain: row.domain as string | null,
      day: number(row.day),
      sentBytes: number(row.bytes),
      guards: number(row.guards),
    }),
  },
  guard: {
    sql: "epoch, token_sha256, used_at FROM guards",
    key: ["group_id"],
    row: (row) => ({
      kind: "guard",
      groupId: id(row.key0),
      epoch: number(row.epoch),
      tokenSha256: bytes(row.token_sha256),
      usedAt: number(row.used_at),
    }),
  },
  blobReference: {
    sql: `a.account_id, b.bytes, r.expires_at FROM blob_refs r JOIN blobs b ON b.hash = r.hash
      JOIN accounts a ON a.id = r.owner`,
    key: ["r.hash", "r.owner"],
    row: (row) => ({
      kind: "blobReference",
      hash: id(row.key0),
      owner: id(row.account_id),
      bytes: number(row.bytes),
      expiresAt: number(row.expires_at),
    }),
  },
};

/** The next rows behind `position`; null: the first ones. */
export function exportPage(connection: Connection, position: ExportPosition | null): ExportPage {
  const { kind, key } = position ?? { kind: ROW_KINDS[0], key: null };
  const { rows, last } = kind === "payload"
    ? payloads(connection, key)
    : page(connection, SOURCES[kind], key);
  if (last) return { rows, next: { kind, key: last } };
  const following = ROW_KINDS[ROW_KINDS.indexOf(kind) + 1];
  return { rows, next: following ? { kind: following, key: null } : null };
}

interface Page {
  readonly rows: StoreRow[];
  /** Key of the last row; null when the kind has no more. */
  readonly last: readonly Value[] | null;
}

function page(connection: Connection, source: Source, key: readonly Value[] | null): Page {
  const keys = source.key.map((column, index) => `${column} AS key${index}`).join(", ");
  const { pageRows = PAGE_ROWS } = source;
  const marks = source.key.map(() => "?").join(", ");
  const behind = key ? `(${source.key.join(", ")}) > (${marks})` : "1";
  const sql = `SELECT ${keys}, ${source.sql} WHERE ${behind} AND ${source.where ?? "1"}
    ORDER BY ${source.key.join(", ")} LIMIT ?`;
  const found = connection.rows<Row>(sql, [...key ?? [], pageRows]);
  const last = found.length < pageRows ? undefined : found.at(-1);
  return {
    rows: found.map(source.row),
    last: last ? source.key.map((_, index) => last[`key${index}`]!) : null,
  };
}

function payloads(connection: Connection, key: readonly Value[] | null): Page {
  const after = key?.[0] ?? 0;
  const sizes = connection.rows<{ id: number; size: number }>(
    "SELECT id, length(bytes) AS size FROM payloads WHERE id > ? ORDER BY id LIMIT ?",
    [after, PAGE_ROWS],
  );
  let [count, size] = [0, 0];
  while (count < sizes.length && size < EXPORT_BATCH_BYTES) size += sizes[count++]!.size;
  const last = sizes[count - 1];
  if (!last) return { rows: [], last: null };
  const found = connection.rows<Row>(
    `SELECT p.id, p.entry_id, p.sender, a.account_id, r.domain, p.sender_device, p.accepted_at, p.expires_at,
     p.recipients, p.bytes FROM payloads p LEFT JOIN accounts a ON a.id = p.sender
     LEFT JOIN peers r ON r.id = -p.sender WHERE p.id > ? AND p.id <= ?
     AND p.id NOT IN (SELECT payload FROM released_payloads) ORDER BY p.id`,
    [after, last.id],
  );
  return { rows: found.map((row) => payloadRow(connection, row)), last: [last.id] };
}

function payloadRow(connection: Connection, row: Row): StoreRow {
  const recipients = row.recipients as Uint8Array;
  const pairs = new DataView(recipients.buffer, recipients.byteOffset, recipients.length);
  const marks: string[] = [];
  const params: number[] = [];
  for (let at = 0; at < recipients.length; at += PAIR_BYTES) {
    marks.push("(?, ?)");
    params.push(pairs.getFloat64(at, true), pairs.getFloat64(at + 8, true));
  }
  const entries = connection.rows<{ device_id: Uint8Array; seq: number }>(
    `SELECT d.device_id, e.seq FROM entries e JOIN devices d ON d.id = e.device
     WHERE (e.device, e.seq) IN (VALUES ${marks.join(", ")})`,
    params,
  );
  return {
    kind: "payload",
    entryKind: row.sender === 0 ? "notice" : "message",
    entryId: id(row.entry_id),
    ...senderOf(row),
    acceptedAt: number(row.accepted_at),
    expiresAt: number(row.expires_at),
    bytes: bytes(row.bytes),
    entries: entries.map(({ device_id, seq }) => ({ deviceId: id(device_id), seq })),
  };
}

/** The ids of a payload's sender: of a peer's both are in sender_device. */
function senderOf(row: Row) {
  const ids = row.sender_device as Uint8Array | null;
  if (row.domain === null) {
    return {
      senderAccount: idOrNull<AccountId>(row.account_id),
      senderDevice: idOrNull<DeviceId>(ids),
      senderDomain: null,
    };
  }
  return {
    senderAccount: id<AccountId>(ids!.subarray(ID_BYTES)),
    senderDevice: id<DeviceId>(ids!.subarray(0, ID_BYTES)),
    senderDomain: text(row.domain),
  };
}

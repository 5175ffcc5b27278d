/**
 * Everything that can be wrong with a database, in words: pages that are not authentic, a broken structure, rows that
 * refer to nothing, and numbers that are not those of a recount. In steps, each of which says how far it is.
 */
import { connect } from "./connect.ts";
import type { Connection } from "./connection.ts";

/** Problems that are named at most, of each kind. */
const NAMED_MAX = 20;

/** Yields the share done; returns the problems. Nobody has the file open. */
export function* checkDatabase({ path, key }: { path: string; key: string }): Generator<number, string[]> {
  const connection = connect(path, key);
  try {
    const pages = key === "" ? [] : connection.rows<Record<string, string>>("PRAGMA cipher_integrity_check");
    yield 0.3;
    const problems = pages.slice(0, NAMED_MAX).map((row) => String(Object.values(row)[0]));
    problems.push(...structureOf(connection));
    yield 0.7;
    // What is broken already would only be said again in other words.
    if (problems.length > 0) return problems;
    for (const [index, { what, sql }] of RULES.entries()) {
      const [row] = connection.rows<{ count: number }>(`SELECT count(*) AS count FROM (${sql})`);
      if (row!.count > 0) problems.push(`${row!.count} ${what}`);
      yield 0.7 + 0.2 * index / RULES.length;
    }
    for (const { counter, sql } of COUNTERS) problems.push(...compare(connection, counter, sql));
    return problems;
  } finally {
    connection.close();
  }
}

function structureOf(connection: Connection): string[] {
  const rows = connection.rows<Record<string, string>>(`PRAGMA integrity_check(${NAMED_MAX})`);
  return rows.map((row) => String(Object.values(row)[0])).filter((text) => text !== "ok");
}

function compare(connection: Connection, counter: string, sql: string): string[] {
  const kept = connection.value(`SELECT ${counter} FROM store WHERE id = 1`);
  const recount = connection.value(sql);
  return kept === recount ? [] : [`the counter ${counter} is ${kept}, a recount gives ${recount}`];
}

const COUNTERS: readonly { counter: string; sql: string }[] = [
  { counter: "accounts", sql: "SELECT count(*) FROM accounts WHERE deleted_at IS NULL" },
  { counter: "devices", sql: "SELECT count(*) FROM devices WHERE revoked = 0" },
  { counter: "queue_entries", sql: "SELECT count(*) FROM entries" },
  { counter: "queue_bytes", sql: "SELECT ifnull(sum(size), 0) FROM entries" },
  { counter: "key_packages", sql: "SELECT count(*) FROM key_packages" },
  { counter: "blobs", sql: "SELECT count(*) FROM blobs" },
  { counter: "outbox_entries", sql: "SELECT count(*) FROM outbox" },
  { counter: "outbox_bytes", sql: "SELECT ifnull(sum(length(body)), 0) FROM outbox" },
  { counter: "blob_bytes", sql: "SELECT ifnull(sum(bytes), 0) FROM blobs" },
];

/** Each selects what breaks a rule. */
const RULES: readonly { what: string; sql: string }[] = [
  {
    what: "devices without an account",
    sql: "SELECT id FROM devices WHERE account NOT IN (SELECT id FROM accounts WHERE deleted_at IS NULL)",
  },
  {
    what: "devices in use without a queue, or revoked ones with one",
    sql: "SELECT id FROM devices WHERE (revoked = 0) <> (id IN (SELECT device FROM queues))",
  },
  {
    what: "queues without a device",
    sql: "SELECT device FROM queues WHERE device NOT IN (SELECT id FROM devices)",
  },
  {
    what: "sessions without a device",
    sql: "SELECT session_id FROM sessions WHERE device NOT IN (SELECT id FROM devices)",
  },
  {
    what: "KeyPackages without a device",
    sql: "SELECT id FROM key_packages WHERE device NOT IN (SELECT id FROM devices WHERE revoked = 0)",
  },
  {
    what: "queues whose counters are not those of their entries",
    sql: `SELECT q.device FROM queues q
      LEFT JOIN (SELECT device, count(*) AS depth, sum(size) AS bytes, max(seq) AS last FROM entries GROUP BY device) e
      ON e.device = q.device
      WHERE q.depth <> ifnull(e.depth, 0) OR q.bytes <> ifnull(e.bytes, 0) OR q.next_seq <= ifnull(e.last, 0)`,
  },
  {
    what: "entries without a queue",
    sql: "SELECT seq FROM entries WHERE device NOT IN (SELECT device FROM queues)",
  },
  {
    what: "shares of a sender that are not those of the entries",
    sql: `SELECT device, sender, count(*) AS depth, sum(size) AS bytes FROM entries WHERE sender <> 0
      GROUP BY device, sender EXCEPT SELECT device, account, depth, bytes FROM senders`,
  },
  {
    what: "shares of a sender without entries",
    sql: "SELECT device, account FROM senders EXCEPT SELECT device, sender FROM entries",
  },
  {
    what: "entries without their payload",
    sql: `SELECT e.seq FROM entries e LEFT JOIN payloads p ON p.id = e.payload
      WHERE p.id IS NULL OR length(p.bytes) <> e.size`,
  },
  {
    what: "payloads whose count of entries is wrong",
    sql: `SELECT p.id FROM payloads p LEFT JOIN payload_refs r ON r.payload = p.id
      LEFT JOIN (SELECT payload, count(*) AS users FROM entries GROUP BY payload) e ON e.payload = p.id
      WHERE ifnull(e.users, 0) <> ifnull(r.refs, p.id NOT IN (SELECT payload FROM released_payloads))`,
  },
  {
    what: "released payloads that are not there or of another size",
    sql: `SELECT r.payload FROM released_payloads r LEFT JOIN payloads p ON p.id = r.payload
      WHERE p.id IS NULL OR length(p.bytes) <> r.bytes`,
  },
  {
    what: "blobs whose count of references is wrong",
    sql: `SELECT b.hash FROM blobs b
      LEFT JOIN (SELECT hash, count(*) AS refs FROM blob_refs GROUP BY hash) r ON r.hash = b.hash
      WHERE b.refs <> ifnull(r.refs, 0)`,
  },
  {
    what: "references to a blob that is not known",
    sql: "SELECT hash FROM blob_refs WHERE hash NOT IN (SELECT hash FROM blobs)",
  },
  {
    what: "owners whose sum of blob bytes is wrong",
    sql: `SELECT r.owner FROM blob_refs r JOIN blobs b ON b.hash = r.hash GROUP BY r.owner
      HAVING sum(b.bytes) <> ifnull((SELECT o.bytes FROM blob_owners o WHERE o.owner = r.owner), 0)`,
  },
  {
    what: "peers whose sums are not those of their outbox",
    sql: `SELECT p.id FROM peers p
      LEFT JOIN (SELECT peer, count(*) AS depth, sum(length(body)) AS bytes FROM outbox GROUP BY peer) o ON o.peer = p.id
      WHERE p.depth <> ifnull(o.depth, 0) OR p.bytes <> ifnull(o.bytes, 0)`,
  },
  {
    what: "messages in an outbox without a peer or of a wrong size",
    sql: "SELECT id FROM outbox WHERE peer NOT IN (SELECT id FROM peers) OR size <> length(body)",
  },
  {
    what: "entries from a peer that is not known",
    sql: "SELECT seq FROM entries WHERE sender < 0 AND -sender NOT IN (SELECT id FROM peers)",
  },
  {
    what: "OPAQUE setups whose count of accounts is wrong",
    sql: `SELECT setup_id, count(*) AS accounts FROM accounts WHERE setup_id IS NOT NULL GROUP BY setup_id
      EXCEPT SELECT setup_id, accounts FROM setup_accounts`,
  },
];

/**
 * The limit that the disk sets: the rows of messages written, or read and deleted, by nothing but prepared statements
 * in transactions of a given size, in a database as the server has it (schema, encryption, WAL, synchronous=FULL).
 * No network, no worker, no rules, no look-ups. Prints one JSON line:
 *
 *   deno run … tests/bench/group_commit.ts enqueue|fanout|drain --batch N [--seconds S] [--recipients N] [--payload N]
 */
import { parseArgs } from "node:util";
import { randomBytes } from "../../mod/base/bytes.ts";
import type { Connection } from "../../mod/store/sqlcipher/connection.ts";
import { openDatabase } from "../../mod/store/sqlcipher/open_database.ts";

const QUEUES = 16;
const PAGE = 1000;
const SENDER = 1;
const EXPIRES_MS = 30 * 24 * 3_600_000;

/** What is measured. */
interface Shape {
  /** Messages, or pages of 1,000 entries, of a transaction. */
  readonly batch: number;
  readonly seconds: number;
  readonly recipients: number;
  readonly payloadBytes: number;
}

/** Writes the rows of messages. */
class Rows {
  readonly #payload;
  readonly #entry;
  readonly #refs;
  readonly #id;
  readonly #queue;
  readonly #senderDevice = randomBytes(16);
  readonly #sha256 = randomBytes(32);
  readonly #next = new Array<number>(QUEUES + 1024).fill(1);
  #sent = 0;

  constructor(readonly connection: Connection, readonly shape: Shape) {
    this.#payload = connection.prepare(
      `INSERT INTO payloads (entry_id, sender, sender_device, accepted_at, expires_at, recipients, bytes)
       VALUES (?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#entry = connection.prepare(
      "INSERT INTO entries (device, seq, payload, size, expires_at, sender, shared) VALUES (?, ?, ?, ?, ?, ?, ?)",
    );
    this.#refs = connection.prepare("INSERT INTO payload_refs (payload, refs) VALUES (?, ?)");
    this.#id = connection.prepare(
      `INSERT INTO message_ids (account, device, number, message_id, request_sha256, accepted_at, expires_at, statuses)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#queue = connection.prepare("REPLACE INTO queues (device, next_seq) VALUES (?, ?)");
  }

  /** One transaction; each message goes to so many queues, in turn. */
  write(messages: number): void {
    const { recipients, payloadBytes } = this.shape;
    const payload = randomBytes(payloadBytes);
    const statuses = new Uint8Array(recipients);
    const now = Date.now();
    const expires = now + EXPIRES_MS;
    const queues = Math.max(QUEUES, recipients);
    const touched = new Set<number>();
    this.connection.begin();
    for (let message = 0; message < messages; message++) {
      const pairs = new Uint8Array(16 * recipients);
      const row = this.#payload.insert(
        randomBytes(16),
        SENDER,
        this.#senderDevice,
        now,
        expires,
        pairs,
        payload,
      );
      if (recipients > 1) this.#refs.run(row, recipients);
      for (let index = 0; index < recipients; index++) {
        const device = (this.#sent + index) % queues;
        touched.add(device);
        const shared = recipients > 1 ? 1 : 0;
        this.#entry.run(device, this.#next[device]!++, row, payloadBytes, expires, SENDER, shared);
      }
      const id = randomBytes(16);
      new DataView(id.buffer).setBigUint64(0, BigInt(now) << 16n | BigInt(this.#sent & 0xffff));
      this.#id.run(SENDER, SENDER, ++this.#sent, id, this.#sha256, now, expires, statuses);
    }
    for (const device of touched) this.#queue.run(device, this.#next[device]!);
    this.connection.commit();
  }
}

/**
 * Reads pages and deletes their entries, some pages in one transaction, until nothing is left; then the payloads in
 * their own order, which is the cheapest. Returns how many entries there were.
 */
function drain(connection: Connection, { batch }: Shape): number {
  const list = connection.prepare<{ seq: number; payload: number; bytes: Uint8Array }>(
    `SELECT e.seq, e.payload, p.entry_id, p.sender_device, p.accepted_at, p.expires_at, p.bytes
     FROM entries e JOIN payloads p ON p.id = e.payload WHERE e.device = ? AND e.seq > ? ORDER BY e.seq LIMIT ?`,
  );
  const deleteEntries = connection.prepare("DELETE FROM entries WHERE device = ? AND seq <= ?");
  const deletePayloads = connection.prepare("DELETE FROM payloads WHERE id <= ?");
  let drained = 0;
  let left = Array.from({ length: QUEUES }, (_, device) => device);
  while (left.length > 0) {
    connection.begin();
    for (const device of left.slice(0, batch)) {
      const rows = list.all(device, 0, PAGE);
      if (rows.length < PAGE) left = left.filter((other) => other !== device);
      if (rows.length === 0) continue;
      deleteEntries.run(device, rows.at(-1)!.seq);
      drained += rows.length;
    }
    left = [...left.slice(batch), ...left.slice(0, batch)];
    connection.commit();
  }
  for (let id = 0; id < drained; id += batch * PAGE) {
    connection.begin();
    deletePayloads.run(id + batch * PAGE);
    connection.commit();
  }
  return drained;
}

function measure(kind: string, shape: Shape, connection: Connection): number {
  const rows = new Rows(connection, shape);
  if (kind === "drain") {
    const messages = Math.ceil(shape.seconds * 40_000);
    for (let written = 0; written < messages; written += PAGE) rows.write(PAGE);
    const begin = performance.now();
    const drained = drain(connection, shape);
    return drained / (performance.now() - begin) * 1000;
  }
  rows.write(shape.batch); // compiled statements and warm pages first
  const begin = performance.now();
  let messages = 0;
  while (performance.now() - begin < shape.seconds * 1000) {
    rows.write(shape.batch);
    messages += shape.batch;
  }
  return messages / (performance.now() - begin) * 1000;
}

if (import.meta.main) {
  const { values, positionals: [kind] } = parseArgs({
    allowPositionals: true,
    options: {
      batch: { type: "string", default: "256" },
      seconds: { type: "string", default: "2" },
      recipients: { type: "string", default: "1" },
      payload: { type: "string", default: "512" },
    },
  });
  const shape = {
    batch: Number(values.batch),
    seconds: Number(values.seconds),
    recipients: Number(values.recipients),
    payloadBytes: Number(values.payload),
  };
  const dataDir = await Deno.makeTempDir({ prefix: "qpq-group-commit-" });
  try {
    const { connection } = openDatabase({ dataDir, keys: ["ab".repeat(32)] });
    const perSecond = measure(kind!, shape, connection);
    connection.close();
    console.log(JSON.stringify({ perSecond }));
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
}

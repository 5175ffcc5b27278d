/**
 * Writes a database anew under another key, table by table, and checks what was written. In steps of moderate size,
 * each of which says how far it is: between two of them the work can be ended.
 */
import { connect, keyLiteral } from "./connect.ts";
import type { Connection } from "./connection.ts";
import { PAGE_BYTES } from "./page_key.ts";

/** What to write anew. */
export interface Reencryption {
  readonly source: string;
  readonly sourceKey: string;
  /** Does not exist. */
  readonly draft: string;
  readonly draftKey: string;
}

/** Payloads are copied in ranges of about so many bytes. */
const STEP_BYTES = 16 * 1024 * 1024;

/** Share of the whole after each phase. */
const COPIED = 0.6;
const AUTHENTICATED = 0.75;

/** The new database does not hold what the old one does. */
export class ReencryptionError extends Error {
  override name = "ReencryptionError";
}

/** Yields the share done; the draft is complete and checked, but not synced, at the end. */
export function* reencrypt(work: Reencryption): Generator<number> {
  Deno.openSync(work.draft, { write: true, createNew: true, mode: 0o600 }).close();
  const connection = connect(work.draft, work.draftKey, "NORMAL");
  try {
    connection.exec("PRAGMA page_size = 4096; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF");
    connection.exec("PRAGMA temp_store = MEMORY; PRAGMA cache_size = -65536");
    const path = work.source.replaceAll("'", "''");
    connection.exec(`ATTACH '${path}' AS source KEY ${keyLiteral(work.sourceKey)}`);
    for (const share of copyAll(connection)) yield share * COPIED;
  } finally {
    connection.close();
  }
  yield* verify(work);
}

function* copyAll(connection: Connection): Generator<number> {
  for (const pragma of ["application_id", "user_version"]) {
    connection.exec(`PRAGMA main.${pragma} = ${connection.value(`PRAGMA source.${pragma}`)}`);
  }
  const tables = schemaOf(connection, "type = 'table'");
  for (const { sql } of tables) connection.exec(sql);
  const others = tables.filter(({ name }) => name !== "payloads");
  for (const { name } of others) connection.exec(`INSERT INTO main.${name} SELECT * FROM source.${name}`);
  connection.exec("DELETE FROM main.sqlite_sequence");
  connection.exec("INSERT INTO main.sqlite_sequence SELECT * FROM source.sqlite_sequence");
  yield 0.1;
  for (const share of copyPayloads(connection)) yield 0.1 + 0.8 * share;
  // After the data: an index is then written in order, and no trigger counts again what is copied.
  for (const { sql } of schemaOf(connection, "type <> 'table'")) {
    connection.exec(sql);
    yield 0.95;
  }
}

function schemaOf(connection: Connection, where: string): { name: string; sql: string }[] {
  return connection.rows(
    `SELECT name, sql FROM source.sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' AND ${where}
     ORDER BY rowid`,
  );
}

/** Nearly all bytes are in this table. */
function* copyPayloads(connection: Connection): Generator<number> {
  const [bounds] = connection.rows<{ first: number | null; last: number | null }>(
    "SELECT min(id) AS first, max(id) AS last FROM source.payloads",
  );
  const { first, last } = bounds!;
  if (first === null || last === null) return;
  const bytes = Number(connection.value("PRAGMA source.page_count")) * PAGE_BYTES;
  const span = Math.max(1, Math.ceil((last - first + 1) * Math.min(1, STEP_BYTES / (bytes + 1))));
  for (let id = first; id <= last; id += span) {
    const range = `id >= ${id} AND id < ${id + span}`;
    connection.exec(`INSERT INTO main.payloads SELECT * FROM source.payloads WHERE ${range}`);
    yield (id - first) / (last - first + 1);
  }
}

/** Opens the draft anew, authenticates every page, checks its structure and counts every table. */
function* verify({ source, sourceKey, draft, draftKey }: Reencryption): Generator<number> {
  const connection = connect(draft, draftKey, "NORMAL");
  try {
    yield COPIED;
    const wrong = draftKey === "" ? [] : connection.rows("PRAGMA cipher_integrity_check");
    if (wrong.length > 0) throw new ReencryptionError(`The new file does not read back: ${draft}`);
    yield AUTHENTICATED;
    const structure = connection.value("PRAGMA integrity_check(1)");
    if (structure !== "ok") throw new ReencryptionError(`The new file is not sound: ${structure}`);
    yield 0.95;
    connection.exec(`ATTACH '${source.replaceAll("'", "''")}' AS source KEY ${keyLiteral(sourceKey)}`);
    for (const { name } of schemaOf(connection, "type = 'table'")) {
      const count = (schema: string) => connection.value(`SELECT count(*) FROM ${schema}.${name}`);
      const [before, after] = [count("source"), count("main")];
      if (before === after) continue;
      throw new ReencryptionError(`The new file has ${after} ${name}, the old one ${before}`);
    }
    yield 1;
  } finally {
    connection.close();
  }
}

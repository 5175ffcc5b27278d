/** The schema that the migrations make, against the committed one; and how queries use it. */
import assert from "node:assert/strict";
import { Connection } from "../../../../mod/store/sqlcipher/connection.ts";
import { MIGRATIONS } from "../../../../mod/store/sqlcipher/schema.ts";
import { prepareVerbs } from "../../../../mod/store/sqlcipher/verbs.ts";

const FIXTURE = new URL("../../../fixtures/schema/sqlcipher.sql", import.meta.url);

/** An empty database in memory with the schema. */
function migrated(): Connection & Disposable {
  const connection = new Connection(":memory:");
  for (const migration of MIGRATIONS) connection.exec(migration);
  return Object.assign(connection, { [Symbol.dispose]: () => connection.close() });
}

Deno.test("the migrations make the committed schema (UPDATE_FIXTURES=1 writes it)", async () => {
  using connection = migrated();
  const rows = connection.prepare<{ sql: string }>(
    "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type DESC, name",
  ).all();
  const schema = `-- user_version ${MIGRATIONS.length}\n\n${rows.map((row) => `${row.sql};\n`).join("\n")}`;
  if (Deno.env.get("UPDATE_FIXTURES") === "1") await Deno.writeTextFile(FIXTURE, schema);
  assert.equal(schema, await Deno.readTextFile(FIXTURE));
});

Deno.test("no statement scans a table or sorts rows on its own", () => {
  using connection = migrated();
  prepareVerbs(connection);
  const statements = [...connection.preparedSql];
  assert.ok(statements.length > 80);
  for (const sql of statements) {
    const parameters = Array<null>((sql.match(/\?/g) ?? []).length).fill(null);
    const plan = connection.prepare<{ detail: string }>(`EXPLAIN QUERY PLAN ${sql}`).all(...parameters);
    // What a search has found may be gone through again, and grouped: it is as bounded as the search.
    const scansOrSorts = /^SCAN (?!\(subquery)|TEMP B-TREE FOR (?!GROUP BY)/;
    for (const { detail } of plan) assert.doesNotMatch(detail, scansOrSorts, `${sql}\n${detail}`);
  }
});

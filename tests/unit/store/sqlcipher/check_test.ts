/** checkDatabase(): numbers and references that are wrong are found, each in words. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { openSqlcipherStore } from "../../../../mod/store/sqlcipher/mod.ts";
import { connect } from "../../../../mod/store/sqlcipher/connect.ts";
import { fillFixture, FIXTURE_KEY } from "../../../support/make_store_fixture.ts";
import { tempFolder } from "../../../support/temp_folder.ts";

const WRONGS: readonly { sql: string; says: RegExp }[] = [
  { sql: "UPDATE store SET accounts = 7", says: /counter accounts is 7, a recount gives 2/ },
  { sql: "UPDATE store SET queue_bytes = queue_bytes + 1", says: /counter queue_bytes/ },
  { sql: "UPDATE queues SET depth = depth + 1", says: /3 queues whose counters/ },
  { sql: "UPDATE senders SET bytes = bytes + 1", says: /shares of a sender that/ },
  { sql: "INSERT INTO senders VALUES (1, 99, 1, 1)", says: /1 shares of a sender without entries/ },
  {
    sql: "DELETE FROM payloads WHERE id = (SELECT payload FROM entries WHERE shared = 0)",
    says: /1 entries without their payload/,
  },
  { sql: "UPDATE payload_refs SET refs = refs + 1", says: /payloads whose count of entries/ },
  { sql: "DELETE FROM released_payloads", says: /1 payloads whose count of entries/ },
  { sql: "UPDATE released_payloads SET bytes = 9999", says: /1 released payloads that are not there or/ },
  { sql: "UPDATE blobs SET refs = 1", says: /1 blobs whose count/ },
  { sql: "UPDATE blob_owners SET bytes = 1", says: /2 owners whose sum/ },
  { sql: "DELETE FROM blobs", says: /references to a blob/ },
  { sql: "UPDATE setup_accounts SET accounts = 9", says: /1 OPAQUE setups/ },
  { sql: "DELETE FROM accounts WHERE user_name = 'bob'", says: /1 devices without an account/ },
  { sql: "UPDATE devices SET revoked = 1", says: /devices in use without a queue/ },
  { sql: "DELETE FROM devices", says: /sessions without a device/ },
];

Deno.test("checkIntegrity() names every counter and reference that is wrong", async () => {
  await using folder = await tempFolder();
  const path = join(folder.path, "qpq.db");
  const store = await openSqlcipherStore({ dataDir: folder.path, keys: [FIXTURE_KEY] });
  await fillFixture(store);
  await store.close();
  const sound = await Deno.readFile(path);
  for (const { sql, says } of WRONGS) {
    await Deno.writeFile(path, sound);
    const connection = connect(path, FIXTURE_KEY);
    connection.exec(sql);
    connection.close();
    await using damaged = await openSqlcipherStore({ dataDir: folder.path, keys: [FIXTURE_KEY] });
    assert.match((await damaged.checkIntegrity(() => {})).join("\n"), says, sql);
  }
});

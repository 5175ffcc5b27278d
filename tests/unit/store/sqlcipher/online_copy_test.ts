/** OnlineCopy: the copy is the database of the moment when it began, whatever is written and checkpointed meanwhile. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { randomBytes } from "../../../../mod/base/bytes.ts";
import { configure, connect } from "../../../../mod/store/sqlcipher/connect.ts";
import type { Connection } from "../../../../mod/store/sqlcipher/connection.ts";
import { OnlineCopy } from "../../../../mod/store/sqlcipher/online_copy.ts";
import { prng } from "../../../support/prng.ts";
import { tempFolder } from "../../../support/temp_folder.ts";

const KEY = "c0".repeat(32);
const ROWS = 3000;

/** A database of about 6 MB, all of it in the main file. */
function makeDatabase(path: string): Connection {
  const connection = connect(path, KEY);
  configure(connection);
  connection.exec(
    "PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (id INTEGER PRIMARY KEY, version INTEGER, b BLOB)",
  );
  connection.begin();
  const insert = connection.prepare("INSERT INTO t (version, b) VALUES (0, ?)");
  for (let row = 0; row < ROWS; row++) insert.run(randomBytes(1800));
  connection.commit();
  connection.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  return connection;
}

function sumsOf(connection: Connection): unknown {
  return connection.rows("SELECT count(*) AS rows, max(version) AS newest, sum(length(b)) AS bytes FROM t");
}

Deno.test("a copy holds the moment it began, through writes and checkpoints between its chunks", async () => {
  await using folder = await tempFolder();
  const [path, target] = [join(folder.path, "a.db"), join(folder.path, "b.db")];
  const connection = makeDatabase(path);
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  const random = prng(seed);
  const before = sumsOf(connection);
  using source = Deno.openSync(path);
  const copy = new OnlineCopy(source, target);
  const shares: number[] = [];
  let walPages = 0;
  connection.onCommit((pages) => walPages = pages);
  const update = connection.prepare("UPDATE t SET version = ?, b = ? WHERE id = ?");
  const insert = connection.prepare("INSERT INTO t (version, b) VALUES (?, ?)");
  await copy.run((share) => {
    shares.push(share);
    connection.begin();
    for (let row = 0; row < 60; row++) {
      update.run(shares.length, randomBytes(1000 + Math.floor(random() * 3000)), Math.ceil(random() * ROWS));
      insert.run(shares.length, randomBytes(500));
    }
    connection.exec("DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY random() LIMIT 20)");
    connection.commit();
    copy.beforeCheckpoint(`${path}-wal`, walPages);
    connection.exec("PRAGMA wal_checkpoint(PASSIVE)");
  });
  assert.ok(shares.length > 5, "the copy was made in several chunks");
  assert.notDeepEqual(sumsOf(connection), before);
  connection.close();
  const copied = connect(target, KEY);
  assert.deepEqual(copied.rows("PRAGMA cipher_integrity_check"), [], `seed ${seed}`);
  assert.equal(copied.value("PRAGMA integrity_check"), "ok", `seed ${seed}`);
  assert.deepEqual(sumsOf(copied), before, `seed ${seed}`);
  copied.close();
});

Deno.test("without beforeCheckpoint() the copy would be torn: the test above can fail", async () => {
  await using folder = await tempFolder();
  const [path, target] = [join(folder.path, "a.db"), join(folder.path, "b.db")];
  const connection = makeDatabase(path);
  using source = Deno.openSync(path);
  const update = connection.prepare("UPDATE t SET version = 1 WHERE id % 10 = 0");
  await new OnlineCopy(source, target).run(() => {
    update.run();
    connection.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  });
  connection.close();
  const copied = connect(target, KEY);
  const [{ newest }] = copied.rows<{ newest: number }>("SELECT max(version) AS newest FROM t") as [
    { newest: number },
  ];
  assert.equal(newest, 1);
  copied.close();
});

Deno.test("fail() ends a copy with its reason", async () => {
  await using folder = await tempFolder();
  const [path, target] = [join(folder.path, "a.db"), join(folder.path, "b.db")];
  const connection = makeDatabase(path);
  using source = Deno.openSync(path);
  const copy = new OnlineCopy(source, target);
  await assert.rejects(
    copy.run(() => copy.fail(new Error("the connection was lost"))),
    /connection was lost/,
  );
  connection.close();
});

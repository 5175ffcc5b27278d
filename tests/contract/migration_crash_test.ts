/** kill -9 at random moments while a store of the first version is brought to this one: nothing of it is lost. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { openStore } from "../../mod/store/open.ts";
import { connect } from "../../mod/store/sqlcipher/connect.ts";
import { SCHEMA_VERSION } from "../../mod/store/sqlcipher/schema.ts";
import { copyFolder } from "../support/copy_folder.ts";
import { contentOf, FIXTURE_KEY, fixtureFolder } from "../support/make_store_fixture.ts";
import { prng } from "../support/prng.ts";
import { type TempFolder, tempFolder } from "../support/temp_folder.ts";

const ROUNDS = 6;
/** So that migrating takes a while: as many accounts with a record. */
const ACCOUNTS = 10_000;

/** A large store of the first version. */
async function oldStore(): Promise<TempFolder> {
  const folder = await tempFolder();
  await copyFolder(fixtureFolder("sqlcipher", 1), folder.path);
  const connection = connect(join(folder.path, "qpq.db"), FIXTURE_KEY);
  connection.exec(
    `WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ${ACCOUNTS})
    INSERT INTO accounts (account_id, user_name, enabled, setup_id, suite_id, record, account_key,
      wrapped_account_key, created_at)
    SELECT CAST(printf('%016d', n) AS BLOB), 'more-' || n, 1, setup_id, suite_id, record, account_key,
      wrapped_account_key, created_at FROM accounts JOIN numbers WHERE user_name = 'alice';
    UPDATE store SET accounts = accounts + ${ACCOUNTS};`,
  );
  connection.close();
  return folder;
}

/** Migrates in a process of its own; returns how many turns it took, or null when it was killed in that turn. */
async function migrate(dataDir: string, turn: number): Promise<number | null> {
  const script = import.meta.resolve("../support/migrate_process.ts");
  const flags = ["run", "-A", "--quiet", "--frozen", "--no-check", "--cached-only"];
  const args = [...flags, script, dataDir, FIXTURE_KEY, `${turn}`];
  const { success, signal, stdout } = await new Deno.Command(Deno.execPath(), { args, stderr: "inherit" })
    .output();
  assert.ok(success || signal === "SIGKILL");
  return success ? Number(new TextDecoder().decode(stdout)) : null;
}

function versionOf(dataDir: string): number {
  const connection = connect(join(dataDir, "qpq.db"), FIXTURE_KEY);
  try {
    return Number(connection.value("PRAGMA user_version"));
  } finally {
    connection.close();
  }
}

Deno.test(
  "a schema migration that is killed at any moment has happened or not, and is made by the next start",
  {
    ignore: Deno.build.os === "windows",
  },
  async () => {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
    const random = prng(seed);
    await using old = await oldStore();
    const migrated = async () => {
      const copy = await tempFolder();
      await copyFolder(old.path, copy.path);
      return copy;
    };
    await using whole = await migrated();
    const turns = await migrate(whole.path, 0);
    assert.ok(turns);
    const open = (dataDir: string) =>
      openStore({ backend: "sqlcipher", dataDir, keys: [FIXTURE_KEY], mustExist: true });
    await using expected = await open(whole.path);
    const content = await contentOf(expected);
    let killed = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const told = `seed ${seed}, round ${round}`;
      await using copy = await migrated();
      // Most of the first half goes by until the worker is there.
      if (await migrate(copy.path, Math.ceil(turns * (0.3 + 0.7 * random()))) === null) killed++;
      await using look = await tempFolder();
      await copyFolder(copy.path, look.path);
      assert.ok([1, SCHEMA_VERSION].includes(versionOf(look.path)), told);
      await using store = await open(copy.path);
      assert.equal(await contentOf(store), content, told);
      assert.deepEqual(await store.checkIntegrity(() => {}), [], told);
    }
    assert.ok(killed > 0, `nothing was killed: seed ${seed}`);
  },
);

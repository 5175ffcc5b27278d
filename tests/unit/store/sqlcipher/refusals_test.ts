/** Opening a database that cannot be opened: which problem, what the message says, and that nothing is changed. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import Database from "@signalapp/sqlcipher";
import { openSqlcipherStore } from "../../../../mod/store/sqlcipher/mod.ts";
import { type OpenOptions, StoreOpenError, type StoreOpenProblem } from "../../../../mod/store/store.ts";
import { World } from "../../../contract/store/world.ts";
import { type TempFolder, tempFolder } from "../../../support/temp_folder.ts";
import { canMount, mountTmpfs } from "../../../support/tmpfs.ts";

const KEY = "0123456789abcdef".repeat(4);
const OTHER_KEY = "fedcba9876543210".repeat(4);
const PAGE_BYTES = 4096;

/** A folder with a closed store that has an account in it. */
async function storeFolder(key = KEY): Promise<TempFolder> {
  const folder = await tempFolder();
  await fill(folder.path, key);
  return folder;
}

async function fill(dataDir: string, key = KEY): Promise<void> {
  await using store = await openSqlcipherStore({ dataDir, keys: [key] });
  await store.writeMark(7);
}

/** Every file of a folder with a digest of its bytes. */
function contents(dataDir: string): Record<string, string> {
  const files = [...Deno.readDirSync(dataDir)].filter((entry) => entry.isFile).map((entry) => entry.name)
    .sort();
  return Object.fromEntries(
    files.map((
      name,
    ) => [name, createHash("sha256").update(Deno.readFileSync(join(dataDir, name))).digest("hex")]),
  );
}

/** Opening fails for this reason, says so, names the file, holds no key, and leaves everything as it was. */
async function assertRefused(
  options: Omit<OpenOptions, "keys"> & { keys?: string[] },
  expected: { problem: StoreOpenProblem; says: RegExp },
): Promise<void> {
  const keys = options.keys ?? [KEY];
  const before = contents(options.dataDir);
  await assert.rejects(openSqlcipherStore({ ...options, keys }), (error) => {
    assert.ok(error instanceof StoreOpenError);
    assert.equal(error.problem, expected.problem, error.message);
    assert.match(error.message, expected.says);
    assert.ok(error.path.startsWith(options.dataDir));
    assert.ok(error.message.includes(options.dataDir));
    for (const key of keys) assert.ok(key === "" || !error.message.includes(key));
    return true;
  });
  assert.deepEqual(contents(options.dataDir), before);
}

function overwrite(path: string, at: number, length: number): void {
  const file = Deno.openSync(path, { read: true, write: true });
  file.seekSync(at, Deno.SeekMode.Start);
  file.writeSync(new Uint8Array(length).fill(0xa5));
  file.close();
}

/** Changes the closed database by SQL. */
function change(dataDir: string, sql: string): void {
  const database = new Database(join(dataDir, "qpq.db"));
  database.exec(`PRAGMA key = "x'${KEY}'"; ${sql}`);
  database.close();
}

Deno.test("openSqlcipherStore() refuses a wrong raw key, naming both possibilities", async () => {
  await using folder = await storeFolder();
  await assertRefused({ dataDir: folder.path, keys: [OTHER_KEY] }, {
    problem: "wrongKey",
    says: /key is wrong.*or the file is damaged.*backup/s,
  });
});

Deno.test("openSqlcipherStore() refuses a wrong passphrase and an empty key", async () => {
  await using folder = await storeFolder("it's a passphrase");
  const { path: dataDir } = folder;
  await assertRefused({ dataDir, keys: ["it's another"] }, { problem: "wrongKey", says: /key is wrong/ });
  await assertRefused({ dataDir, keys: [""] }, { problem: "wrongKey", says: /key is wrong/ });
  await using store = await openSqlcipherStore({ dataDir, keys: ["it's a passphrase"] });
  assert.equal(await store.writeMark(8), 7);
});

Deno.test("openSqlcipherStore() refuses a key for an unencrypted store", async () => {
  await using folder = await storeFolder("");
  await assertRefused({ dataDir: folder.path }, { problem: "wrongKey", says: /not encrypted/ });
  await using store = await openSqlcipherStore({ dataDir: folder.path, keys: [KEY, ""] });
  assert.equal(await store.writeMark(8), 7);
});

Deno.test("openSqlcipherStore() takes the first key that fits, and stays under it", async () => {
  await using folder = await storeFolder();
  const { path: dataDir } = folder;
  await (await openSqlcipherStore({ dataDir, keys: [OTHER_KEY, KEY] })).close();
  await assertRefused({ dataDir, keys: [OTHER_KEY] }, { problem: "wrongKey", says: /key is wrong/ });
  await using store = await openSqlcipherStore({ dataDir, keys: [KEY] });
  assert.equal(await store.writeMark(8), 7);
});

for (const key of [KEY, "a passphrase"]) {
  Deno.test(`a damaged first page is told from a wrong key (${key === KEY ? "raw" : "passphrase"})`, async () => {
    await using folder = await storeFolder(key);
    overwrite(join(folder.path, "qpq.db"), 1000, 100);
    await assertRefused({ dataDir: folder.path, keys: [OTHER_KEY, key] }, {
      problem: "damaged",
      says: /first page is damaged; the DB key is right.*backup/s,
    });
  });
}

Deno.test("openSqlcipherStore() refuses a truncated database", async () => {
  await using folder = await storeFolder();
  const path = join(folder.path, "qpq.db");
  const { size } = Deno.statSync(path);
  Deno.truncateSync(path, size - 3 * PAGE_BYTES);
  await assertRefused({ dataDir: folder.path }, { problem: "damaged", says: /damaged.*backup/s });
  Deno.truncateSync(path, size - 3 * PAGE_BYTES - 100);
  await assertRefused({ dataDir: folder.path }, { problem: "damaged", says: /not a multiple of 4096/ });
  Deno.truncateSync(path, 0);
  await assertRefused({ dataDir: folder.path }, { problem: "damaged", says: /size of 0 bytes/ });
});

Deno.test("openSqlcipherStore() refuses a database whose schema pages are damaged", async () => {
  await using folder = await storeFolder();
  const path = join(folder.path, "qpq.db");
  overwrite(path, PAGE_BYTES + 50, Deno.statSync(path).size - 2 * PAGE_BYTES);
  await assertRefused({ dataDir: folder.path }, { problem: "damaged", says: /damaged.*backup/s });
});

Deno.test("openSqlcipherStore() refuses a newer schema and another program's database", async () => {
  await using folder = await storeFolder();
  change(folder.path, "PRAGMA user_version = 999");
  await assertRefused({ dataDir: folder.path }, {
    problem: "newerSchema",
    says: /schema 999.*run that version/s,
  });
  change(folder.path, "PRAGMA application_id = 1");
  await assertRefused({ dataDir: folder.path }, { problem: "failed", says: /another program's database/ });
});

Deno.test("openSqlcipherStore() with mustExist makes nothing", async () => {
  await using folder = await tempFolder();
  await assertRefused({ dataDir: folder.path, mustExist: true }, { problem: "failed", says: /no such file/ });
});

Deno.test("openSqlcipherStore() makes no new database beside an older one's WAL", async () => {
  await using folder = await tempFolder();
  Deno.writeFileSync(join(folder.path, "qpq.db-wal"), new Uint8Array(100));
  await assertRefused({ dataDir: folder.path }, {
    problem: "damaged",
    says: /qpq\.db-wal of an older store/,
  });
});

Deno.test("openSqlcipherStore() starts over where making a store was cut short", async () => {
  await using folder = await tempFolder();
  Deno.writeFileSync(join(folder.path, "qpq.db.new"), new Uint8Array(5000));
  Deno.writeFileSync(join(folder.path, "qpq.db.new-wal"), new Uint8Array(5000));
  await fill(folder.path);
  assert.deepEqual(Object.keys(contents(folder.path)), ["qpq.db"]);
});

Deno.test("the database can be read by its owner only", { ignore: Deno.build.os === "windows" }, async () => {
  await using folder = await storeFolder();
  assert.equal(Deno.statSync(join(folder.path, "qpq.db")).mode! & 0o777, 0o600);
});

Deno.test("openSqlcipherStore() refuses a second connection in the same process", async () => {
  await using folder = await storeFolder();
  await using _store = await openSqlcipherStore({ dataDir: folder.path, keys: [KEY] });
  await assert.rejects(
    openSqlcipherStore({ dataDir: folder.path, keys: [KEY] }),
    (error) =>
      error instanceof StoreOpenError && error.problem === "inUse" && /stop that first/.test(error.message),
  );
});

const withMounts = { ignore: !await canMount() };
Deno.test("openSqlcipherStore() refuses a store on a read-only file system", withMounts, async () => {
  await using folder = await tempFolder();
  await using mount = await mountTmpfs(folder.path, "8m");
  await fill(folder.path);
  await mount.remount("ro");
  await assertRefused({ dataDir: folder.path }, { problem: "readOnly", says: /make both writable/ });
});

Deno.test(
  "openSqlcipherStore() on a full disk makes nothing",
  withMounts,
  async () => {
    await using folder = await tempFolder();
    await using _mount = await mountTmpfs(folder.path, "256k");
    const ballast = join(folder.path, "ballast");
    Deno.writeFileSync(ballast, new Uint8Array(200 * 1024));
    await assertRefused({ dataDir: folder.path }, { problem: "diskFull", says: /free some space/ });
    Deno.removeSync(ballast);
    await using _other = await tempFolder();
  },
);

Deno.test("a wrong key leaves the WAL of a killed server alone", async () => {
  await using world = await World.make((dataDir) => openSqlcipherStore({ dataDir, keys: [KEY] }));
  const person = await world.person();
  await using copy = await tempFolder();
  for (const name of ["qpq.db", "qpq.db-wal"]) {
    Deno.copyFileSync(join(world.dataDir, name), join(copy.path, name));
  }
  await assertRefused({ dataDir: copy.path, keys: [OTHER_KEY] }, {
    problem: "wrongKey",
    says: /key is wrong/,
  });
  await using store = await openSqlcipherStore({ dataDir: copy.path, keys: [KEY] });
  assert.equal((await store.findAccountByName(person.userName))?.accountId, person.accountId);
});

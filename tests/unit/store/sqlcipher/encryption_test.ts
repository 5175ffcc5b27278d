/** What is in the files: a SQLCipher 4 database that another library reads with the key, and no plaintext. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { utf8 } from "../../../../mod/base/bytes.ts";
import { openStore } from "../../../../mod/store/open.ts";
import { World } from "../../../contract/store/world.ts";
import { tempFolder } from "../../../support/temp_folder.ts";

const KEY = "0123456789abcdef".repeat(4);
const NAME = "planted-user-name";
const PAYLOAD = utf8("planted payload of a message ".repeat(20));

/** A store with somebody who has a message. */
async function plantedWorld(key: string): Promise<World> {
  const world = await World.make((dataDir) => openStore({ backend: "sqlcipher", dataDir, keys: [key] }));
  const person = await world.person({ userName: NAME });
  await world.send(person, [], { parts: [{ payload: PAYLOAD, recipients: [person.deviceId] }] });
  return world;
}

/** Files under the folder that hold one of the planted texts, as bytes or as hexadecimal. */
function filesWithPlaintext(dataDir: string): string[] {
  const decoder = new TextDecoder("latin1");
  const secrets = [NAME, "planted payload", utf8(NAME).toHex(), KEY];
  return [...Deno.readDirSync(dataDir)].filter(({ name }) => {
    const text = decoder.decode(Deno.readFileSync(join(dataDir, name)));
    return secrets.some((secret) => text.includes(secret));
  }).map(({ name }) => name);
}

Deno.test("no file holds user names, payloads or the key, while open and when closed", async () => {
  await using world = await plantedWorld(KEY);
  assert.deepEqual(filesWithPlaintext(world.dataDir), []);
  assert.ok(Deno.statSync(join(world.dataDir, "qpq.db-wal")).size > 0);
  await world.store.close();
  assert.deepEqual(filesWithPlaintext(world.dataDir), []);
});

Deno.test("an unencrypted store is found out by the same search", async () => {
  await using world = await plantedWorld("");
  assert.ok(filesWithPlaintext(world.dataDir).length > 0);
});

/** Rows as the independent library reads them, given the statements that unlock the file. */
async function readIndependently(path: string, unlock: readonly string[]): Promise<unknown[]> {
  const { default: Reader } = await import("better-sqlite3-multiple-ciphers");
  const reader = new Reader(path, { readonly: true });
  try {
    reader.pragma("cipher='sqlcipher'");
    reader.pragma("legacy=4");
    for (const pragma of unlock) reader.pragma(pragma);
    const sql = "SELECT a.user_name, p.bytes FROM accounts a JOIN payloads p ON p.sender = a.id";
    const integrity = reader.pragma("integrity_check", { simple: true });
    return [integrity, ...reader.prepare(sql).all().map((row) => ({ ...row as object }))];
  } finally {
    reader.close();
  }
}

for (const key of [KEY, "it's a passphrase"]) {
  Deno.test(`another library reads the closed file (${key === KEY ? "raw key" : "passphrase"})`, async () => {
    await using world = await plantedWorld(key);
    await world.store.close();
    assert.deepEqual([...Deno.readDirSync(world.dataDir)].map(({ name }) => name).sort(), ["lock", "qpq.db"]);
    const path = join(world.dataDir, "qpq.db");
    const unlock = key === KEY ? `key="x'${KEY}'"` : `key='${key.replaceAll("'", "''")}'`;
    const [integrity, ...rows] = await readIndependently(path, [unlock]);
    assert.equal(integrity, "ok");
    assert.deepEqual(rows, [{ user_name: NAME, bytes: Buffer.from(PAYLOAD) }]);
    await assert.rejects(readIndependently(path, [`key="x'${"00".repeat(32)}'"`]), /not a database/);
  });
}

Deno.test("another library reads a snapshot with the store's key, and a store whose key was changed with the new one", async () => {
  const newKey = "fedcba9876543210".repeat(4);
  await using world = await plantedWorld(KEY);
  await using folder = await tempFolder();
  await world.store.snapshotTo(folder.path, () => {});
  await world.store.rekey(newKey, () => {});
  await world.store.close();
  const expected = ["ok", { user_name: NAME, bytes: Buffer.from(PAYLOAD) }];
  for (const [path, key] of [[folder.path, KEY], [world.dataDir, newKey]] as const) {
    assert.deepEqual(filesWithPlaintext(path), []);
    assert.deepEqual(await readIndependently(join(path, "qpq.db"), [`key="x'${key}'"`]), expected);
  }
});

import assert from "node:assert/strict";
import { join } from "node:path";
import { openSqlcipherStore } from "../../../../mod/store/sqlcipher/mod.ts";
import { findWalDamage } from "../../../../mod/store/sqlcipher/wal_check.ts";
import { World } from "../../../contract/store/world.ts";
import { copyFolder } from "../../../support/copy_folder.ts";
import { type TempFolder, tempFolder } from "../../../support/temp_folder.ts";

const KEY = "5f".repeat(32);
const WAL = "qpq.db-wal";

const open = (dataDir: string) => openSqlcipherStore({ dataDir, keys: [KEY] });

/** A folder as a kill leaves it, and where in its log each of the last three transactions begins; and its end. */
async function killedFolder(): Promise<{ folder: TempFolder; begins: number[] }> {
  await using world = await World.make(open);
  const person = await world.person();
  const size = async () => (await Deno.stat(join(world.dataDir, WAL))).size;
  const begins = [await size()];
  for (let message = 0; message < 3; message++) {
    await world.send(person, [person]);
    begins.push(await size());
  }
  const folder = await tempFolder();
  await copyFolder(world.dataDir, folder.path);
  return { folder, begins };
}

/** Is it one of the bytes that say whether a frame ends a transaction? */
function isCommitField(at: number): boolean {
  const inFrame = (at - 32) % (24 + 4096);
  return inFrame >= 4 && inFrame < 8;
}

async function messagesIn(folder: TempFolder): Promise<number> {
  await using store = await open(folder.path);
  return (await store.counts()).queueEntries;
}

Deno.test("findWalDamage() finds nothing without a log, in an empty one, and in one that a kill has left", async () => {
  const { folder } = await killedFolder();
  await using _ = folder;
  assert.equal(findWalDamage(join(folder.path, "none")), null);
  assert.equal(findWalDamage(join(folder.path, WAL)), null);
  await Deno.writeFile(join(folder.path, "empty"), new Uint8Array());
  assert.equal(findWalDamage(join(folder.path, "empty")), null);
  assert.equal(await messagesIn(folder), 3);
});

Deno.test("findWalDamage() finds what would take more than the last transaction, and no more than that", async () => {
  const { folder, begins } = await killedFolder();
  await using _ = folder;
  const path = join(folder.path, WAL);
  const whole = await Deno.readFile(path);
  for (let at = 0; at < whole.length; at += 509) {
    const damaged = whole.slice();
    damaged[at]! ^= 1;
    await Deno.writeFile(path, damaged);
    const damage = findWalDamage(path);
    if (at < begins[2]!) assert.ok(damage !== null && damage <= at, `at ${at}: ${damage}`);
    // A frame that is wrongly said to end a transaction looks like one: better refused than lost.
    else if (!isCommitField(at)) assert.equal(damage, null, `at ${at}`);
  }
});

Deno.test("a last transaction cut at any place, or with a part missing, is left out", async () => {
  const { folder, begins } = await killedFolder();
  await using _ = folder;
  const path = join(folder.path, WAL);
  const whole = await Deno.readFile(path);
  for (let length = begins[2]!; length < whole.length; length += 1021) {
    await Deno.writeFile(path, whole.subarray(0, length));
    assert.equal(findWalDamage(path), null, `cut at ${length}`);
  }
  const torn = whole.slice();
  torn.fill(0, begins[2]! + 512, begins[2]! + 1024);
  await Deno.writeFile(path, torn);
  assert.equal(await messagesIn(folder), 2);
});

Deno.test("a last transaction of which a frame of the former log still lies in the place of one is left out", async () => {
  const { folder, begins } = await killedFolder();
  await using _ = folder;
  const path = join(folder.path, WAL);
  const torn = await Deno.readFile(path);
  const frame = new DataView(torn.buffer, begins[2]!, 24);
  frame.setUint32(4, 7); // a commit,
  frame.setUint32(8, frame.getUint32(8) - 1); // by the salts of before
  await Deno.writeFile(path, torn);
  assert.equal(findWalDamage(path), null);
  assert.equal(await messagesIn(folder), 2);
});

Deno.test("what recovery passes over does not stay in the log: later commits are not taken for damage", async () => {
  const { folder, begins } = await killedFolder();
  await using _ = folder;
  const path = join(folder.path, WAL);
  const torn = await Deno.readFile(path);
  torn.fill(0, begins[2]! + 512, begins[2]! + 1024);
  await Deno.writeFile(path, torn);
  await using store = await open(folder.path);
  assert.equal((await Deno.stat(path)).size, 0);
  await store.writeMark(1);
  assert.equal(findWalDamage(path), null);
});

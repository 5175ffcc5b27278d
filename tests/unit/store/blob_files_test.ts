import assert from "node:assert/strict";
import { join } from "node:path";
import { concat, hex, sha256, utf8 } from "../../../mod/base/bytes.ts";
import type { BlobHash } from "../../../mod/base/ids.ts";
import { BlobFiles } from "../../../mod/store/blob_files.ts";
import { SmallDisk } from "../../support/faulty_disk.ts";
import { prng } from "../../support/prng.ts";
import { rejectsWith } from "../../support/rejects.ts";
import { tempFolder } from "../../support/temp_folder.ts";

const UNIX = Deno.build.os !== "windows";

async function hashOf(bytes: Uint8Array): Promise<BlobHash> {
  return hex(await sha256(bytes)) as BlobHash;
}

/** Stores `bytes` as an upload in `chunkBytes` pieces would. */
async function store(files: BlobFiles, bytes: Uint8Array, chunkBytes = 1_000): Promise<BlobHash> {
  const hash = await hashOf(bytes);
  const writer = await files.begin();
  try {
    for (let offset = 0; offset < bytes.length; offset += chunkBytes) {
      await writer.write(bytes.subarray(offset, offset + chunkBytes));
    }
    await writer.finish({ hash, bytes: bytes.length });
    await files.exclusive(hash, () => writer.publish(hash));
  } finally {
    await writer.abort();
  }
  return hash;
}

async function readAll(
  files: BlobFiles,
  hash: BlobHash,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  return concat(...await Array.fromAsync(files.read(hash, offset, length)));
}

/** Every file under the folder, by path relative to it. */
async function filesUnder(path: string, prefix = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const entry of Deno.readDir(path)) {
    if (entry.isDirectory) found.push(...await filesUnder(join(path, entry.name), `${prefix}${entry.name}/`));
    else found.push(prefix + entry.name);
  }
  return found.sort();
}

const LARGE = Uint8Array.from({ length: 400_000 }, (_, index) => (index * 31 + (index >> 8)) & 255);

Deno.test("a finished blob is a file named by its hash, readable in ranges", async () => {
  await using folder = await tempFolder();
  const files = await BlobFiles.open(folder.path);
  const hash = await store(files, LARGE);
  assert.deepEqual(await filesUnder(join(folder.path, "blobs")), [`${hash.slice(0, 2)}/${hash.slice(2)}`]);
  assert.equal(await files.size(hash), LARGE.length);
  for (const [offset, length] of [[0, LARGE.length], [0, 1], [131_071, 2], [399_999, 1], [5, 0]] as const) {
    assert.deepEqual(await readAll(files, hash, offset, length), LARGE.subarray(offset, offset + length));
  }
  await rejectsWith(readAll(files, hash, 399_999, 2), "blobNotFound");
});

Deno.test({
  name: "folders are for this user alone, and so are files",
  ignore: !UNIX,
  async fn() {
    await using folder = await tempFolder();
    const files = await BlobFiles.open(folder.path);
    const hash = await store(files, utf8("x"));
    const mode = async (...path: string[]) =>
      (await Deno.lstat(join(folder.path, "blobs", ...path))).mode! & 0o777;
    assert.equal(await mode(), 0o700);
    assert.equal(await mode(hash.slice(0, 2)), 0o700);
    assert.equal(await mode(hash.slice(0, 2), hash.slice(2)), 0o600);
  },
});

Deno.test("an empty blob, and the same blob twice, are fine", async () => {
  await using folder = await tempFolder();
  const files = await BlobFiles.open(folder.path);
  const empty = await store(files, new Uint8Array());
  assert.equal(await files.size(empty), 0);
  assert.deepEqual(await readAll(files, empty, 0, 0), new Uint8Array());
  const [one, two] = await Promise.all([store(files, LARGE), store(files, LARGE, 77_777)]);
  assert.equal(one, two);
  assert.deepEqual(await readAll(files, one, 0, LARGE.length), LARGE);
});

Deno.test("finish() refuses other bytes and another size, and nothing stays", async () => {
  await using folder = await tempFolder();
  const files = await BlobFiles.open(folder.path);
  const hash = await hashOf(utf8("right"));
  for (const [bytes, size] of [["wrong", 5], ["righ", 5], ["right", 6], ["right!", 5]] as const) {
    const writer = await files.begin();
    await writer.write(utf8(bytes));
    await rejectsWith(writer.finish({ hash, bytes: size }), "blobHashMismatch");
    await writer.abort();
  }
  assert.equal(await files.size(hash), null);
  assert.deepEqual(await filesUnder(join(folder.path, "blobs")), []);
});

Deno.test("open() removes what unfinished uploads left, and keeps blobs", async () => {
  await using folder = await tempFolder();
  const before = await BlobFiles.open(folder.path);
  const hash = await store(before, utf8("kept"));
  const writer = await before.begin();
  await writer.write(LARGE);
  assert.equal((await filesUnder(join(folder.path, "blobs"))).length, 2);
  const files = await BlobFiles.open(folder.path);
  assert.deepEqual(await filesUnder(join(folder.path, "blobs")), [`${hash.slice(0, 2)}/${hash.slice(2)}`]);
  assert.deepEqual(await Array.fromAsync(files.list()), [hash]);
  await writer.abort();
});

Deno.test("list() gives blobs and no strangers", async () => {
  await using folder = await tempFolder();
  const files = await BlobFiles.open(folder.path);
  const hashes = await Promise.all(["a", "b", "c"].map((text) => store(files, utf8(text))));
  await Deno.writeTextFile(join(folder.path, "blobs", "README"), "");
  await Deno.writeTextFile(join(folder.path, "blobs", hashes[0]!.slice(0, 2), "notes.txt"), "");
  assert.deepEqual((await Array.fromAsync(files.list())).sort(), hashes.sort());
});

Deno.test("delete() is idempotent, and does not disturb who reads", async () => {
  await using folder = await tempFolder();
  const files = await BlobFiles.open(folder.path);
  const hash = await store(files, LARGE);
  const reading = files.read(hash, 0, LARGE.length);
  const first = (await reading.next()).value!;
  if (UNIX) await files.delete(hash);
  const rest = await Array.fromAsync(reading);
  assert.deepEqual(concat(first, ...rest), LARGE);
  await files.delete(hash);
  await files.delete(hash);
  assert.equal(await files.size(hash), null);
  await rejectsWith(readAll(files, hash, 0, 1), "blobNotFound");
});

Deno.test("no flipped bit is ever served, be the blob known or not; nor are bytes before it in its chunk", async () => {
  await using folder = await tempFolder();
  const known = await BlobFiles.open(folder.path);
  const hash = await store(known, LARGE);
  assert.deepEqual(await readAll(known, hash, 0, LARGE.length), LARGE);
  const path = join(folder.path, "blobs", hash.slice(0, 2), hash.slice(2));
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  const random = prng(seed);
  for (let flip = 0; flip < 40; flip++) {
    const at = Math.floor(random() * LARGE.length);
    const damaged = LARGE.slice();
    damaged[at]! ^= 1 << Math.floor(random() * 8);
    await Deno.writeFile(path, damaged);
    const told = `seed ${seed}, flip ${flip}`;
    for (const files of [await BlobFiles.open(folder.path), known]) {
      const got: Uint8Array[] = [];
      const reading = async () => {
        for await (const chunk of files.read(hash, 0, LARGE.length)) got.push(chunk);
      };
      await rejectsWith(reading(), "blobNotFound");
      assert.deepEqual(concat(...got), LARGE.subarray(0, concat(...got).length), told);
      assert.equal(await files.isSound(hash), false, told);
    }
    await Deno.writeFile(path, LARGE);
    assert.deepEqual(await readAll(known, hash, at, 1), LARGE.subarray(at, at + 1), told);
  }
});

Deno.test("a damaged blob is sound again when it is put again", async () => {
  await using folder = await tempFolder();
  const files = await BlobFiles.open(folder.path);
  const hash = await store(files, LARGE);
  await Deno.writeFile(join(folder.path, "blobs", hash.slice(0, 2), hash.slice(2)), LARGE.toReversed());
  assert.equal(await files.isSound(hash), false);
  await store(files, LARGE);
  assert.deepEqual(await readAll(files, hash, 5, 10), LARGE.subarray(5, 15));
});

Deno.test("a full disk is storeFull, leaves nothing behind, and later there is room again", async () => {
  await using folder = await tempFolder();
  const disk = new SmallDisk(200_000);
  const files = await BlobFiles.open(folder.path, { disk });
  await rejectsWith(store(files, LARGE), "storeFull");
  assert.deepEqual(await filesUnder(join(folder.path, "blobs")), []);
  disk.makeRoom(1_000_000);
  assert.equal(await files.size(await store(files, LARGE)), LARGE.length);
});

Deno.test({
  name: "symbolic links and folders in the place of files are refused",
  ignore: !UNIX,
  async fn() {
    await using folder = await tempFolder();
    await using elsewhere = await tempFolder();
    const files = await BlobFiles.open(folder.path);
    const secret = join(elsewhere.path, "secret");
    await Deno.writeTextFile(secret, "secret");
    const hash = await store(files, utf8("mine"));
    const path = join(folder.path, "blobs", hash.slice(0, 2), hash.slice(2));
    await Deno.remove(path);
    await Deno.symlink(secret, path);
    await rejectsWith(readAll(files, hash, 0, 4), "storeUnavailable");
    await rejectsWith(store(files, utf8("mine")), "storeUnavailable");
    await rejectsWith(files.delete(hash), "storeUnavailable");
    await Deno.remove(path);
    await Deno.mkdir(path);
    await rejectsWith(store(files, utf8("mine")), "storeUnavailable");
    await Deno.remove(join(folder.path, "blobs", hash.slice(0, 2)), { recursive: true });
    await Deno.symlink(elsewhere.path, join(folder.path, "blobs", hash.slice(0, 2)));
    await rejectsWith(store(files, utf8("mine")), "storeUnavailable");
    assert.equal(await Deno.readTextFile(secret), "secret");
    assert.deepEqual(await filesUnder(elsewhere.path), ["secret"]);
  },
});

Deno.test({
  name: "open() refuses a blob folder that is a file or a link, with the path and a remedy",
  ignore: !UNIX,
  async fn() {
    await using folder = await tempFolder();
    const path = join(folder.path, "blobs");
    await Deno.writeTextFile(path, "");
    const expected = { name: "StoreOpenError", path, problem: "failed", message: /make it a folder/ };
    await assert.rejects(BlobFiles.open(folder.path), expected);
    await Deno.remove(path);
    await Deno.symlink(folder.path, path);
    await assert.rejects(BlobFiles.open(folder.path), expected);
  },
});

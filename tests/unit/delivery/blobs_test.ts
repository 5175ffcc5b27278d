import assert from "node:assert/strict";
import { join } from "node:path";
import { concat, hex, randomBytes, sha256, utf8, utf8Text } from "../../../mod/base/bytes.ts";
import { QpqError } from "../../../mod/base/errors.ts";
import type { AccountId, BlobHash } from "../../../mod/base/ids.ts";
import { randomId } from "../../../mod/base/ids.ts";
import { type BlobLimits, Blobs } from "../../../mod/delivery/blobs.ts";
import { BlobFiles } from "../../../mod/store/blob_files.ts";
import { openStore } from "../../../mod/store/open.ts";
import type { Store } from "../../../mod/store/store.ts";
import { FakeClock } from "../../support/fake_clock.ts";
import { SmallDisk } from "../../support/faulty_disk.ts";
import { rejectsWith } from "../../support/rejects.ts";
import { tempFolder } from "../../support/temp_folder.ts";

const DAY_MS = 86_400_000;
const LIMITS: BlobLimits = {
  blobBytesMax: 1_000,
  blobQuotaBytes: 1_500,
  ttlDefaultMs: 30 * DAY_MS,
  ttlMaxMs: 60 * DAY_MS,
  uploadsMax: 3,
};

/** Blobs over a real store and real files, with two accounts. */
class World implements AsyncDisposable {
  readonly clock = new FakeClock();
  readonly blobs: Blobs;

  constructor(
    readonly store: Store,
    readonly files: BlobFiles,
    readonly dataDir: string,
    readonly ada: AccountId,
    readonly bob: AccountId,
    readonly disk: SmallDisk,
    limits: Partial<BlobLimits>,
  ) {
    this.blobs = new Blobs({ store, files, clock: this.clock, limits: { ...LIMITS, ...limits } });
  }

  static async open(dataDir: string, limits: Partial<BlobLimits> = {}): Promise<World> {
    const store = await openStore({ backend: "sqlcipher", dataDir, keys: ["00".repeat(32)] });
    const disk = new SmallDisk(1_000_000);
    const files = await BlobFiles.open(dataDir, { disk });
    const [ada, bob] = await Promise.all(["ada", "bob"].map((name) => account(store, name)));
    return new World(store, files, dataDir, ada!, bob!, disk, limits);
  }

  async put(
    owner: AccountId,
    bytes: Uint8Array,
    options: { ttlMs?: number; body?: AsyncIterable<Uint8Array> } = {},
  ) {
    const { ttlMs = 0, body = chunks(bytes) } = options;
    const hash = await hashOf(bytes);
    const { expiresAt } = await this.blobs.put({ owner, hash, bytes: bytes.length, ttlMs, body });
    return { hash, expiresAt };
  }

  async read(hash: BlobHash, offset = 0, length = 0): Promise<string> {
    const blob = await this.blobs.get({ hash, offset, length });
    return utf8Text(concat(...await Array.fromAsync(blob.body)));
  }

  /** Blobs that have a file, and temporary files under their full names. */
  async onDisk(): Promise<string[]> {
    const names: string[] = await Array.fromAsync(this.files.list());
    for await (const entry of Deno.readDir(join(this.dataDir, "blobs", "tmp"))) names.push(entry.name);
    return names.sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store.close();
  }
}

async function account(store: Store, userName: string): Promise<AccountId> {
  const accountId = randomId<AccountId>();
  const found = await store.findAccountByName(userName);
  if (found) return found.accountId;
  const credential = {
    suiteId: 1,
    setupId: 1,
    record: new Uint8Array(192),
    wrappedAccountKey: new Uint8Array(60),
  };
  const result = await store.createAccount({
    accountId,
    userName,
    credential,
    accountKey: randomBytes(32),
    invitationSha256: null,
    now: 0,
  });
  assert.equal(result.status, "created");
  return accountId;
}

async function hashOf(bytes: Uint8Array): Promise<BlobHash> {
  return hex(await sha256(bytes)) as BlobHash;
}

async function* chunks(bytes: Uint8Array, chunkBytes = 100): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += chunkBytes) {
    yield bytes.subarray(offset, offset + chunkBytes);
  }
}

/** A body that must not be asked for. */
// deno-lint-ignore require-yield
async function* untouched(): AsyncGenerator<Uint8Array> {
  throw new Error("The body was read");
}

Deno.test("a blob is put by one and got by anybody who knows its hash, whole or in part", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path);
  const { hash } = await world.put(world.ada, utf8("hello, world"));
  assert.equal(await world.read(hash), "hello, world");
  assert.equal(await world.read(hash, 7), "world");
  assert.equal(await world.read(hash, 3, 4), "lo, ");
  assert.equal(await world.read(hash, 12), "");
  const { size, length } = await world.blobs.get({ hash, offset: 7, length: 0 });
  assert.deepEqual([size, length], [12, 5]);
  await rejectsWith(world.read(hash, 13), "rangeInvalid");
  await rejectsWith(world.read(hash, 5, 8), "rangeInvalid");
  await rejectsWith(world.read(await hashOf(utf8("other"))), "blobNotFound");
});

Deno.test("expiry is the message's life, clamped, and seven days", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path);
  const days = async (ttlMs: number) => {
    const { expiresAt } = await world.put(world.ada, utf8(`ttl ${ttlMs}`), { ttlMs });
    return (expiresAt - world.clock.now()) / DAY_MS;
  };
  assert.deepEqual([await days(0), await days(DAY_MS), await days(90 * DAY_MS)], [37, 8, 67]);
});

Deno.test("size and quota are judged before a byte is read", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path);
  const body = untouched();
  await rejectsWith(world.put(world.ada, new Uint8Array(1_001), { body }), "blobTooLarge");
  await world.put(world.ada, new Uint8Array(1_000));
  await rejectsWith(world.put(world.ada, new Uint8Array(501), { body }), "blobQuotaExceeded");
  await world.put(world.ada, new Uint8Array(500));
  // A quota is each owner's own, and one's own blob may always be renewed.
  await world.put(world.bob, new Uint8Array(1_000));
  await world.put(world.ada, new Uint8Array(1_000));
});

Deno.test("uploads under way count against the quota and the number of uploads", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path, { uploadsMax: 8 });
  const begun = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const slow = (async function* () {
    begun.resolve();
    await gate.promise;
    yield new Uint8Array(1_000);
  })();
  const first = world.put(world.ada, new Uint8Array(1_000), { body: slow });
  await begun.promise;
  await rejectsWith(world.put(world.ada, new Uint8Array(600), { body: untouched() }), "blobQuotaExceeded");
  world.blobs.limits = { ...LIMITS, uploadsMax: 2 };
  const held = (async function* () {
    await gate.promise;
    yield utf8("x");
  })();
  const second = world.put(world.bob, utf8("x"), { body: held });
  while (world.blobs.uploadCount < 2) await world.clock.settle();
  const refused = await rejectsWith(world.put(world.bob, utf8("y"), { body: untouched() }), "overloaded");
  assert.ok(refused.details.retryAfterMs! > 0);
  gate.resolve();
  await Promise.all([first, second]);
  await world.put(world.ada, new Uint8Array(500));
});

Deno.test("one account's uploads leave room for others", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path, { uploadsMax: 8 });
  const gate = Promise.withResolvers<void>();
  const slow = async function* (text: string) {
    await gate.promise;
    yield utf8(text);
  };
  const begun = ["a", "b"].map((text) => world.put(world.ada, utf8(text), { body: slow(text) }));
  while (world.blobs.uploadCount < 2) await world.clock.settle();
  const refused = await rejectsWith(world.put(world.ada, utf8("c"), { body: untouched() }), "rateLimited");
  assert.ok(refused.details.retryAfterMs! > 0);
  await world.put(world.bob, utf8("d"));
  gate.resolve();
  await Promise.all(begun);
  await world.put(world.ada, utf8("c"));
});

Deno.test("wrong, short, long and broken bodies leave nothing behind", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path);
  const wanted = utf8("the right bytes");
  const broken = async function* () {
    yield wanted.subarray(0, 5);
    throw new QpqError("malformedRequest", "The stream ended early");
  };
  const bodies = [
    chunks(utf8("the wrong bytes")),
    chunks(utf8("the right")),
    chunks(utf8("the right bytes!")),
  ];
  for (const body of bodies) await rejectsWith(world.put(world.ada, wanted, { body }), "blobHashMismatch");
  await rejectsWith(world.put(world.ada, wanted, { body: broken() }), "malformedRequest");
  assert.deepEqual(await world.onDisk(), []);
  await rejectsWith(world.read(await hashOf(wanted)), "blobNotFound");
  const { hash } = await world.put(world.ada, wanted);
  assert.deepEqual(await world.onDisk(), [hash]);
});

Deno.test("a known blob's bytes must still be shown", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path);
  const secret = utf8("known to ada");
  await world.put(world.ada, secret);
  const body = chunks(new Uint8Array(secret.length));
  await rejectsWith(world.put(world.bob, secret, { body }), "blobHashMismatch");
  await rejectsWith(world.blobs.delete({ owner: world.bob, hash: await hashOf(secret) }), "notFound");
});

Deno.test("two accounts put the same blob at once; it goes with the last reference", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path);
  const bytes = randomBytes(900);
  const [{ hash }] = await Promise.all([world.put(world.ada, bytes), world.put(world.bob, bytes)]);
  assert.deepEqual(await world.onDisk(), [hash]);
  await world.blobs.delete({ owner: world.ada, hash });
  await rejectsWith(world.blobs.delete({ owner: world.ada, hash }), "notFound");
  assert.equal((await world.blobs.get({ hash, offset: 0, length: 0 })).size, 900);
  await world.blobs.delete({ owner: world.bob, hash });
  await rejectsWith(world.blobs.get({ hash, offset: 0, length: 0 }), "blobNotFound");
  assert.deepEqual(await world.onDisk(), []);
});

Deno.test("puts and deletes of one blob that cross leave file and references in agreement", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path, { uploadsMax: 100 });
  const bytes = randomBytes(300);
  const hash = await hashOf(bytes);
  for (let round = 0; round < 15; round++) {
    await world.put(world.ada, bytes);
    await Promise.all([
      world.blobs.delete({ owner: world.ada, hash }),
      world.put(world.bob, bytes),
      world.put(world.bob, bytes),
    ]);
    assert.equal((await world.blobs.get({ hash, offset: 0, length: 0 })).size, 300);
    await Promise.all([world.blobs.delete({ owner: world.bob, hash }), world.blobs.removeOrphans()]);
    assert.deepEqual(await world.onDisk(), []);
  }
});

Deno.test("expire() removes references and bytes whose time has come, no others", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path);
  const soon = await world.put(world.ada, utf8("soon"), { ttlMs: DAY_MS });
  const shared = await world.put(world.ada, utf8("shared"), { ttlMs: DAY_MS });
  await world.put(world.bob, utf8("shared"), { ttlMs: 20 * DAY_MS });
  await world.clock.advance(8 * DAY_MS);
  await rejectsWith(world.read(soon.hash), "blobNotFound");
  assert.equal(await world.blobs.expire(100), 1);
  assert.deepEqual(await world.onDisk(), [shared.hash]);
  assert.equal(await world.read(shared.hash), "shared");
  // The quota is free again.
  await world.put(world.ada, new Uint8Array(1_000));
});

Deno.test("removeOrphans() removes files that nobody refers to, and remove() spares the others", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path);
  const { hash } = await world.put(world.ada, utf8("kept"));
  const orphan = utf8("left by a crash");
  const orphanHash = await hashOf(orphan);
  const writer = await world.files.begin();
  await writer.write(orphan);
  await writer.finish({ hash: orphanHash, bytes: orphan.length });
  await writer.publish(orphanHash);
  assert.equal(await world.blobs.remove([hash]), 0);
  assert.equal(await world.blobs.removeOrphans(), 1);
  assert.deepEqual(await world.onDisk(), [hash]);
});

Deno.test("a deleted account's blobs go with remove()", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path);
  await world.put(world.ada, utf8("alone"));
  const { hash } = await world.put(world.ada, utf8("shared"));
  await world.put(world.bob, utf8("shared"));
  const deleted = await world.store.deleteAccount(world.ada, world.clock.now());
  assert.equal(await world.blobs.remove(deleted!.orphanedBlobs), 1);
  assert.deepEqual(await world.onDisk(), [hash]);
  // Whoever is deleted while uploading gets nothing stored.
  await rejectsWith(world.put(world.ada, utf8("too late")), "blobQuotaExceeded");
  assert.deepEqual(await world.onDisk(), [hash]);
});

Deno.test("a quota used up while uploading takes the bytes back", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path);
  const bytes = utf8("slow");
  const quotaUsedUp = (async function* () {
    yield bytes;
    const hash = await hashOf(utf8("another server's put"));
    const now = world.clock.now();
    const reference = { hash, owner: world.ada, bytes: 1_500, expiresAt: now + 1, quotaBytes: 1_500, now };
    await world.store.putBlobReference({ ...reference, dryRun: false });
  })();
  await rejectsWith(world.put(world.ada, bytes, { body: quotaUsedUp }), "blobQuotaExceeded");
  assert.deepEqual(await world.onDisk(), []);
});

Deno.test("a full disk is storeFull and nothing is left; a damaged file is blobNotFound", async () => {
  await using folder = await tempFolder();
  await using world = await World.open(folder.path);
  world.disk.makeRoom(10);
  await rejectsWith(world.put(world.ada, new Uint8Array(900)), "storeFull");
  assert.deepEqual(await world.onDisk(), []);
  world.disk.makeRoom(10_000);
  const { hash } = await world.put(world.ada, new Uint8Array(900));
  await Deno.truncate(join(folder.path, "blobs", hash.slice(0, 2), hash.slice(2)), 899);
  await rejectsWith(world.blobs.get({ hash, offset: 0, length: 0 }), "blobNotFound");
});

Deno.test("blobs outlive a restart", async () => {
  await using folder = await tempFolder();
  let hash: BlobHash;
  {
    await using world = await World.open(folder.path);
    ({ hash } = await world.put(world.ada, utf8("durable")));
  }
  await using world = await World.open(folder.path);
  assert.equal(await world.blobs.removeOrphans(), 0);
  assert.equal(await world.read(hash), "durable");
});

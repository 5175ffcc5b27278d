/** Contract of BlobStore. */
import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { type AccountId, type BlobHash, randomId } from "../../../mod/base/ids.ts";
import { BLOB_CACHE_OWNER } from "../../../mod/store/store.ts";
import { type ContractTest, DAY_MS, type World } from "./world.ts";

const newHash = () => randomBytes(32).toHex() as BlobHash;

function put(
  world: World,
  hash: BlobHash,
  fields: { owner: AccountId; bytes?: number; quotaBytes?: number; dryRun?: boolean; expiresAt?: number },
) {
  return world.store.putBlobReference({
    hash,
    bytes: 100,
    expiresAt: world.now + DAY_MS,
    quotaBytes: 1000,
    dryRun: false,
    now: world.now,
    ...fields,
  });
}

/** Registers the tests. */
export function blobContract(test: ContractTest): void {
  test("putBlobReference() makes a blob findable until its expiry", async (world) => {
    const { accountId: owner } = await world.person();
    const hash = newHash();
    assert.equal(await world.store.findBlob(hash, world.now), null);
    assert.deepEqual(await put(world, hash, { owner }), { status: "ok", known: false });
    assert.deepEqual(await world.store.findBlob(hash, world.now), { bytes: 100 });
    assert.equal(await world.store.findBlob(hash, world.now + 2 * DAY_MS), null);
  });

  test("putBlobReference() extends the owner's reference and charges it once", async (world) => {
    const { accountId: owner } = await world.person();
    const hash = newHash();
    const fields = { owner, bytes: 600 };
    await put(world, hash, fields);
    const longer = { ...fields, expiresAt: world.now + 5 * DAY_MS };
    assert.deepEqual(await put(world, hash, longer), { status: "ok", known: true });
    assert.deepEqual(await put(world, hash, { ...fields, expiresAt: world.now + 1 }), {
      status: "ok",
      known: true,
    });
    assert.deepEqual(await world.store.findBlob(hash, world.now + 2 * DAY_MS), { bytes: 600 });
    assert.deepEqual(await put(world, newHash(), { owner, bytes: 400 }), { status: "ok", known: false });
    const { blobs, blobBytes } = await world.store.counts();
    assert.deepEqual([blobs, blobBytes], [2, 1000]);
  });

  test("putBlobReference() takes copies of other servers' blobs, which no account owns", async (world) => {
    const { accountId } = await world.person();
    const [copy, both] = [newHash(), newHash()];
    assert.deepEqual(await put(world, copy, { owner: BLOB_CACHE_OWNER }), { status: "ok", known: false });
    assert.deepEqual(await put(world, both, { owner: accountId }), { status: "ok", known: false });
    assert.deepEqual(await put(world, both, { owner: BLOB_CACHE_OWNER }), { status: "ok", known: true });
    const refused = { status: "quotaExceeded" };
    assert.deepEqual(await put(world, newHash(), { owner: BLOB_CACHE_OWNER, bytes: 901 }), refused);
    assert.deepEqual(await world.store.findBlob(copy, world.now), { bytes: 100 });
    assert.deepEqual(await world.store.deleteBlobReference(both, BLOB_CACHE_OWNER), { orphaned: false });
    assert.deepEqual(await world.store.deleteBlobReference(copy, BLOB_CACHE_OWNER), { orphaned: true });
  });

  test("putBlobReference() charges each owner's quota", async (world) => {
    const [first, second] = [await world.person(), await world.person()];
    const hash = newHash();
    await put(world, hash, { owner: first.accountId, bytes: 900 });
    const refused = { status: "quotaExceeded" };
    assert.deepEqual(await put(world, newHash(), { owner: first.accountId, bytes: 101 }), refused);
    assert.deepEqual(await put(world, newHash(), { owner: second.accountId, bytes: 200 }), {
      ...{ status: "ok", known: false },
    });
    assert.deepEqual(await put(world, hash, { owner: second.accountId, bytes: 900 }), refused);
    await world.store.deleteBlobReference(hash, first.accountId);
    assert.equal((await put(world, newHash(), { owner: first.accountId, bytes: 1000 })).status, "ok");
  });

  test("putBlobReference() holds the quota against many at once", async (world) => {
    const { accountId: owner } = await world.person();
    const results = await Promise.all(
      Array.from({ length: 10 }, () => put(world, newHash(), { owner, bytes: 300 })),
    );
    assert.equal(results.filter((result) => result.status === "ok").length, 3);
  });

  test("putBlobReference() with dryRun tells what it would and changes nothing", async (world) => {
    const { accountId: owner } = await world.person();
    const [hash, other] = [newHash(), newHash()];
    assert.deepEqual(await put(world, hash, { owner, dryRun: true }), { status: "ok", known: false });
    assert.equal(await world.store.findBlob(hash, world.now), null);
    assert.deepEqual(await put(world, other, { owner, bytes: 1001, dryRun: true }), {
      status: "quotaExceeded",
    });
    await put(world, hash, { owner });
    assert.deepEqual(await put(world, hash, { owner, dryRun: true }), { status: "ok", known: true });
    assert.equal((await world.store.counts()).blobs, 1);
  });

  test("deleteBlobReference() removes one's own reference and tells when it was the last", async (world) => {
    const [first, second] = [await world.person(), await world.person()];
    const hash = newHash();
    await put(world, hash, { owner: first.accountId });
    assert.equal(await world.store.deleteBlobReference(hash, second.accountId), null);
    assert.equal(await world.store.deleteBlobReference(newHash(), first.accountId), null);
    await put(world, hash, { owner: second.accountId });
    const remove = (owner: AccountId) => world.store.deleteBlobReference(hash, owner);
    assert.deepEqual(await remove(first.accountId), { orphaned: false });
    assert.equal(await remove(first.accountId), null);
    assert.deepEqual(await world.store.findBlob(hash, world.now), { bytes: 100 });
    assert.deepEqual(await remove(second.accountId), { orphaned: true });
    assert.equal(await world.store.findBlob(hash, world.now), null);
  });

  test("expireBlobs() removes expired references, at most limit, and names the orphans", async (world) => {
    const [first, second] = [await world.person(), await world.person()];
    const [shared, own, lasting] = [newHash(), newHash(), newHash()];
    const later = world.now + 9 * DAY_MS;
    await put(world, shared, { owner: first.accountId });
    await put(world, shared, { owner: second.accountId, expiresAt: later });
    await put(world, own, { owner: first.accountId });
    await put(world, lasting, { owner: first.accountId, expiresAt: later });
    assert.deepEqual(await world.store.expireBlobs(world.now, 10), []);
    world.now += 2 * DAY_MS;
    const orphans = [
      ...await world.store.expireBlobs(world.now, 1),
      ...await world.store.expireBlobs(world.now, 1),
    ];
    assert.deepEqual(orphans, [own]);
    assert.deepEqual(await world.store.expireBlobs(world.now, 10), []);
    assert.deepEqual(await world.store.findBlob(shared, world.now), { bytes: 100 });
    assert.equal((await put(world, newHash(), { owner: first.accountId, bytes: 900 })).status, "ok");
  });

  test("unreferencedBlobs() names those without any reference", async (world) => {
    const { accountId: owner } = await world.person();
    const [known, gone, unknown] = [newHash(), newHash(), newHash()];
    await put(world, known, { owner });
    await put(world, gone, { owner });
    await world.store.deleteBlobReference(gone, owner);
    assert.deepEqual(await world.store.unreferencedBlobs([known, gone, unknown]), [gone, unknown]);
    assert.deepEqual(await world.store.unreferencedBlobs([]), []);
  });

  test("putBlobReference() of an account that is gone is refused", async (world) => {
    const refused = await put(world, newHash(), { owner: randomId<AccountId>() });
    assert.deepEqual(refused, { status: "quotaExceeded" });
  });
}

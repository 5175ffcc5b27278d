import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { type BlobHash, randomId } from "../../../mod/base/ids.ts";
import { ChunkDigests, KnownDigests } from "../../../mod/store/blob_digests.ts";

Deno.test("KnownDigests forgets the least recently used beyond its bound", () => {
  const known = new KnownDigests(100);
  const [a, b, c] = [randomId<BlobHash>(), randomId<BlobHash>(), randomId<BlobHash>()];
  for (const hash of [a, b]) known.set(hash, new ChunkDigests(randomBytes(48)));
  assert.ok(known.get(a));
  known.set(c, new ChunkDigests(randomBytes(48)));
  assert.deepEqual([a, b, c].map((hash) => known.get(hash) !== undefined), [true, false, true]);
  known.delete(a);
  known.set(b, new ChunkDigests(randomBytes(48)));
  assert.deepEqual([a, b, c].map((hash) => known.get(hash) !== undefined), [false, true, true]);
});

Deno.test("KnownDigests does not keep what is larger than all it may hold", () => {
  const known = new KnownDigests(100);
  const hash = randomId<BlobHash>();
  known.set(hash, new ChunkDigests(randomBytes(160)));
  assert.equal(known.get(hash), undefined);
});

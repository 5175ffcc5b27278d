/** convertStore: everything goes from one backend to the other and back, and means the same there. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { randomBytes } from "../../mod/base/bytes.ts";
import { convertStore } from "../../mod/store/convert.ts";
import { openFileStore } from "../../mod/store/file/mod.ts";
import { DATA_PATHS, openStore, type StoreBackend } from "../../mod/store/open.ts";
import { StoreOpenError } from "../../mod/store/store.ts";
import { putAside } from "../../mod/store/swap.ts";
import { fillFixture } from "../support/make_store_fixture.ts";
import { prng } from "../support/prng.ts";
import { rejectsWith } from "../support/rejects.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { assertSame, digestOf, fill, KEY, namesIn, OTHER_KEY, Progress } from "./admin/backend.ts";
import { type Known, OPERATIONS } from "./store/counts.ts";
import { DAY_MS, plain, World } from "./store/world.ts";

const open = (backend: StoreBackend, dataDir: string, key = KEY) =>
  openStore({ backend, dataDir, keys: [key] });

/** A store in which much has happened. */
async function busyWorld(backend: StoreBackend): Promise<{ world: World; known: Known; seed: number }> {
  const world = await World.make((dataDir) => open(backend, dataDir));
  await world.store.initOpaqueSetup({ suiteId: 1, secret: randomBytes(128), createdAt: world.now });
  const known: Known = { people: [await world.person(), await world.person()], blobs: [] };
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  const random = prng(seed);
  const pick = (below: number) => Math.floor(random() * below);
  for (let step = 0; step < 250; step++) await OPERATIONS[pick(OPERATIONS.length)]!(world, known, pick);
  return { world, known, seed };
}

for (const [first, second] of [["sqlcipher", "file"], ["file", "sqlcipher"]] as const) {
  Deno.test(`a ${first} store is the same after conversion to ${second} and back`, async () => {
    const { world, seed } = await busyWorld(first);
    await using _world = world;
    const expected = await digestOf(world.store);
    await using there = await tempFolder();
    await using back = await tempFolder();
    const progress = new Progress();
    const to = { backend: second, dataDir: there.path, key: OTHER_KEY };
    const { path, rows } = await convertStore({ from: world.store, to, onProgress: progress.on });
    progress.assertWhole();
    assert.equal(path, join(there.path, DATA_PATHS[second]));
    assert.equal(rows.account, (await world.store.counts()).accounts, `seed ${seed}`);
    const converted = await open(second, there.path, OTHER_KEY);
    await assertSame(converted, expected);
    assert.deepEqual(await converted.counts(), await world.store.counts());
    assert.deepEqual(plain(converted.incarnation), plain(world.store.incarnation));
    assert.equal(converted.realmId, world.store.realmId);
    const home = { backend: first, dataDir: back.path, key: KEY };
    await convertStore({ from: converted, to: home, onProgress: () => {} });
    await converted.close();
    await using returned = await open(first, back.path);
    await assertSame(returned, expected);
  });

  Deno.test(`a ${first} store converted to ${second} goes on where it was`, async () => {
    await using world = await World.make((dataDir) => open(first, dataDir));
    const [alice, bob] = [await world.signed(await world.person()), await world.person()];
    const message = world.message(bob, [alice]);
    await world.store.enqueue(message);
    const packages = [3, 1, 2].flatMap((days) =>
      world.keyPackages(1, { notAfter: world.now + days * DAY_MS })
    );
    await world.upload(alice, packages);
    await world.claim(alice);
    await using folder = await tempFolder();
    const to = { backend: second, dataDir: folder.path, key: KEY };
    await convertStore({ from: world.store, to, onProgress: () => {} });
    await using converted = await World.make(() => open(second, folder.path));
    const replayed = await converted.store.enqueue(message);
    assert.equal(replayed.status === "accepted" && replayed.replayed, true);
    assert.deepEqual(plain(await converted.entries(alice)), plain(await world.entries(alice)));
    await converted.send(bob, [alice]);
    assert.deepEqual(await converted.seqs(alice), [1, 2]);
    assert.deepEqual(plain(await converted.claim(alice)), plain(await world.claim(alice)));
    const again = await converted.upload(alice, packages);
    assert.deepEqual(again.status === "stored" && again.stored, [false, false, false]);
    assert.deepEqual(await converted.store.checkIntegrity(() => {}), []);
  });
}

Deno.test("convertStore() in one folder: the old store is put aside by the caller", async () => {
  await using folder = await tempFolder();
  const from = await open("sqlcipher", folder.path);
  await fillFixture(from);
  const expected = await digestOf(from);
  const to = { backend: "file", dataDir: folder.path, key: KEY } as const;
  await convertStore({ from, to, onProgress: () => {} });
  await from.close();
  await assert.rejects(open("file", folder.path), /holds a store of the sqlcipher backend/);
  assert.equal(await putAside(folder.path, "qpq.db"), join(folder.path, "qpq.db.old-1"));
  await using store = await open("file", folder.path);
  await assertSame(store, expected);
  assert.deepEqual(namesIn(folder.path), ["journal", "qpq.db.old-1"]);
});

Deno.test("convertStore() refuses a folder that holds such a store, and leaves it as it is", async () => {
  await using world = await World.make((dataDir) => open("sqlcipher", dataDir));
  await using folder = await tempFolder();
  await (await open("file", folder.path)).close();
  const to = { backend: "file", dataDir: folder.path, key: OTHER_KEY } as const;
  await assert.rejects(convertStore({ from: world.store, to, onProgress: () => {} }), StoreOpenError);
  await (await open("file", folder.path)).close();
});

Deno.test("importRows() refuses a store that is not empty", async () => {
  for (const backend of Object.keys(DATA_PATHS) as StoreBackend[]) {
    await using world = await World.make((dataDir) => open(backend, dataDir));
    await world.person();
    const expected = await digestOf(world.store);
    for await (const rows of world.store.exportRows()) {
      await rejectsWith(world.store.importRows(rows), "storeUnavailable");
      break;
    }
    await assertSame(world.store, expected);
  }
});

Deno.test("importRows() of more entries than the file backend holds is storeFull", async () => {
  await using world = await World.make((dataDir) => open("sqlcipher", dataDir));
  await fill(world, { count: 20, bytes: 10 });
  await using folder = await tempFolder();
  await using small = await openFileStore({ dataDir: folder.path, keys: [KEY] }, { queueEntriesMax: 19 });
  const importing = (async () => {
    for await (const rows of world.store.exportRows()) await small.importRows(rows);
  })();
  assert.match((await rejectsWith(importing, "storeFull")).message, /at most 19 waiting entries/);
});

/** What a crash at each point of a change of key leaves in the data folder, and what the next open makes of it. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { DATA_PATHS, openStore, type StoreBackend } from "../../mod/store/open.ts";
import { copyFolder } from "../support/copy_folder.ts";
import { FIXTURE_KEY, fixtureFolder, VERSIONS } from "../support/make_store_fixture.ts";
import { type TempFolder, tempFolder } from "../support/temp_folder.ts";
import { namesIn, OTHER_KEY } from "./admin/backend.ts";

/** A folder with a store under the old key (BASE) and, complete, under the new one (BASE.rekeyed). */
async function beforeSwap(backend: StoreBackend): Promise<TempFolder & { base: string }> {
  const folder = await tempFolder();
  await copyFolder(fixtureFolder(backend, VERSIONS[backend]), folder.path);
  const store = await openStore({ backend, dataDir: folder.path, keys: [FIXTURE_KEY] });
  const { oldPath } = await store.rekey(OTHER_KEY, () => {});
  await store.close();
  const base = join(folder.path, DATA_PATHS[backend]);
  await Deno.rename(base, `${base}.rekeyed`);
  await Deno.rename(oldPath, base);
  return Object.assign(folder, { base });
}

interface State {
  readonly what: string;
  /** From the state of {@link beforeSwap}. */
  readonly make: (base: string) => void;
  readonly opensWith: string;
  /** What is left beside the store. */
  readonly left: readonly string[];
  readonly only?: StoreBackend;
}

const STATES: readonly State[] = [
  {
    what: "an incomplete new store is removed",
    make: (base) => {
      Deno.renameSync(`${base}.rekeyed`, `${base}.rekeying`);
      Deno.writeTextFileSync(`${base}.rekeying-journal`, "half a page");
    },
    opensWith: FIXTURE_KEY,
    left: [],
  },
  {
    what: "a complete new store whose swap had not begun is removed",
    make: () => {},
    opensWith: FIXTURE_KEY,
    left: [],
  },
  {
    what: "a database that has its old name already, too, keeps its place",
    make: (base) => Deno.linkSync(base, `${base}.old-1`),
    opensWith: FIXTURE_KEY,
    left: [],
    only: "sqlcipher",
  },
  {
    what: "a swap between its two steps is finished",
    make: (base) => Deno.renameSync(base, `${base}.old-1`),
    opensWith: OTHER_KEY,
    left: [".old-1"],
  },
  {
    what: "after the swap the old store is kept",
    make: (base) => {
      Deno.renameSync(base, `${base}.old-7`);
      Deno.renameSync(`${base}.rekeyed`, base);
    },
    opensWith: OTHER_KEY,
    left: [".old-7"],
  },
  {
    what: "a copy that was being checked is removed",
    make: (base) => Deno.renameSync(`${base}.rekeyed`, `${base}.checking`),
    opensWith: FIXTURE_KEY,
    left: [],
  },
];

for (const backend of Object.keys(DATA_PATHS) as StoreBackend[]) {
  for (const { what, make, opensWith, left, only } of STATES) {
    if (only !== undefined && only !== backend) continue;
    Deno.test(`${backend} store: ${what}`, async () => {
      await using folder = await beforeSwap(backend);
      make(folder.base);
      const keys = [FIXTURE_KEY, OTHER_KEY];
      const store = await openStore({ backend, dataDir: folder.path, keys, mustExist: true });
      assert.deepEqual(await store.oldStores(), left.map((suffix) => folder.base + suffix));
      assert.deepEqual(await store.checkIntegrity(() => {}), []);
      await store.close();
      const base = DATA_PATHS[backend];
      assert.deepEqual(namesIn(folder.path), [base, ...left.map((suffix) => base + suffix)]);
      const again = await openStore({ backend, dataDir: folder.path, keys: [opensWith], mustExist: true });
      assert.equal((await again.counts()).accounts, 2);
      await again.close();
    });
  }
}

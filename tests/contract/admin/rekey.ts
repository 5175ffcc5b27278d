/** Contract of AdminStore.rekey: the same store under another key. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { DATA_PATHS } from "../../../mod/store/open.ts";
import { StoreOpenError } from "../../../mod/store/store.ts";
import { fillFixture } from "../../support/make_store_fixture.ts";
import { rejectsWith } from "../../support/rejects.ts";
import { tempFolder } from "../../support/temp_folder.ts";
import { canMount, mountTmpfs } from "../../support/tmpfs.ts";
import type { World } from "../store/world.ts";
import {
  type AdminTest,
  assertSame,
  type Backend,
  digestOf,
  fill,
  GENEROUS,
  KEY,
  namesIn,
  OTHER_KEY,
  PASSPHRASE,
  Progress,
} from "./backend.ts";

const ignore = !await canMount();

async function assertWrongKey(backend: Backend, dataDir: string, key: string): Promise<void> {
  await assert.rejects(backend.open(dataDir, key), (error) => {
    return error instanceof StoreOpenError && error.problem === "wrongKey";
  });
}

/** Closes the store and opens it with `keys`. */
async function reopenWith(world: World, backend: Backend, ...keys: string[]): Promise<void> {
  await world.store.close();
  world.store = await backend.open(world.dataDir, ...keys);
}

/** Registers the tests. */
export function rekeyContract(test: AdminTest): void {
  test(
    "rekey() changes raw keys, passphrases and no key into one another, and keeps everything",
    async (world, backend) => {
      await fillFixture(world.store);
      const expected = await digestOf(world.store);
      let former = KEY;
      for (const key of [OTHER_KEY, PASSPHRASE, KEY, "", OTHER_KEY]) {
        const progress = new Progress();
        const { oldPath, bytes } = await world.store.rekey(key, progress.on);
        progress.assertWhole();
        assert.ok(bytes > 5000);
        await assertSame(world.store, expected);
        await world.store.close();
        await assertWrongKey(backend, world.dataDir, former);
        await using folder = await tempFolder();
        await Deno.rename(oldPath, join(folder.path, DATA_PATHS[backend.name]));
        const old = await backend.open(folder.path, former);
        await assertSame(old, expected);
        await old.close();
        world.store = await backend.open(world.dataDir, former, key);
        assert.deepEqual(await world.store.checkIntegrity(() => {}), []);
        await assertSame(world.store, expected);
        former = key;
      }
    },
  );

  test(
    "rekey() has writes wait and lets reads go on; what was written is under the new key",
    async (world, backend) => {
      const { sender, recipient } = await fill(world, { count: 300, bytes: 5000 });
      const begun = Promise.withResolvers<void>();
      const order: string[] = [];
      const rekeyed = world.store.rekey(OTHER_KEY, () => begun.resolve()).then(() => order.push("rekeyed"));
      await begun.promise;
      const written = world.send(sender, [recipient], { limits: GENEROUS }).then(() => order.push("written"));
      const read = world.entries(recipient).then((entries) => {
        assert.equal(entries.length, 300);
        order.push("read");
      });
      await Promise.all([rekeyed, written, read]);
      assert.equal(order[0], "read");
      await reopenWith(world, backend, OTHER_KEY);
      assert.equal((await world.entries(recipient)).length, 301);
    },
  );

  test("rekey() keeps the old store, which oldStores() names until it is removed", async (world, backend) => {
    await world.person();
    const first = await world.store.rekey(OTHER_KEY, () => {});
    const second = await world.store.rekey(KEY, () => {});
    assert.deepEqual(await world.store.oldStores(), [first.oldPath, second.oldPath]);
    await reopenWith(world, backend, KEY);
    assert.deepEqual(await world.store.oldStores(), [first.oldPath, second.oldPath]);
    for (const path of await world.store.oldStores()) await Deno.remove(path, { recursive: true });
    assert.deepEqual(await world.store.oldStores(), []);
    assert.deepEqual(namesIn(world.dataDir), [DATA_PATHS[backend.name]]);
  });

  test(
    "rekey() on a full disk is storeFull, leaves nothing, and the store goes on under its key",
    async (world, backend) => {
      await using folder = await tempFolder();
      await using disk = await mountTmpfs(folder.path, "64m");
      await world.store.close();
      world.store = await backend.open(folder.path);
      try {
        const { sender, recipient } = await fill(world, { count: 1500, bytes: 5000 });
        await world.store.close();
        world.store = await backend.open(folder.path);
        await disk.remount(`size=${Math.ceil(await world.store.diskBytes() / 1024) + 2048}k`);
        await rejectsWith(world.store.rekey(OTHER_KEY, () => {}), "storeFull");
        assert.deepEqual(namesIn(folder.path), [DATA_PATHS[backend.name]]);
        await world.send(sender, [recipient], { limits: GENEROUS });
        await world.store.close();
        world.store = await backend.open(folder.path, KEY);
        assert.equal((await world.entries(recipient)).length, 1501);
      } finally {
        await world.store.close();
      }
    },
    { ignore },
  );
}

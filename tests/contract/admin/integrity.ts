/** Contract of AdminStore.checkIntegrity, and of the rule that long verbs run one at a time. */
import assert from "node:assert/strict";
import { StoreBusyError } from "../../../mod/store/admin_store.ts";
import { fillFixture } from "../../support/make_store_fixture.ts";
import { rejectsWith } from "../../support/rejects.ts";
import { tempFolder } from "../../support/temp_folder.ts";
import { type AdminTest, damage, fill, namesIn, OTHER_KEY, Progress } from "./backend.ts";

/** Registers the tests. */
export function integrityContract(test: AdminTest): void {
  test("checkIntegrity() finds nothing wrong with a sound store, and leaves nothing behind", async (world) => {
    await fillFixture(world.store);
    const names = namesIn(world.dataDir);
    const progress = new Progress();
    assert.deepEqual(await world.store.checkIntegrity(progress.on), []);
    progress.assertWhole();
    assert.deepEqual(namesIn(world.dataDir), names);
  });

  test("checkIntegrity() finds one flipped bit, and the store goes on", async (world, backend) => {
    const { sender, recipient } = await fill(world, { count: 100, bytes: 5000 });
    await world.reopen();
    damage(backend, world.dataDir);
    assert.notDeepEqual(await world.store.checkIntegrity(() => {}), []);
    await world.send(sender, [recipient]);
  });

  test("a long verb beside another is refused, and the first goes on", async (world) => {
    await fill(world, { count: 300, bytes: 5000 });
    await using folder = await tempFolder();
    for (const long of ["rekey", "snapshotTo", "checkIntegrity"] as const) {
      const begin = {
        rekey: () => world.store.rekey(OTHER_KEY, () => {}),
        snapshotTo: () => world.store.snapshotTo(folder.path, () => {}),
        checkIntegrity: () => world.store.checkIntegrity(() => {}),
      };
      const first = begin[long]();
      for (const second of Object.values(begin)) await assert.rejects(second(), StoreBusyError);
      await first;
    }
    await rejectsNothing(world.store.checkIntegrity(() => {}));
  });

  test("close() ends a long verb, and the store is whole", async (world, backend) => {
    await fill(world, { count: 400, bytes: 5000 });
    const counts = await world.store.counts();
    for (const begin of ["rekey", "checkIntegrity"] as const) {
      const store = world.store;
      const long = begin === "rekey" ? store.rekey(OTHER_KEY, () => {}) : store.checkIntegrity(() => {});
      const ended = rejectsWith(long, "storeUnavailable");
      await store.close();
      await ended;
      await assert.rejects(store.checkIntegrity(() => {}));
      world.store = await backend.open(world.dataDir);
      assert.deepEqual(await world.store.counts(), counts);
    }
  });
}

async function rejectsNothing(problems: Promise<string[]>): Promise<void> {
  assert.deepEqual(await problems, []);
}

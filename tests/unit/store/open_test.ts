import assert from "node:assert/strict";
import { openStore, type StoreBackend } from "../../../mod/store/open.ts";
import { StoreOpenError } from "../../../mod/store/store.ts";
import { tempFolder } from "../../support/temp_folder.ts";
import { startStoreProcess } from "./sqlcipher/store_process.ts";

const KEY = "5f".repeat(32);
const BACKENDS: readonly StoreBackend[] = ["sqlcipher", "file"];

for (const backend of BACKENDS) {
  Deno.test(`openStore() opens the ${backend} backend, once at a time`, async () => {
    await using folder = await tempFolder();
    const options = { backend, dataDir: folder.path, keys: [KEY] };
    const store = await openStore(options);
    assert.equal(store.backend, backend);
    await assert.rejects(
      openStore(options),
      (error) =>
        error instanceof StoreOpenError && error.problem === "inUse" && error.message.includes(folder.path),
    );
    await store.writeMark(7);
    await store.close();
    await using again = await openStore({ ...options, mustExist: true });
    assert.equal(await again.writeMark(8), 7);
  });

  Deno.test(`openStore() refuses another backend's data instead of the ${backend} backend's`, async () => {
    await using folder = await tempFolder();
    const other = BACKENDS.find((name) => name !== backend)!;
    const open = (name: StoreBackend) => openStore({ backend: name, dataDir: folder.path, keys: [KEY] });
    await (await open(other)).close();
    await assert.rejects(open(backend), (error) => {
      assert.ok(error instanceof StoreOpenError);
      assert.match(error.message, new RegExp(`holds a store of the ${other} backend.*store_backend`));
      return true;
    });
    await (await open(other)).close();
  });

  Deno.test(`openStore() releases the folder when the ${backend} backend cannot be opened`, async () => {
    await using folder = await tempFolder();
    const options = { backend, dataDir: folder.path, keys: [KEY] };
    await assert.rejects(openStore({ ...options, mustExist: true }), StoreOpenError);
    await (await openStore(options)).close();
  });
}

Deno.test("openStore() is refused in a second process, which tells whose the folder is", async () => {
  await using folder = await tempFolder();
  await using _store = await openStore({ backend: "sqlcipher", dataDir: folder.path, keys: [KEY] });
  const second = startStoreProcess(folder.path, KEY, ["hold"]);
  await second.reached(1);
  await second.kill();
  assert.equal(second.lines.length, 1);
  assert.match(second.lines[0]!, new RegExp(`^inUse: .*process ${Deno.pid}`));
});

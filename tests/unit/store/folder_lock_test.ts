import assert from "node:assert/strict";
import { join } from "node:path";
import { lockFolder } from "../../../mod/store/folder_lock.ts";
import { StoreOpenError } from "../../../mod/store/store.ts";
import { tempFolder } from "../../support/temp_folder.ts";
import { startStoreProcess } from "./sqlcipher/store_process.ts";

const KEY = "5f".repeat(32);

function isInUseBy(pid: number, folder: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof StoreOpenError);
    assert.equal(error.problem, "inUse");
    assert.ok(error.message.includes(folder) && error.message.includes(`process ${pid}`), error.message);
    return true;
  };
}

Deno.test("lockFolder() refuses a second lock in the same process until the first is released", async () => {
  await using folder = await tempFolder();
  const lock = await lockFolder(folder.path);
  await assert.rejects(lockFolder(folder.path), isInUseBy(Deno.pid, folder.path));
  lock.release();
  lock.release();
  (await lockFolder(folder.path)).release();
});

Deno.test("lockFolder() refuses a folder that another process holds, and a killed one holds nothing", async () => {
  await using folder = await tempFolder();
  const holder = startStoreProcess(folder.path, KEY, ["hold"]);
  try {
    await holder.reached(1);
    assert.deepEqual(holder.lines, ["ready"]);
    await assert.rejects(lockFolder(folder.path), isInUseBy(holder.pid, folder.path));
  } finally {
    await holder.kill();
  }
  (await lockFolder(folder.path)).release();
});

Deno.test("lockFolder() leaves no doubt when the folder is missing", async () => {
  await using folder = await tempFolder();
  const missing = join(folder.path, "missing");
  await assert.rejects(
    lockFolder(missing),
    (error) =>
      error instanceof StoreOpenError && error.problem === "failed" && error.message.includes(missing),
  );
});

Deno.test(
  "lockFolder() tells of a folder that cannot be written",
  { ignore: Deno.build.os !== "linux" },
  async () => {
    // sysfs lets nobody make files, not even root.
    await assert.rejects(
      lockFolder("/sys/kernel"),
      (error) =>
        error instanceof StoreOpenError && error.problem === "readOnly" && /writable/.test(error.message),
    );
  },
);

import assert from "node:assert/strict";
import { join } from "node:path";
import { utf8, utf8Text } from "../../../mod/base/bytes.ts";
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

Deno.test(
  "release() also lets go of a lock that a child just forked still has a descriptor of",
  { ignore: Deno.build.os !== "linux" },
  async () => {
    await using folder = await tempFolder();
    const lock = await lockFolder(folder.path);
    // Between fork and exec a child has a copy of every descriptor, like this one.
    const libc = Deno.dlopen("libc.so.6", {
      readlink: { parameters: ["buffer", "buffer", "usize"], result: "isize" },
      dup: { parameters: ["i32"], result: "i32" },
      close: { parameters: ["i32"], result: "i32" },
    });
    const pathOf = (descriptor: number) => {
      const path = new Uint8Array(4096);
      const length = libc.symbols.readlink(utf8(`/proc/self/fd/${descriptor}\0`), path, 4096n);
      return utf8Text(path.subarray(0, Math.max(0, Number(length))));
    };
    const realPath = await Deno.realPath(join(folder.path, "lock"));
    const held = Array.from({ length: 4096 }, (_, descriptor) => descriptor).find((d) =>
      pathOf(d) === realPath
    )!;
    const copy = libc.symbols.dup(held);
    assert.ok(copy >= 0);
    try {
      lock.release();
      (await lockFolder(folder.path)).release();
    } finally {
      libc.symbols.close(copy);
      libc.close();
    }
  },
);

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

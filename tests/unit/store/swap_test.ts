/** swap.ts apart from any backend: a swap that fails leaves what was there, and old names are never used twice. */
import assert from "node:assert/strict";
import { join } from "node:path";
import {
  completeDraft,
  draftPath,
  findOldStores,
  putAside,
  type StoreBase,
  swapBack,
  swapIn,
} from "../../../mod/store/swap.ts";
import { tempFolder } from "../../support/temp_folder.ts";

const text = (...parts: string[]) => Deno.readTextFileSync(join(...parts));
const names = (folder: string) => [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();

for (const base of ["qpq.db", "journal"] as const satisfies readonly StoreBase[]) {
  Deno.test(`swapIn() of ${base} keeps the former, and swapBack() brings it back`, async () => {
    await using folder = await tempFolder();
    Deno.writeTextFileSync(join(folder.path, base), "old");
    Deno.writeTextFileSync(draftPath(folder.path, base), "new");
    await completeDraft(folder.path, base);
    const old = await swapIn(folder.path, base);
    assert.deepEqual([text(folder.path, base), text(old)], ["new", "old"]);
    await swapBack(folder.path, base, old);
    assert.equal(text(folder.path, base), "old");
    assert.deepEqual(names(folder.path), [base]);
  });

  Deno.test(`swapIn() of ${base} without a completed draft changes nothing`, async () => {
    await using folder = await tempFolder();
    Deno.writeTextFileSync(join(folder.path, base), "old");
    await assert.rejects(swapIn(folder.path, base), Deno.errors.NotFound);
    assert.equal(text(folder.path, base), "old");
    assert.deepEqual(names(folder.path), [base]);
  });
}

Deno.test("putAside() counts on from the highest number, and findOldStores() gives them in order", async () => {
  await using folder = await tempFolder();
  const paths = ["9", "10", "x"].map((end) => join(folder.path, `qpq.db.old-${end}`));
  for (const path of paths) Deno.writeTextFileSync(path, "older");
  Deno.writeTextFileSync(join(folder.path, "qpq.db"), "old");
  const put = await putAside(folder.path, "qpq.db");
  assert.deepEqual(await findOldStores(folder.path, "qpq.db"), [paths[0], paths[1], put]);
  assert.equal(put, join(folder.path, "qpq.db.old-11"));
});

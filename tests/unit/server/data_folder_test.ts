/** What killed writes leave in the data folder. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { makeFolders, removeTemporaryFiles } from "../../../mod/server/data_folder.ts";
import { tempFolder } from "../../support/temp_folder.ts";

Deno.test("removeTemporaryFiles() removes what writeFileAtomic() leaves, and nothing else", async () => {
  await using folder = await tempFolder();
  await makeFolders(folder.path);
  const left = [
    "rotations.json.0123abcd.tmp",
    "secrets/auth-token.deadbeef.tmp",
    "tls/server.pem.00000000.tmp",
  ];
  const others = ["notes.tmp", "qpq.db", "x.0123ABCD.tmp", ".0123abcd.tmp", "blobs/x.0123abcd.tmp"];
  for (const name of [...left, ...others]) await Deno.writeTextFile(join(folder.path, name), "");
  await Deno.symlink("/nowhere", join(folder.path, "link.0123abcd.tmp"));
  await Deno.mkdir(join(folder.path, "folder.0123abcd.tmp"));
  const removed = await removeTemporaryFiles(folder.path);
  assert.deepEqual(removed.sort(), left.map((name) => join(folder.path, name)).sort());
  for (const name of [...others, "link.0123abcd.tmp", "folder.0123abcd.tmp"]) {
    await Deno.lstat(join(folder.path, name));
  }
});

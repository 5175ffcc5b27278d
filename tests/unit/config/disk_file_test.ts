import assert from "node:assert/strict";
import { diskFile } from "../../../mod/config/disk_file.ts";

async function inFolder(work: (folder: string) => void): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("diskFile() reads text and permissions", () =>
  inFolder((folder) => {
    Deno.writeTextFileSync(`${folder}/a`, "text\n", { mode: 0o640 });
    Deno.chmodSync(`${folder}/a`, 0o640);
    const file = diskFile(`${folder}/a`)!;
    assert.deepEqual([file.text, file.mode! & 0o777], ["text\n", 0o640]);
  }));

Deno.test("diskFile() is null where nothing is", () =>
  inFolder((folder) => {
    Deno.writeTextFileSync(`${folder}/a`, "");
    assert.equal(diskFile(`${folder}/none`), null);
    assert.equal(diskFile(`${folder}/a/none`), null);
  }));

Deno.test("diskFile() throws for a folder and for what is too large", () =>
  inFolder((folder) => {
    assert.throws(() => diskFile(folder));
    Deno.writeFileSync(`${folder}/large`, new Uint8Array((1 << 20) + 1));
    assert.throws(() => diskFile(`${folder}/large`), RangeError);
  }));

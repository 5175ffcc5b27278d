/** The committed generated code is what generate.ts makes of the .proto files now. */
import assert from "node:assert/strict";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const GENERATE = join(ROOT, "mod/protocol/generate.ts");

/** Runs the generator with `folder` as its target; returns names and contents of what it made. */
async function generated(folder: string): Promise<Map<string, string>> {
  const args = ["run", "--quiet", "--no-lock", "--allow-all", GENERATE, folder];
  const { code, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  const files = new Map<string, string>();
  for await (const path of filesBelow(folder)) files.set(basename(path), await Deno.readTextFile(path));
  return files;
}

async function* filesBelow(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory) yield* filesBelow(path);
    else yield path;
  }
}

/** Committed `*_pb.ts` by file name. */
async function committed(): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for await (const path of filesBelow(join(ROOT, "mod"))) {
    if (path.endsWith("_pb.ts")) files.set(basename(path), await Deno.readTextFile(path));
  }
  return files;
}

Deno.test("generated code is fresh", async () => {
  const folder = await Deno.makeTempDir({ prefix: "qpq-generated-" });
  try {
    const [made, kept] = [await generated(folder), await committed()];
    assert.deepEqual([...made.keys()].sort(), [...kept.keys()].sort());
    for (const [name, text] of made) {
      assert.ok(text === kept.get(name), `${name} is stale: run deno task generate and commit the result`);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

import assert from "node:assert/strict";
import { join } from "node:path";
import { lastRotation, readRotations, recordRotation, versionOf } from "../../../mod/admin/rotate_history.ts";
import { tempFolder } from "../../support/temp_folder.ts";

const entry = (at: number) => ({ at, via: "stopped" as const, how: "by hand" });

Deno.test("recordRotation() counts versions from what the first start made", async () => {
  await using folder = await tempFolder();
  assert.equal(versionOf(await readRotations(folder.path), "tls"), 1);
  assert.equal(await recordRotation(folder.path, "tls", entry(10)), 2);
  assert.equal(await recordRotation(folder.path, "tls", entry(20)), 3);
  assert.equal(await recordRotation(folder.path, "federation", entry(30)), 1);
  const rotations = await readRotations(folder.path);
  assert.deepEqual(lastRotation(rotations, "tls"), { version: 3, ...entry(20) });
  assert.equal(lastRotation(rotations, "opaque"), null);
});

Deno.test("the history is bounded, the version goes on", async () => {
  await using folder = await tempFolder();
  const path = join(folder.path, "rotations.json");
  const tls = Array.from({ length: 100 }, (_, i) => ({ version: i + 2, ...entry(i) }));
  await Deno.writeTextFile(path, JSON.stringify({ format: 1, keys: { tls } }));
  assert.equal(await recordRotation(folder.path, "tls", entry(999)), 102);
  const kept = (await readRotations(folder.path)).tls!;
  assert.deepEqual([kept.length, kept[0]!.version, kept.at(-1)!.version], [100, 3, 102]);
});

Deno.test("a damaged history is put aside, and rotations go on", async () => {
  await using folder = await tempFolder();
  const path = join(folder.path, "rotations.json");
  await Deno.writeTextFile(path, '{"format": 1, "ke');
  assert.equal(await recordRotation(folder.path, "tls", entry(10)), 2);
  assert.equal(await Deno.readTextFile(`${path}.damaged`), '{"format": 1, "ke');
});

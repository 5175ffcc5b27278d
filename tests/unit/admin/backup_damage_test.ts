/** Backups that are damaged, cut off, changed or of another key: each is noticed, and nothing is restored. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { hex, randomBytes, utf8 } from "../../../mod/base/bytes.ts";
import { BackupKey } from "../../../mod/admin/backup_key.ts";
import { MANIFEST, MANIFEST_MAC } from "../../../mod/admin/backup_manifest.ts";
import { exists } from "../../../mod/base/files.ts";
import { listFiles } from "../../../mod/admin/backup_files.ts";
import { BACKENDS, BackupWorld, flipBit, namesIn } from "../../support/backup_world.ts";
import { prng } from "../../support/prng.ts";

/** Fails unless verify and restore both refuse the backup, and the restore leaves nothing. */
async function refused(world: BackupWorld, folder: string, why: RegExp): Promise<void> {
  const { ok, problems } = await world.verify(folder);
  assert.equal(ok, false, `${why} was not noticed`);
  assert.match((problems as string[]).join("\n"), why);
  await assert.rejects(world.restore(folder), why);
  assert.equal(await exists(world.path("restored")), false);
  assert.deepEqual((await world.inBackups()).filter((name) => name.startsWith(".")), []);
}

for (const backend of BACKENDS) {
  Deno.test(`${backend}: one flipped bit anywhere in a backup is noticed`, async () => {
    await using world = await BackupWorld.make(backend);
    await world.people();
    const folder = await world.backup();
    const random = prng(7);
    for (const path of await listFiles(folder)) {
      const { size } = await Deno.stat(join(folder, path));
      const last = path === MANIFEST_MAC ? size - 2 : size - 1;
      for (const at of new Set([0, Math.floor(random() * last), last])) {
        await flipBit(join(folder, path), at);
        await refused(world, folder, /damaged|changed|missing|was made under|not a backup|newer version/);
        await flipBit(join(folder, path), at);
      }
    }
    assert.equal((await world.verify(folder))["ok"], true);
  });

  Deno.test(`${backend}: a missing or cut off file is noticed, whichever it is`, async () => {
    await using world = await BackupWorld.make(backend);
    await world.people();
    const folder = await world.backup();
    for (const path of await listFiles(folder)) {
      const whole = await Deno.readFile(join(folder, path));
      await Deno.remove(join(folder, path));
      await refused(world, folder, /missing|is no backup/);
      await Deno.writeFile(join(folder, path), whole.subarray(0, whole.length - 2));
      await refused(world, folder, /damaged|instead of|has another size|is missing/);
      await Deno.writeFile(join(folder, path), whole);
    }
    assert.equal((await world.verify(folder))["ok"], true);
  });
}

Deno.test("a damaged blob is named, and the rest can be restored without it", async () => {
  await using world = await BackupWorld.make("file");
  const { blobs: [small, large] } = await world.people();
  const folder = await world.backup();
  // Linked to the server's own: replaced, as a bad disk would not damage both.
  const path = join(folder, "blobs", large!.slice(0, 2), large!.slice(2));
  const bytes = await Deno.readFile(path);
  await Deno.remove(path);
  bytes[5]! ^= 8;
  await Deno.writeFile(path, bytes);
  await refused(world, folder, new RegExp(`${large!.slice(2)} is damaged`));
  const restored = await world.restore(folder, { withoutDamagedBlobs: true });
  assert.deepEqual([restored["blobs"], restored["blobsLost"]], [1, 1]);
  const kept = join(world.path("restored"), "blobs");
  assert.equal(await exists(join(kept, small!.slice(0, 2), small!.slice(2))), true);
  assert.equal(await exists(join(kept, large!.slice(0, 2), large!.slice(2))), false);
});

Deno.test("another DB key is refused, with the ids of both", async () => {
  await using world = await BackupWorld.make("sqlcipher");
  await world.people();
  const folder = await world.backup();
  const realmId = JSON.parse(await Deno.readTextFile(join(folder, MANIFEST)))["realmId"];
  const right = await BackupKey.derive(world.key, realmId);
  const other = hex(randomBytes(32));
  await Deno.writeTextFile(world.path("data/secrets/db-key"), other);
  const wrong = await BackupKey.derive(other, realmId);
  assert.notEqual(right.id, wrong.id);
  await refused(
    world,
    folder,
    new RegExp(`made under the DB key ${right.id}, and the keys given are ${wrong.id}`),
  );
  await Deno.writeTextFile(world.path("data/secrets/db-key"), `${other}\n${world.key}\n`);
  assert.equal((await world.verify(folder))["ok"], true);
});

/** Changes the manifest as somebody could who has the key. */
async function forge(world: BackupWorld, folder: string, change: (manifest: Forged) => void): Promise<void> {
  const manifest = JSON.parse(await Deno.readTextFile(join(folder, MANIFEST)));
  change(manifest);
  const bytes = utf8(JSON.stringify(manifest));
  const key = await BackupKey.derive(world.key, manifest.realmId);
  await Deno.writeFile(join(folder, MANIFEST), bytes);
  await Deno.writeTextFile(join(folder, MANIFEST_MAC), hex(await key.mac(bytes)));
}

interface Forged {
  format: number;
  files: { path: string }[];
}

for (
  const path of [
    "../outside",
    "store/../../outside",
    "/etc/passwd",
    "store/",
    "store/.hidden",
    "store//qpq.db",
    "store/a/b/c/d",
    "manifest.json",
    "secrets/db-key",
    "store/qpq.db\0",
    "store\\qpq.db",
    "blobs/ab/cd",
  ]
) {
  Deno.test(`the path ${JSON.stringify(path)} in a manifest is refused`, async () => {
    await using world = await BackupWorld.make("file");
    const folder = await world.backup();
    await forge(world, folder, ({ files }) => {
      files.find((file) => file.path.startsWith("store/"))!.path = path;
    });
    await refused(world, folder, /the path .* has no place in a backup/);
  });
}

Deno.test("a backup of a newer format is refused as such", async () => {
  await using world = await BackupWorld.make("file");
  const folder = await world.backup();
  await forge(world, folder, (manifest) => manifest.format = 2);
  await refused(world, folder, /made by a newer version \(format 2\)/);
});

Deno.test("symbolic links in a backup are not followed, neither as files nor as folders", async () => {
  await using world = await BackupWorld.make("sqlcipher");
  const { blobs: [small] } = await world.people();
  const folder = await world.backup();
  const blobFolder = join(folder, "blobs", small!.slice(0, 2));
  for (const path of [join(folder, "store", "qpq.db"), join(folder, "store"), blobFolder]) {
    await Deno.rename(path, world.path("target"));
    await Deno.symlink(world.path("target"), path);
    await refused(world, folder, /is a symbolic link/);
    await Deno.remove(path);
    await Deno.rename(world.path("target"), path);
  }
  assert.deepEqual(await namesIn(world.path("")), ["data"]);
});

/** Backups of both backends: made, looked at, verified, restored. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { backupCreate, backupList, backupVerify } from "../../../mod/admin/backup_operations.ts";
import { createBackup } from "../../../mod/admin/backup.ts";
import { systemClock } from "../../../mod/base/clock.ts";
import { OperationRunner } from "../../../mod/admin/operations.ts";
import { AdminBusyError } from "../../../mod/admin/operations_error.ts";
import type { AdminContext } from "../../../mod/admin/operations.ts";
import type { LiveServer } from "../../../mod/admin/operations_live.ts";
import { BlobFiles, blobPlaces } from "../../../mod/store/blob_files.ts";
import { lockFolder } from "../../../mod/store/folder_lock.ts";
import { BACKENDS, BackupWorld, namesIn } from "../../support/backup_world.ts";
import { canMount, mountTmpfs } from "../../support/tmpfs.ts";

const ROOT = await canMount();

async function inode(path: string): Promise<number | null> {
  return (await Deno.stat(path)).ino;
}

function blobIn(folder: string, hash: string): string {
  return join(folder, "blobs", hash.slice(0, 2), hash.slice(2));
}

for (const backend of BACKENDS) {
  Deno.test(`${backend}: a backup is listed, verified, and restored into a folder that was not there`, async () => {
    await using world = await BackupWorld.make(backend);
    const { alice, blobs } = await world.people();
    const made = await world.run(backupCreate);
    assert.deepEqual(await world.inBackups(), [made["id"]]);
    const { backups } = await world.run(backupList) as { backups: Record<string, unknown>[] };
    assert.deepEqual([backups[0]!["id"], backups[0]!["accounts"], backups[0]!["blobs"]], [made["id"], 2, 2]);
    const verified = await world.run(backupVerify);
    assert.deepEqual([verified["ok"], verified["opened"], verified["problems"]], [true, true, []]);
    const restored = await world.restore(made["path"] as string);
    assert.equal(restored["blobs"], 2);
    await using store = await world.open(world.path("restored"));
    assert.ok(await store.findAccount(alice.accountId));
    assert.equal((await store.counts()).queueEntries, 1);
    for (const hash of blobs) {
      const bytes = await Deno.readFile(blobPlaces(world.path("restored"), hash)[0]!);
      assert.deepEqual(bytes, await Deno.readFile(blobPlaces(world.dataDir, hash)[0]!));
    }
  });

  Deno.test(`${backend}: nothing that was used comes back with a restore`, async () => {
    await using world = await BackupWorld.make(backend);
    const { alice } = await world.people();
    const before = await world.fill(({ store }) => Promise.resolve(store.incarnation));
    const path = await world.backup();
    await world.restore(path);
    await using store = await world.open(world.path("restored"));
    assert.notDeepEqual(store.incarnation, before);
    assert.equal((await store.counts()).keyPackages, 0);
    assert.equal(await store.findSession(alice.sessionId), null);
  });

  Deno.test(`${backend}: a backup holds no secret of the folder`, async () => {
    await using world = await BackupWorld.make(backend);
    await world.people();
    const folder = await world.backup();
    for await (const path of files(folder)) {
      const text = new TextDecoder("latin1").decode(await Deno.readFile(path));
      assert.ok(!text.includes(world.key), path);
    }
    assert.deepEqual(await namesIn(folder), [
      "blobs",
      "blobs.list",
      "manifest.json",
      "manifest.mac",
      "store",
    ]);
  });
}

async function* files(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) yield* files(join(folder, name));
    else yield join(folder, name);
  }
}

Deno.test("unchanged blobs cost nothing: they are links, to the server's file or the backup before", async () => {
  await using world = await BackupWorld.make("sqlcipher");
  const { blobs: [, large] } = await world.people();
  const first = await world.backup();
  const live = blobPlaces(world.dataDir, large!)[0]!;
  assert.equal(await inode(blobIn(first, large!)), await inode(live));
  // Another file with the same content: the next backup shares with the backup, not with it.
  const bytes = await Deno.readFile(live);
  await Deno.remove(live);
  await Deno.writeFile(live, bytes);
  const second = await world.run(backupCreate);
  assert.equal(await inode(blobIn(second["path"] as string, large!)), await inode(blobIn(first, large!)));
  assert.ok((second["sharedBytes"] as number) >= 300_000);
  await Deno.remove(first, { recursive: true });
  assert.equal((await world.verify(second["path"] as string))["ok"], true);
});

Deno.test("a blob that is deleted while a backup is made is in it, and its file goes afterwards", async () => {
  await using world = await BackupWorld.make("sqlcipher");
  const { alice, blobs: [small, large] } = await world.people();
  await using store = await world.open();
  const blobFiles = await BlobFiles.open(world.dataDir);
  const context: AdminContext = {
    via: "running",
    clock: systemClock,
    settings: world.settings(),
    store: () => Promise.resolve(store),
    storeKey: () => Promise.resolve(world.key),
    deviceRevokedNotice: () => assert.fail("nothing is revoked"),
    server: {
      keepDeletedBlobs: () => blobFiles.keepDeleted(),
      stopping: new AbortController().signal,
    } as unknown as LiveServer,
    async step(name) {
      if (name !== "store copied") return;
      for (const hash of [small!, large!]) {
        assert.deepEqual(await store.deleteBlobReference(hash, alice.accountId), { orphaned: true });
        await blobFiles.delete(hash);
        assert.equal(await blobFiles.size(hash), null);
      }
    },
  };
  const options = { backupsDir: world.path("elsewhere"), recipients: [] };
  const { folder, manifest } = await createBackup(context, options, () => {});
  assert.deepEqual([manifest.blobs.count, manifest.blobs.missing], [2, 0]);
  assert.equal((await world.verify(folder))["ok"], true);
  assert.deepEqual(await namesIn(join(world.dataDir, "blobs", "tmp")), []);
});

Deno.test("a blob that the server has lost is named as missing, and the rest is a good backup", async () => {
  await using world = await BackupWorld.make("file");
  const { blobs: [small, large] } = await world.people();
  await Deno.remove(blobPlaces(world.dataDir, small!)[0]!);
  const path = blobPlaces(world.dataDir, large!)[0]!;
  const bytes = await Deno.readFile(path);
  bytes[0]! ^= 1;
  await Deno.writeFile(path, bytes);
  const made = await world.run(backupCreate);
  assert.deepEqual([made["blobs"], made["blobsMissing"]], [0, 2]);
  assert.equal((await world.verify(made["path"] as string))["ok"], true);
  assert.equal((await world.restore(made["path"] as string))["blobsLost"], 2);
});

Deno.test("a second backup is refused while one is made, and leaves it alone", async () => {
  await using world = await BackupWorld.make("sqlcipher");
  await using store = await world.open();
  const reached = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  const context = {
    via: "running",
    clock: systemClock,
    settings: world.settings(),
    store: () => Promise.resolve(store),
    storeKey: () => Promise.resolve(world.key),
    server: { keepDeletedBlobs: () => async () => {}, stopping: new AbortController().signal },
    async step(name: string) {
      if (name !== "store copied") return;
      reached.resolve();
      await goOn.promise;
    },
  } as unknown as AdminContext;
  const runner = new OperationRunner(context);
  const first = runner.run(backupCreate, { input: {} });
  await reached.promise;
  await assert.rejects(runner.run(backupCreate, { input: {} }), AdminBusyError);
  goOn.resolve();
  const made = await first;
  assert.deepEqual(await world.inBackups(), [made["id"]]);
});

Deno.test("no backup is made of a folder that a server holds", async () => {
  await using world = await BackupWorld.make("sqlcipher");
  const lock = await lockFolder(world.dataDir);
  await assert.rejects(world.backup(), /is in use by process/);
  lock.release();
  assert.deepEqual(await world.inBackups(), []);
});

Deno.test("what a crash has left of a backup is removed by the next, and what is another server's stays", async () => {
  await using world = await BackupWorld.make("sqlcipher");
  const crash = Promise.withResolvers<void>();
  let left = "";
  // The process ends here: nothing after this step runs.
  const dying = world.run(backupCreate, {}, {
    async step(name) {
      if (name !== "sealed") return;
      left = (await world.inBackups())[0]!;
      await Deno.rename(join(world.dataDir, "backups", left), world.path("left"));
      crash.resolve();
    },
  });
  await crash.promise;
  await assert.rejects(dying);
  await Deno.rename(world.path("left"), join(world.dataDir, "backups", left));
  await Deno.mkdir(join(world.dataDir, "backups", ".making-00000000-00000000"));
  assert.match(left, /^\.making-/);
  assert.deepEqual((await world.run(backupList))["backups"], []);
  const made = await world.run(backupCreate);
  assert.deepEqual(await world.inBackups(), [".making-00000000-00000000", made["id"]]);
});

Deno.test({
  name: "on a full disk no backup is made, the service goes on, and nothing is left behind",
  ignore: !ROOT,
  async fn() {
    await using world = await BackupWorld.make("sqlcipher");
    await world.people([3_000_000]);
    await Deno.mkdir(world.path("small"));
    await using _disk = await mountTmpfs(world.path("small"), "2m");
    await assert.rejects(
      world.backup({ to: world.path("small") }),
      (error: Error) => /as the disk of .*small is full: free some space/.test(error.message),
    );
    assert.deepEqual(await namesIn(world.path("small")), []);
    await world.fill(async ({ store }) => assert.equal((await store.counts()).accounts, 2));
  },
});

Deno.test({
  name: "blobs are copied, and checked, where the file system is another",
  ignore: !ROOT,
  async fn() {
    await using world = await BackupWorld.make("file");
    const { blobs: [, large] } = await world.people();
    await Deno.mkdir(world.path("other"));
    await using _disk = await mountTmpfs(world.path("other"), "16m");
    const first = await world.run(backupCreate, { to: world.path("other") });
    assert.ok((first["newBytes"] as number) > 300_000);
    const second = await world.run(backupCreate, { to: world.path("other") });
    assert.ok((second["newBytes"] as number) < 100_000, "the second shares with the first");
    const [a, b] = [first, second].map((made) => blobIn(made["path"] as string, large!));
    assert.equal(await inode(a!), await inode(b!));
    assert.equal((await world.verify(second["path"] as string))["ok"], true);
  },
});

Deno.test("a dry run makes nothing", async () => {
  await using world = await BackupWorld.make("sqlcipher");
  await world.people();
  const plan = await world.run(backupCreate, { dryRun: true });
  assert.ok((plan["storeBytes"] as number) > 0 && (plan["blobBytes"] as number) > 300_000);
  assert.deepEqual(await world.inBackups(), []);
});

/** Restoring: into what, over what, with which revocations, and what a failure or a crash leaves. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { BackupKey } from "../../../mod/admin/backup_key.ts";
import { hashFile, listFiles } from "../../../mod/admin/backup_files.ts";
import { type Manifest, writeManifest } from "../../../mod/admin/backup_manifest.ts";
import { restored as restoredOperation } from "../../../mod/admin/backup_operations.ts";
import { AUDIT_LOG } from "../../../mod/admin/audit.ts";
import { exists } from "../../../mod/base/files.ts";
import { hex } from "../../../mod/base/bytes.ts";
import { lockFolder } from "../../../mod/store/folder_lock.ts";
import { openStore, type StoreBackend } from "../../../mod/store/open.ts";
import { RESTORE_MARK } from "../../../mod/store/restore_mark.ts";
import { REVOCATIONS_LOG } from "../../../mod/store/revocation_log.ts";
import { FIXTURE_FOLDER, FIXTURE_KEY } from "../../support/make_store_fixture.ts";
import { BACKENDS, BackupWorld, namesIn } from "../../support/backup_world.ts";
import { canMount, mountTmpfs } from "../../support/tmpfs.ts";

const ROOT = await canMount();

Deno.test("a folder that holds anything is refused, one with keys and backups put there is not", async () => {
  await using world = await BackupWorld.make("file");
  await world.people();
  const folder = await world.backup();
  const to = world.path("restored");
  await Deno.mkdir(join(to, "secrets"), { recursive: true });
  await Deno.mkdir(join(to, "backups"));
  await Deno.writeTextFile(join(to, "notes.txt"), "mine");
  await assert.rejects(world.restore(folder), /is not empty: it holds notes\.txt\. .*--force/);
  await assert.rejects(world.restore(folder, { dryRun: true }), /is not empty/);
  assert.deepEqual(await namesIn(to), ["backups", "notes.txt", "secrets"]);
  await Deno.remove(join(to, "notes.txt"));
  await world.restore(folder);
  assert.deepEqual(await namesIn(to), [
    "audit.log",
    "backups",
    "blobs",
    "journal",
    "lock",
    "secrets",
  ]);
  assert.match(await Deno.readTextFile(join(to, AUDIT_LOG)), /"operation":"backup restore"/);
});

Deno.test("the key that lies in the folder to restore into opens the backup", async () => {
  await using world = await BackupWorld.make("file");
  const folder = await world.backup();
  await Deno.mkdir(join(world.path("restored"), "secrets"), { recursive: true });
  await Deno.rename(world.path("data/secrets/db-key"), world.path("restored/secrets/db-key"));
  await world.restore(folder);
});

Deno.test("a dry run says what would be moved aside, and makes nothing", async () => {
  await using world = await BackupWorld.make("sqlcipher");
  const folder = await world.backup();
  const fresh = await world.restore(folder, { dryRun: true });
  assert.deepEqual(fresh["movesAside"], []);
  assert.equal(await exists(world.path("restored")), false);
  const over = await world.restore(folder, { dryRun: true, to: world.dataDir, force: true });
  assert.deepEqual(over["movesAside"], ["qpq.db", "blobs"]);
});

Deno.test("a folder that a server holds is refused, forced or not", async () => {
  await using world = await BackupWorld.make("sqlcipher");
  const folder = await world.backup();
  const lock = await lockFolder(world.dataDir);
  await assert.rejects(world.restore(folder, { to: world.dataDir, force: true }), /is in use by process/);
  lock.release();
  await (await world.open()).close();
});

for (const backend of BACKENDS) {
  Deno.test(`${backend}: with --force the former store and blobs are moved aside`, async () => {
    await using world = await BackupWorld.make(backend);
    const { alice } = await world.people();
    const folder = await world.backup();
    const later = await world.fill((people) => people.person({ userName: "later" }));
    const restored = await world.restore(folder, { to: world.dataDir, force: true });
    {
      await using store = await world.open();
      assert.ok(await store.findAccount(alice.accountId));
      assert.equal(await store.findAccount(later.accountId), null);
    }
    await using former = await world.open(restored["before"] as string);
    assert.ok(await former.findAccount(later.accountId));
  });

  Deno.test(`${backend}: what was taken away since the backup is taken away again`, async () => {
    await using world = await BackupWorld.make(backend);
    const made = await world.fill(async (people) => {
      people.now = Date.now() - 60_000;
      const alice = await people.person();
      const laptop = await people.device(alice);
      return {
        alice,
        laptop,
        gone: await people.person(),
        off: await people.person(),
        on: await people.person(),
      };
    });
    await world.fill(({ store }) => store.setAccountEnabled(made.on.accountId, false));
    const folder = await world.backup();
    await world.fill(async (people) => {
      const { store } = people;
      const { laptop, gone, off, on } = made;
      await store.revokeDevice(laptop.accountId, laptop.deviceId, people.notice(), Date.now());
      await store.deleteAccount(gone.accountId, Date.now());
      await store.setAccountEnabled(off.accountId, false);
      await store.setAccountEnabled(on.accountId, true);
    });
    const restored = await world.restore(folder, { revocations: join(world.dataDir, REVOCATIONS_LOG) });
    const { devicesRevoked, accountsDeleted, accountsDisabled, accountsEnabled } =
      restored["revocations"] as Record<
        string,
        number
      >;
    assert.deepEqual([devicesRevoked, accountsDeleted, accountsDisabled, accountsEnabled], [1, 1, 1, 1]);
    assert.ok(!(restored["notes"] as string[]).some((note) => /No revocations\.log/.test(note)));
    await using store = await world.open(world.path("restored"));
    const { alice, gone, off, on } = made;
    assert.deepEqual((await store.listDevices(alice.accountId)).map((one) => one.deviceId), [alice.deviceId]);
    assert.equal(await store.findAccount(gone.accountId), null);
    assert.equal((await store.findAccount(off.accountId))?.enabled, false);
    assert.equal((await store.findAccount(on.accountId))?.enabled, true);
  });

  Deno.test(`${backend}: a backup of an older schema is brought up to date`, async () => {
    await using world = await BackupWorld.make(backend);
    await Deno.writeTextFile(world.path("data/secrets/db-key"), FIXTURE_KEY);
    const folder = await olderBackup(world, backend);
    assert.equal((await world.verify(folder))["ok"], true);
    const restored = await world.restore(folder, { withoutDamagedBlobs: true });
    assert.equal(restored["schemaVersion"], 1);
    await using store = await world.open(world.path("restored"), FIXTURE_KEY);
    assert.equal((await store.counts()).accounts, restored["accounts"]);
    assert.equal((await store.counts()).keyPackages, 0);
  });
}

/** A backup as version 1 of the schema would have made it. */
async function olderBackup(world: BackupWorld, backend: StoreBackend): Promise<string> {
  const folder = join(world.dataDir, "backups", "20260101T000000Z-000000");
  const copy = world.path("copy");
  for (const target of [join(folder, "store"), copy]) {
    const source = new URL(`${backend}-v1/`, FIXTURE_FOLDER).pathname;
    for (const path of await listFiles(source)) {
      await Deno.mkdir(join(target, path, ".."), { recursive: true });
      await Deno.copyFile(join(source, path), join(target, path));
    }
  }
  const store = await openStore({ backend, dataDir: copy, keys: [FIXTURE_KEY] });
  const { realmId, incarnation } = store;
  const counts = await store.counts();
  const blobs = await store.listBlobs({ after: null, limit: 100 });
  await store.close();
  const list = blobs.map(({ hash }) => `missing 0 blobs/${hash.slice(0, 2)}/${hash.slice(2)}\n`);
  await Deno.writeTextFile(join(folder, "blobs.list"), list.join(""));
  const paths = await listFiles(folder);
  const files = await Promise.all(
    paths.map(async (path) => ({ path, ...await hashFile(join(folder, path)) })),
  );
  const manifest: Manifest = {
    format: 1,
    id: "20260101T000000Z-000000",
    createdAt: Date.UTC(2026, 0, 1),
    programVersion: "0.0.9",
    backend,
    schemaVersion: 1,
    incarnation: hex(incarnation),
    realmId,
    dbKeyId: (await BackupKey.derive(FIXTURE_KEY, realmId)).id,
    counts,
    encryption: null,
    blobs: { count: 0, bytes: 0, missing: blobs.length },
    files,
  };
  await writeManifest(folder, manifest, await BackupKey.derive(FIXTURE_KEY, realmId));
  return folder;
}

Deno.test("the log of revocations goes on over restores: an older backup after a newer one", async () => {
  await using world = await BackupWorld.make("file");
  const { alice, bob } = await world.people();
  const oldest = await world.backup();
  await world.fill(({ store }) => store.deleteAccount(bob.accountId, Date.now()));
  const newer = await world.backup();
  await world.restore(newer);
  // The data folder burns: what is left is the restored one, whose log came with the newer backup.
  const restored = await world.restore(oldest, { force: true });
  assert.equal((restored["revocations"] as Record<string, number>)["accountsDeleted"], 1);
  await using store = await world.open(world.path("restored"));
  assert.equal(await store.findAccount(bob.accountId), null);
  assert.ok(await store.findAccount(alice.accountId));
});

Deno.test("without a log of the time since, the report says what may be undone", async () => {
  await using world = await BackupWorld.make("file");
  const { notes } = await world.restore(await world.backup());
  assert.match((notes as string[]).join("\n"), /No revocations\.log of the time since .* may be back/);
});

Deno.test("an account that was registered again loses its former devices again, and is named", async () => {
  await using world = await BackupWorld.make("file");
  const { alice } = await world.people();
  const folder = await world.backup();
  await world.fill(async (people) => {
    const sha256 = new Uint8Array(32).fill(7);
    const now = Date.now();
    const invitation = {
      sha256,
      createdBy: null,
      forAccount: alice.accountId,
      expiresAt: now + 1e6,
      maxOpen: 9,
      now,
    };
    await people.store.createInvitation(invitation);
    const again = people.newAccount({ userName: alice.userName, invitationSha256: sha256, now });
    assert.equal((await people.store.createAccount(again)).status, "created");
  });
  const restored = await world.restore(folder, { to: world.dataDir, force: true });
  const revocations = restored["revocations"] as Record<string, unknown>;
  assert.deepEqual([revocations["accountsReset"], revocations["devicesRevoked"]], [[alice.userName], 1]);
  assert.match((restored["notes"] as string[]).join("\n"), new RegExp(`user reset' for ${alice.userName}`));
});

Deno.test("a failure in the middle of the swap puts everything back", async () => {
  await using world = await BackupWorld.make("sqlcipher");
  await world.people();
  const folder = await world.backup();
  await world.fill((people) => people.person({ userName: "later" }));
  const names = await namesIn(world.dataDir);
  const steps = await stepsOf(world, folder);
  for (let failing = 0; failing < steps; failing++) {
    let step = 0;
    const restoring = restoreOver(world, folder, async () => {
      if (step++ === failing) throw new Error("the disk is gone");
    });
    await assert.rejects(restoring, /the disk is gone/);
    assert.deepEqual(await namesIn(world.dataDir), names);
    await world.fill(async ({ store }) => assert.ok(await store.findAccountByName("later")));
  }
});

for (const backend of BACKENDS) {
  Deno.test(`${backend}: a crash anywhere in a restore leaves the old store, the new one, or one that is refused`, async () => {
    await using world = await BackupWorld.make(backend);
    await world.people();
    const folder = await world.backup();
    await world.fill((people) => people.person({ userName: "later" }));
    const crashed: string[] = [];
    // What the folder is like when the process ends there.
    await restoreOver(world, folder, async (name) => {
      const copy = world.path(`crash-${crashed.length}-${name.replaceAll(/\W+/g, "-").slice(0, 20)}`);
      await copyFolder(world.dataDir, copy);
      crashed.push(copy);
    });
    assert.ok(crashed.length >= 6, `${crashed.length} steps`);
    for (const copy of crashed) {
      if (await exists(join(copy, RESTORE_MARK))) {
        await assert.rejects(world.open(copy), /a restore into it was interrupted: run .*--force' again/);
      } else {
        await using store = await world.open(copy);
        assert.ok(await store.findAccountByName("later"), "nothing was moved yet");
      }
      await world.restore(join(copy, "backups", (await namesIn(join(copy, "backups")))[0]!), {
        to: copy,
        force: true,
      });
      await using store = await world.open(copy);
      assert.equal(await store.findAccountByName("later"), null);
      assert.equal((await store.counts()).accounts, 2);
      assert.ok(
        !(await namesIn(copy)).some((name) => name.startsWith(".restoring") || name === RESTORE_MARK),
      );
    }
  });
}

function restoreOver(world: BackupWorld, folder: string, step: (name: string) => Promise<void>) {
  return world.restore(folder, { to: world.dataDir, force: true }, { step });
}

async function stepsOf(world: BackupWorld, folder: string): Promise<number> {
  let steps = 0;
  const copy = world.path("counted");
  await copyFolder(world.dataDir, copy);
  await world.restore(folder, { to: copy, force: true }, {
    step: async () => {
      steps++;
    },
  });
  return steps;
}

async function copyFolder(from: string, to: string): Promise<void> {
  await Deno.mkdir(to);
  for (const { name, isDirectory } of await Array.fromAsync(Deno.readDir(from))) {
    if (isDirectory) await copyFolder(join(from, name), join(to, name));
    else await Deno.copyFile(join(from, name), join(to, name));
  }
}

Deno.test({
  name: "a full disk in the middle of a restore leaves the folder as it was",
  ignore: !ROOT,
  async fn() {
    await using world = await BackupWorld.make("file");
    await world.people([3_000_000]);
    const folder = await world.backup();
    await Deno.mkdir(world.path("restored"));
    await using _disk = await mountTmpfs(world.path("restored"), "1m");
    await assert.rejects(world.restore(folder), /Nothing was restored: .*(No space left|disk is full)/);
    assert.deepEqual(await namesIn(world.path("restored")), []);
  },
});

Deno.test("`restored` does to a copied folder what a restore does", async () => {
  await using world = await BackupWorld.make("sqlcipher");
  const { alice } = await world.people();
  const before = await world.fill(({ store }) => Promise.resolve(hex(store.incarnation)));
  const plan = await world.run(restoredOperation, { dryRun: true });
  assert.deepEqual([plan["keyPackagesDropped"], plan["incarnation"]], [3, before]);
  const done = await world.run(restoredOperation);
  assert.notEqual(done["incarnation"], before);
  await world.fill(async ({ store }) => {
    assert.equal(hex(store.incarnation), done["incarnation"]);
    assert.equal((await store.counts()).keyPackages, 0);
    assert.equal(await store.findSession(alice.sessionId), null);
  });
});

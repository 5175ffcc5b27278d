/**
 * A disk that is full at every stage of every piece of work: with no page free, with one, with two … reads go on,
 * what cannot be done is `storeFull` and has not happened, and with space again it is done, without a new start.
 * Needs a file system of its own, so root.
 */
import assert from "node:assert/strict";
import { statfs } from "node:fs/promises";
import { join } from "node:path";
import { hex, randomBytes, sha256 } from "../../mod/base/bytes.ts";
import { QpqError } from "../../mod/base/errors.ts";
import type { BlobHash } from "../../mod/base/ids.ts";
import { BlobFiles } from "../../mod/store/blob_files.ts";
import { DATA_PATHS, openStore, type StoreBackend } from "../../mod/store/open.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { canMount, mountTmpfs } from "../support/tmpfs.ts";
import { GENEROUS, KEY, OTHER_KEY } from "./admin/backend.ts";
import { type Person, plain, World } from "./store/world.ts";

const PAGE_BYTES = 4096;
const MESSAGES = 20;

/** A store on a small disk. */
interface Stage {
  readonly world: World;
  readonly person: Person;
  readonly folder: string;
}

/** A piece of work, and with how many free pages it is tried. */
interface Work {
  readonly pages: readonly number[];
  /** It may find room in the last page of a file that is there. */
  readonly small?: true;
  readonly run: (stage: Stage) => Promise<unknown>;
}

const WORK: Record<string, Work> = {
  enqueue: {
    pages: [0, 1, 2, 3, 5, 8, 13, 15, 16, 17, 21],
    run: ({ world, person }) => {
      const parts = [{ payload: randomBytes(60_000), recipients: [person.deviceId] }];
      return world.send(person, [], { parts, limits: GENEROUS });
    },
  },
  uploadKeyPackages: {
    pages: [0, 1, 2, 3, 5, 8],
    run: ({ world, person }) => world.upload(person, world.keyPackages(20), 10_000),
  },
  createAccount: { pages: [0, 1, 2, 4], small: true, run: ({ world }) => world.person() },
  ack: { pages: [0, 1, 2, 4], small: true, run: ({ world, person }) => world.store.ack(person.deviceId, 2) },
  "a blob": {
    pages: [0, 1, 2, 3, 31, 32, 33, 36, 37, 38, 40],
    run: ({ folder }) => putBlob(folder, randomBytes(150_000)),
  },
  snapshotTo: {
    pages: [0, 1, 2, 3, 8, 20, 50],
    run: async ({ world, folder }) => {
      await Deno.mkdir(join(folder, "copy"));
      await world.store.snapshotTo(join(folder, "copy"), () => {}).finally(() =>
        Deno.remove(join(folder, "copy"), { recursive: true })
      );
    },
  },
  rekey: {
    pages: [0, 1, 2, 3, 8, 20, 50],
    run: async ({ world }) => {
      for (const key of [OTHER_KEY, KEY]) {
        const { oldPath } = await world.store.rekey(key, () => {});
        await Deno.remove(oldPath, { recursive: true });
      }
    },
  },
};

async function putBlob(folder: string, bytes: Uint8Array): Promise<void> {
  const files = await BlobFiles.open(folder);
  const hash = hex(await sha256(bytes)) as BlobHash;
  const writer = await files.begin();
  try {
    await writer.write(bytes);
    await writer.finish({ hash, bytes: bytes.length });
    await writer.publish(hash);
    assert.ok(await files.isSound(hash));
    await files.delete(hash);
  } finally {
    await writer.abort();
  }
}

/** Takes all pages of the disk but `free`. */
async function fill(folder: string, free: number): Promise<string> {
  const path = join(folder, "filler");
  using file = await Deno.open(path, { write: true, create: true });
  const { bavail, bsize } = await statfs(folder);
  for (let left = Math.floor(bavail * bsize / PAGE_BYTES) - free; left > 0; left--) {
    await file.write(new Uint8Array(PAGE_BYTES));
  }
  return path;
}

/** Tries the work with so little space, and then with enough. */
async function tryWith(
  free: number,
  run: (stage: Stage) => Promise<unknown>,
  stage: Stage,
): Promise<boolean> {
  const { world, person, folder } = stage;
  const before = { entries: plain(await world.entries(person)), counts: await world.store.counts() };
  const filler = await fill(folder, free);
  const error = await run(stage).then(() => null, (reason) => reason);
  if (error !== null) {
    assert.ok(error instanceof QpqError && error.code === "storeFull", String(error));
    assert.deepEqual(plain(await world.entries(person)), before.entries, "reads go on, and nothing happened");
    assert.deepEqual(await world.store.counts(), before.counts);
  } else assert.ok((await world.entries(person)).length > 0);
  await Deno.remove(filler);
  if (error !== null) await run(stage);
  return error !== null;
}

const ignore = !await canMount();

for (const backend of Object.keys(DATA_PATHS) as StoreBackend[]) {
  for (const [name, { pages, small, run }] of Object.entries(WORK)) {
    Deno.test(`${backend} store: ${name} on a disk that is full at any stage`, { ignore }, async () => {
      await using folder = await tempFolder();
      await using _ = await mountTmpfs(folder.path, "16m");
      await using world = await World.make(() => {
        return openStore({ backend, dataDir: folder.path, keys: [KEY, OTHER_KEY] });
      });
      const person = await world.person();
      for (let sent = 0; sent < MESSAGES; sent++) {
        const parts = [{ payload: randomBytes(8000), recipients: [person.deviceId] }];
        await world.send(person, [], { parts, limits: GENEROUS });
      }
      let refused = 0;
      for (const free of pages) {
        // So that the log does not have room from before.
        await world.reopen();
        if (await tryWith(free, run, { world, person, folder: folder.path })) refused++;
      }
      assert.ok(small || refused > 0, "there was always enough space");
      assert.deepEqual(await world.store.checkIntegrity(() => {}), []);
      await world.reopen();
      assert.deepEqual(await world.store.checkIntegrity(() => {}), []);
    });
  }
}

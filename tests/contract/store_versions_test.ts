/**
 * Stores as every version of the program wrote them are opened, brought to this version and hold what they held; a
 * newer one is refused. Whoever raises a version adds its fixture (tests/support/make_store_fixture.ts).
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { connect } from "../../mod/store/sqlcipher/connect.ts";
import { DATA_PATHS, openStore, type StoreBackend } from "../../mod/store/open.ts";
import { StoreOpenError } from "../../mod/store/store.ts";
import { copyFolder } from "../support/copy_folder.ts";
import {
  contentOf,
  FIXTURE_FOLDER,
  FIXTURE_KEY,
  fixtureFolder,
  VERSIONS,
} from "../support/make_store_fixture.ts";
import { type TempFolder, tempFolder } from "../support/temp_folder.ts";

const open = (backend: StoreBackend, dataDir: string) => {
  return openStore({ backend, dataDir, keys: [FIXTURE_KEY], mustExist: true });
};

async function copyOfFixture(backend: StoreBackend, version: number): Promise<TempFolder> {
  const folder = await tempFolder();
  await copyFolder(fixtureFolder(backend, version), folder.path);
  return folder;
}

/** Changes the newest fixture into one of the next version. */
const MAKE_NEWER: Record<StoreBackend, (path: string) => Promise<void>> = {
  async sqlcipher(path) {
    const connection = connect(path, FIXTURE_KEY);
    connection.exec(`PRAGMA user_version = ${VERSIONS.sqlcipher + 1}`);
    connection.close();
  },
  async file(path) {
    const segment = join(path, "0000000001.segment");
    const bytes = await Deno.readFile(segment);
    new DataView(bytes.buffer).setUint16(8, VERSIONS.file + 1);
    const checksum = createHash("sha256").update(bytes.subarray(0, 112)).digest();
    bytes.set(checksum.subarray(0, 16), 112);
    await Deno.writeFile(segment, bytes);
  },
};

for (const backend of Object.keys(VERSIONS) as StoreBackend[]) {
  Deno.test(`every version of the ${backend} backend has a fixture`, async () => {
    const names = (await Array.fromAsync(Deno.readDir(FIXTURE_FOLDER))).map((entry) => entry.name);
    const wanted = Array.from({ length: VERSIONS[backend] }, (_, index) => `${backend}-v${index + 1}`);
    assert.deepEqual(names.filter((name) => name.startsWith(`${backend}-v`)).sort(), wanted.sort());
  });

  for (let version = 1; version <= VERSIONS[backend]; version++) {
    Deno.test(`a ${backend} store of version ${version} opens and holds what it held`, async () => {
      await using folder = await copyOfFixture(backend, version);
      const expected = await Deno.readTextFile(new URL("content.txt", FIXTURE_FOLDER));
      for (const _ of ["migrates", "opens again"]) {
        await using store = await open(backend, folder.path);
        assert.equal(store.schemaVersion, VERSIONS[backend]);
        assert.equal(await contentOf(store), expected);
        assert.deepEqual(await store.checkIntegrity(() => {}), []);
        assert.deepEqual(await store.accountsBySetup(), [{ setupId: 1, accounts: 2 }]);
      }
    });
  }

  Deno.test(`a ${backend} store of a newer version is refused and stays as it is`, async () => {
    await using folder = await copyOfFixture(backend, VERSIONS[backend]);
    await MAKE_NEWER[backend](join(folder.path, DATA_PATHS[backend]));
    const before = await contentOfFiles(folder.path);
    await assert.rejects(open(backend, folder.path), (error) => {
      assert.ok(error instanceof StoreOpenError);
      assert.equal(error.problem, "newerSchema");
      assert.match(error.message, /newer version/);
      return true;
    });
    assert.deepEqual(await contentOfFiles(folder.path), before);
  });
}

/** SHA-256 of the store's files by name. */
async function contentOfFiles(folder: string): Promise<Record<string, string>> {
  const sums: Record<string, string> = {};
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    const path = join(folder, name);
    if (isDirectory) Object.assign(sums, await contentOfFiles(path));
    else if (name !== "lock") {
      sums[path] = createHash("sha256").update(await Deno.readFile(path)).digest("hex");
    }
  }
  return sums;
}

/**
 * Bits that turn on the disk, anywhere in the files of a store: whatever is served afterwards is what was stored,
 * and the damage is told with the file it is in. Only the last write before the stop may be missing instead: when it
 * is damaged it cannot be told from one that a power cut has left incomplete.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { randomBytes } from "../../mod/base/bytes.ts";
import { QpqError } from "../../mod/base/errors.ts";
import { DATA_PATHS, openStore, type StoreBackend } from "../../mod/store/open.ts";
import { type Store, StoreOpenError } from "../../mod/store/store.ts";
import { copyFolder } from "../support/copy_folder.ts";
import { prng } from "../support/prng.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { KEY } from "./admin/backend.ts";
import { type Person, plain, World } from "./store/world.ts";

const FLIPS = 60;
const MESSAGES = 30;

type Entries = Awaited<ReturnType<World["entries"]>>;

/** What is served of a store, or the error in its place. */
async function served(store: Store, person: Person): Promise<Entries | QpqError> {
  const fetch = { deviceId: person.deviceId, after: 0, entriesMax: 1000, bytesMax: 1e9, now: 0 };
  try {
    return plain((await store.fetchAfter(fetch))?.entries ?? []);
  } catch (error) {
    assert.ok(error instanceof QpqError, String(error));
    return error;
  }
}

/** How the damage came to light; throws when it did not, or when something else was served. */
async function consequence(
  backend: StoreBackend,
  { dataDir, person, truth }: { dataDir: string; person: Person; truth: Entries },
): Promise<string> {
  const place = join(dataDir, DATA_PATHS[backend]);
  let store: Store;
  try {
    store = await openStore({ backend, dataDir, keys: [KEY], mustExist: true });
  } catch (error) {
    assert.ok(error instanceof StoreOpenError, String(error));
    assert.ok(error.path.startsWith(place) && error.message.includes(place), error.message);
    return "refused";
  }
  await using _ = store;
  const found = await served(store, person);
  if (found instanceof QpqError) {
    assert.ok(found.message.includes(place), found.message);
    return "told by the verb";
  }
  assert.deepEqual(found, truth.slice(0, found.length), "other entries than were stored");
  if (found.length === truth.length - 1) return "the last write is missing";
  assert.equal(found.length, truth.length, "entries are missing");
  const problems = await store.checkIntegrity(() => {}).catch((error) => [String(error)]);
  return problems.length > 0 ? "found by the check" : "without consequence";
}

/** A store with messages, each a write of its own, as a stop or a kill leaves it. */
async function makeStore(backend: StoreBackend, end: "stopped" | "killed") {
  await using world = await World.make((dataDir) => openStore({ backend, dataDir, keys: [KEY] }));
  const person = await world.signed(await world.person());
  await world.upload(person, world.keyPackages(20));
  for (let sent = 0; sent < MESSAGES; sent++) {
    const parts = [{ payload: randomBytes(3000), recipients: [person.deviceId] }];
    await world.send(person, [person], { parts });
  }
  const truth = plain(await world.entries(person));
  if (end === "stopped") await world.store.close();
  const folder = await tempFolder();
  await copyFolder(world.dataDir, folder.path);
  return { folder, person, truth };
}

/** Turns a bit of a file of the store; returns which. */
async function flip(dataDir: string, backend: StoreBackend, random: () => number): Promise<string> {
  const files: { path: string; bytes: number }[] = [];
  const folder = backend === "file" ? join(dataDir, DATA_PATHS.file) : dataDir;
  for await (const { name, isFile } of Deno.readDir(folder)) {
    if (!isFile || (backend === "sqlcipher" && !name.startsWith(DATA_PATHS.sqlcipher))) continue;
    files.push({ path: join(folder, name), bytes: (await Deno.stat(join(folder, name))).size });
  }
  files.sort((a, b) => a.path < b.path ? -1 : 1);
  let at = Math.floor(random() * files.reduce((sum, { bytes }) => sum + bytes, 0));
  const file = files.find(({ bytes }) => at < bytes || (at -= bytes, false))!;
  const content = await Deno.readFile(file.path);
  content[at]! ^= 1 << Math.floor(random() * 8);
  await Deno.writeFile(file.path, content);
  return `${file.path.slice(dataDir.length)} at ${at}`;
}

for (const backend of Object.keys(DATA_PATHS) as StoreBackend[]) {
  for (const end of ["stopped", "killed"] as const) {
    Deno.test(`${backend} store, ${end}: a flipped bit is told with its file and never served`, async () => {
      const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
      const random = prng(seed);
      const { folder, person, truth } = await makeStore(backend, end);
      await using _ = folder;
      let harmless = 0;
      for (let round = 0; round < FLIPS; round++) {
        await using copy = await tempFolder();
        await copyFolder(folder.path, copy.path);
        const where = await flip(copy.path, backend, random);
        try {
          const found = await consequence(backend, { dataDir: copy.path, person, truth });
          if (found === "without consequence") harmless++;
        } catch (cause) {
          throw new Error(`seed ${seed}, round ${round}, ${where}: ${cause}`, { cause });
        }
      }
      // After a stop nothing is there twice; a log that a kill has left stands for pages of the main file.
      assert.ok(harmless <= (end === "stopped" ? 0 : FLIPS / 2), `${harmless} flips were not noticed`);
    });
  }
}

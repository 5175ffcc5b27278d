/**
 * kill -9 in the middle of changes of key, snapshots and integrity checks, under writers, at random signs of
 * progress: the store opens with one of its keys, is sound, and holds every acknowledged message in order.
 */
import assert from "node:assert/strict";
import { utf8Text } from "../../mod/base/bytes.ts";
import { DATA_PATHS, openStore, type StoreBackend } from "../../mod/store/open.ts";
import { prng } from "../support/prng.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { fill, KEY, namesIn, OTHER_KEY } from "./admin/backend.ts";
import { World } from "./store/world.ts";

const ROUNDS = 6;
const PEOPLE_MESSAGES = 150;

interface Victim {
  readonly backend: StoreBackend;
  readonly dataDir: string;
  readonly copies: string;
  readonly people: unknown;
}

/** Runs the process until it has shown so many signs of progress; returns the number of the last sent message. */
async function runAndKill(victim: Victim, steps: number): Promise<number> {
  const { backend, dataDir, copies, people } = victim;
  const script = import.meta.resolve("../support/rekey_process.ts");
  const own = [backend, dataDir, copies, KEY, OTHER_KEY, JSON.stringify(people)];
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--frozen", "--no-check", "--cached-only", script, ...own],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let [text, killed] = ["", false];
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (killed || text.split("step\n").length <= steps) continue;
    child.kill("SIGKILL");
    killed = true;
  }
  const { success } = await child.status;
  assert.ok(killed && !success, text.slice(-500));
  const sent = [...text.matchAll(/^sent (\d+)\n/gm)];
  return Number(sent.at(-1)?.[1] ?? 0);
}

for (const backend of Object.keys(DATA_PATHS) as StoreBackend[]) {
  const options = { ignore: Deno.build.os === "windows" };
  Deno.test(`${backend} store: kill -9 during long verbs loses nothing`, options, async () => {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
    const random = prng(seed);
    const open = (dataDir: string) => openStore({ backend, dataDir, keys: [KEY, OTHER_KEY] });
    await using world = await World.make(open);
    const people = await fill(world, { count: PEOPLE_MESSAGES, bytes: 5000 });
    await using copies = await tempFolder();
    let acknowledged = 0;
    for (let round = 0; round < ROUNDS; round++) {
      await world.store.close();
      const steps = 1 + Math.floor(random() * 90);
      const victim = { backend, dataDir: world.dataDir, copies: copies.path, people };
      acknowledged = Math.max(acknowledged, await runAndKill(victim, steps));
      world.store = await open(world.dataDir);
      const told = `seed ${seed}, round ${round}, after ${steps} steps`;
      assert.deepEqual(await world.store.checkIntegrity(() => {}), [], told);
      const entries = await world.entries(people.recipient);
      assert.deepEqual(entries.map(({ seq }) => seq), entries.map((_, index) => index + 1), told);
      assert.ok(entries.length >= acknowledged, `${entries.length} of ${acknowledged}: ${told}`);
      for (const { payload, seq } of entries.slice(PEOPLE_MESSAGES)) {
        assert.equal(Number.parseInt(utf8Text(payload), 10), seq, told);
      }
      const old = await world.store.oldStores();
      assert.deepEqual(namesIn(world.dataDir).length, 1 + old.length, told);
      for (const path of old) await Deno.remove(path, { recursive: true });
    }
    assert.ok(acknowledged > PEOPLE_MESSAGES, "the process never wrote");
  });
}

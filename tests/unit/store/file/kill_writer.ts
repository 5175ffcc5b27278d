/** Run by kill_test.ts: enqueues to one queue for ever, from several sides, and says what was acknowledged. */
import { openFileStore } from "../../../../mod/store/file/mod.ts";
import { KEY, message, type Person } from "./support.ts";

const [dataDir, person, round] = Deno.args as [string, string, string];
const alice: Person = JSON.parse(person);
const store = await openFileStore({ dataDir, keys: [KEY], mustExist: true }, { segmentBytes: 30_000 });
const encoder = new TextEncoder();

async function side(number: number): Promise<void> {
  for (let i = 0;; i++) {
    const text = `${round}.${number}.${i}`;
    await store.enqueue(message(alice, [alice], text));
    Deno.stdout.writeSync(encoder.encode(`${text}\n`));
  }
}

await Promise.all(Array.from({ length: 8 }, (_, number) => side(number)));

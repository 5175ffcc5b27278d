/** kill -9 of a process that writes: everything that it acknowledged is there, in order and once. */
import { deepStrictEqual as equal, ok } from "node:assert/strict";
import { addPerson, fetchAll, type Person, TempFolder } from "./support.ts";

/** Has the writer run until it has acknowledged `count` messages, kills it, and returns all it acknowledged. */
async function writeAndKill(
  folder: TempFolder,
  alice: Person,
  { round, count }: { round: number; count: number },
) {
  const writer = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      import.meta.resolve("./kill_writer.ts"),
      folder.path,
      JSON.stringify(alice),
      `${round}`,
    ],
    stdout: "piped",
  }).spawn();
  let said = "";
  let killed = false; // what it had said before is still to be read
  for await (const text of writer.stdout.pipeThrough(new TextDecoderStream())) {
    said += text;
    if (killed || said.split("\n").length <= count) continue;
    writer.kill("SIGKILL");
    killed = true;
  }
  await writer.status;
  return said.split("\n").slice(0, -1);
}

Deno.test("kill -9 of a writer loses nothing that was acknowledged and repeats nothing", {
  ignore: Deno.build.os === "windows",
}, async () => {
  await using folder = new TempFolder();
  const store = await folder.open();
  const alice = await addPerson(store, "alice");
  await store.close();
  const acknowledged: string[] = [];
  for (let round = 0; round < 6; round++) {
    acknowledged.push(...await writeAndKill(folder, alice, { round, count: 20 + round * 67 }));
    await using reopened = await folder.open();
    const entries = await fetchAll(reopened, alice);
    const found = entries.map((entry) => new TextDecoder().decode(entry.payload));
    equal(entries.map((entry) => entry.seq), entries.map((_, index) => index + 1));
    equal(new Set(found).size, found.length, "none twice");
    const there = new Set(found);
    equal(acknowledged.filter((text) => !there.has(text)), [], "all there");
    for (let side = 0; side < 8; side++) {
      const own = found.filter((text) => text.startsWith(`${round}.${side}.`));
      equal(own, own.map((_, index) => `${round}.${side}.${index}`), "in order, without a gap");
    }
  }
  ok(acknowledged.length > 1000, String(acknowledged.length));
  ok(folder.names().some((name) => name.endsWith(".snapshot")), "snapshots were made on the way");
});

/** Opening after a crash and after damage: what is cut off, what is refused, and that refusing changes nothing. */
import { deepStrictEqual as equal, match, rejects } from "node:assert/strict";
import { createHash } from "node:crypto";
import { concat } from "../../../../mod/base/bytes.ts";
import { configureLogs, stopLogs } from "../../../../mod/base/log.ts";
import { StoreOpenError } from "../../../../mod/store/store.ts";
import { HEADER_BYTES } from "../../../../mod/store/file/header.ts";
import { addPerson, HookedDisk, KEY, message, osError, type Person, TempFolder, texts } from "./support.ts";

const SEGMENT = "0000000001.segment";

/** A closed store with three messages, each a batch, and where each batch ends in the segment. */
async function threeBatches(keys = [KEY]) {
  const folder = new TempFolder();
  const store = await folder.open({ keys });
  const alice = await addPerson(store, "alice");
  const ends: number[] = [];
  for (const text of ["one", "two", "three"]) {
    await store.enqueue(message(alice, [alice], text));
    ends.push(await store.diskBytes());
  }
  await store.close();
  return { folder, alice, ends: ends as [number, number, number], path: `${folder.journal}/${SEGMENT}` };
}

async function textsIn(folder: TempFolder, person: Person, keys = [KEY]): Promise<string[]> {
  await using store = await folder.open({ keys });
  return await texts(store, person);
}

async function problemIn(
  folder: TempFolder,
  options: Parameters<TempFolder["open"]>[0] = {},
): Promise<string> {
  try {
    await (await folder.open(options)).close();
    return "none";
  } catch (error) {
    return error instanceof StoreOpenError ? error.problem : String(error);
  }
}

for (const keys of [[KEY], [""]]) {
  Deno.test(`a last batch cut at any byte is cut off (${keys[0] ? "" : "un"}encrypted)`, async () => {
    const { folder, alice, ends, path } = await threeBatches(keys);
    await using _ = folder;
    const whole = Deno.readFileSync(path);
    for (let length = ends[1]; length < ends[2]; length++) {
      Deno.writeFileSync(path, whole.subarray(0, length));
      equal(await textsIn(folder, alice, keys), ["one", "two"], `cut at ${length}`);
      equal(Deno.statSync(path).size, ends[1]);
    }
  });
}

Deno.test("garbage and zeros behind the last batch are cut off", async () => {
  const { folder, alice, ends, path } = await threeBatches();
  await using _ = folder;
  const whole = Deno.readFileSync(path);
  for (
    const tail of [new Uint8Array(5000), new TextEncoder().encode("QREC".repeat(100)), whole.slice(-200)]
  ) {
    Deno.writeFileSync(path, new Uint8Array([...whole, ...tail]));
    equal(await textsIn(folder, alice), ["one", "two", "three"]);
    equal(Deno.statSync(path).size, ends[2]);
  }
});

Deno.test("cutting off a torn tail is logged with file and offset", async () => {
  const { folder, ends, path } = await threeBatches();
  await using _ = folder;
  Deno.truncateSync(path, ends[2] - 1);
  const lines: string[] = [];
  configureLogs({ filter: "warn", format: "json", write: (line) => void lines.push(line) });
  try {
    await (await folder.open()).close();
  } finally {
    stopLogs();
  }
  equal(lines.length, 1);
  match(lines[0]!, new RegExp(`cut ${ends[2] - 1 - ends[1]} bytes off .*${SEGMENT}.* at ${ends[1]}`));
});

Deno.test("what is written after a cut is there after the next start", async () => {
  const { folder, alice, ends, path } = await threeBatches();
  await using _ = folder;
  Deno.truncateSync(path, ends[2] - 1);
  const store = await folder.open();
  await store.enqueue(message(alice, [alice], "four"));
  await store.close();
  equal(await textsIn(folder, alice), ["one", "two", "four"]);
});

for (const keys of [[KEY], [""]]) {
  Deno.test(`a flipped bit before the last batch is damage (${keys[0] ? "" : "un"}encrypted)`, async () => {
    const { folder, ends, path } = await threeBatches(keys);
    await using _ = folder;
    const whole = Deno.readFileSync(path);
    for (let offset = 0; offset < ends[1]; offset += 3) {
      const damaged = whole.slice();
      damaged[offset]! ^= 1 << (offset % 8);
      Deno.writeFileSync(path, damaged);
      equal(await problemIn(folder, { keys }), "damaged", `at ${offset}`);
      equal(Deno.readFileSync(path), damaged, "nothing is changed");
    }
  });
}

Deno.test("a flipped bit in the last batch cuts it off: it cannot be told from a torn write", async () => {
  const { folder, alice, ends, path } = await threeBatches();
  await using _ = folder;
  const whole = Deno.readFileSync(path);
  for (let offset = ends[1]; offset < ends[2]; offset += 7) {
    const damaged = whole.slice();
    damaged[offset]! ^= 1;
    Deno.writeFileSync(path, damaged);
    equal(await textsIn(folder, alice), ["one", "two"], `at ${offset}`);
  }
});

Deno.test("batches that were swapped, repeated or taken out are damage", async () => {
  const { folder, ends, path } = await threeBatches();
  await using _ = folder;
  const whole = Deno.readFileSync(path);
  const head = whole.slice(0, ends[0]);
  const [second, third] = [whole.slice(ends[0], ends[1]), whole.slice(ends[1])];
  const orders = [[head, third, second], [head, second, second, third], [head, third], [
    head.slice(0, -1),
    second,
  ]];
  for (const parts of [...orders, [whole.slice(0, HEADER_BYTES), whole.slice(ends[0])]]) {
    Deno.writeFileSync(path, concat(...parts));
    equal(await problemIn(folder), "damaged");
  }
});

Deno.test("damage names the file, the offset and the remedy", async () => {
  const { folder, ends, path } = await threeBatches();
  await using _ = folder;
  const bytes = Deno.readFileSync(path);
  bytes[ends[0] + 40]! ^= 1;
  Deno.writeFileSync(path, bytes);
  await rejects(folder.open(), (error: StoreOpenError) => {
    match(error.message, new RegExp(`${SEGMENT} is damaged at offset ${ends[0]}; .*restore`));
    return error.path === path;
  });
});

Deno.test("an older segment that ends early is damage", async () => {
  await using folder = new TempFolder();
  const disk = new HookedDisk();
  const store = await folder.open({ disk });
  const alice = await addPerson(store, "alice");
  await store.enqueue(message(alice, [alice], "one"));
  const size = await store.diskBytes();
  // The snapshot fails, so that the next start needs both segments.
  disk.before = (call, path) => {
    if (call === "rename" && path.endsWith(".snapshot")) throw osError("EIO");
  };
  await store.compact();
  await store.enqueue(message(alice, [alice], "two"));
  await store.close();
  equal(folder.names(), [SEGMENT, "0000000002.segment"]);
  equal(await textsIn(folder, alice), ["one", "two"]);
  const whole = Deno.readFileSync(`${folder.journal}/${SEGMENT}`);
  for (let length = HEADER_BYTES; length < size; length += 5) {
    Deno.writeFileSync(`${folder.journal}/${SEGMENT}`, whole.subarray(0, length));
    equal(await problemIn(folder), "damaged", `cut at ${length}`);
  }
});

Deno.test("a missing segment or snapshot is damage", async () => {
  await using folder = new TempFolder();
  const store = await folder.open();
  const alice = await addPerson(store, "alice");
  await store.enqueue(message(alice, [alice], "one"));
  await store.compact();
  await store.close();
  equal(folder.names(), ["0000000002.segment", "0000000002.snapshot"]);
  for (const name of folder.names()) {
    await using copied = folder.copyJournal();
    Deno.removeSync(`${copied.journal}/${name}`);
    equal(await problemIn(copied), "damaged", name);
  }
});

Deno.test("a snapshot with any byte changed or cut is damage", async () => {
  await using folder = new TempFolder();
  const store = await folder.open();
  const alice = await addPerson(store, "alice");
  await store.enqueue(message(alice, [alice], "one"));
  await store.compact();
  await store.close();
  const path = `${folder.journal}/0000000002.snapshot`;
  const whole = Deno.readFileSync(path);
  for (let offset = 0; offset < whole.length; offset += 11) {
    const damaged = whole.slice();
    damaged[offset]! ^= 4;
    Deno.writeFileSync(path, damaged);
    equal(await problemIn(folder), "damaged", `changed at ${offset}`);
    Deno.writeFileSync(path, whole.subarray(0, offset));
    equal(await problemIn(folder), "damaged", `cut at ${offset}`);
  }
});

Deno.test("with the newest snapshot damaged, the one before is used while it is there", async () => {
  await using folder = new TempFolder();
  const disk = new HookedDisk();
  const store = await folder.open({ disk });
  const alice = await addPerson(store, "alice");
  disk.before = (call) => {
    if (call === "remove") throw osError("EIO");
  };
  for (const text of ["one", "two"]) {
    await store.enqueue(message(alice, [alice], text));
    await store.compact();
  }
  await store.enqueue(message(alice, [alice], "three"));
  await store.close();
  equal(folder.names().filter((name) => name.endsWith(".snapshot")).length, 2);
  const path = `${folder.journal}/0000000003.snapshot`;
  const bytes = Deno.readFileSync(path);
  bytes[HEADER_BYTES + 100]! ^= 1;
  Deno.writeFileSync(path, bytes);
  equal(await textsIn(folder, alice), ["one", "two", "three"]);
  await using again = await folder.open();
  await again.compact();
  equal(folder.names(), ["0000000004.segment", "0000000004.snapshot"]);
  equal(await texts(again, alice), ["one", "two", "three"]);
});

Deno.test("a store of a later version is newerSchema and stays as it is", async () => {
  const { folder, path } = await threeBatches();
  await using _ = folder;
  const bytes = Deno.readFileSync(path);
  bytes[9]! += 1;
  bytes.set(createHash("sha256").update(bytes.subarray(0, 112)).digest().subarray(0, 16), 112);
  Deno.writeFileSync(path, bytes);
  equal(await problemIn(folder), "newerSchema");
  equal(Deno.readFileSync(path), bytes);
});

Deno.test("a file of another store is damage, though it has the same key", async () => {
  await using one = new TempFolder();
  await using other = new TempFolder();
  for (const folder of [one, other]) {
    const store = await folder.open();
    await store.compact();
    await store.close();
  }
  const name = "0000000002.segment";
  Deno.copyFileSync(`${other.journal}/${name}`, `${one.journal}/${name}`);
  equal(await problemIn(one), "damaged");
});

for (const [code, problem] of [["EROFS", "readOnly"], ["EACCES", "readOnly"], ["EIO", "failed"]] as const) {
  Deno.test(`a segment that cannot be written (${code}) is ${problem}`, async () => {
    const { folder } = await threeBatches();
    await using _ = folder;
    const disk = new HookedDisk();
    disk.before = (call, path) => {
      if (call === "open" && path.startsWith("write")) throw osError(code);
    };
    equal(await problemIn(folder, { disk }), problem);
  });
}

Deno.test("making a store on a full disk is diskFull and leaves nothing that looks like a store", async () => {
  await using folder = new TempFolder();
  const disk = new HookedDisk();
  disk.before = (call) => {
    if (call === "write") throw osError("ENOSPC");
  };
  equal(await problemIn(folder, { disk }), "diskFull");
  equal(folder.names(), []);
  equal(await problemIn(folder), "none");
});

Deno.test("opening makes durable what a process that was killed had not synced", async () => {
  await using folder = new TempFolder();
  await (await folder.open()).close();
  const disk = new HookedDisk();
  const calls: string[] = [];
  disk.before = (call, path) => {
    if (call !== "read" && call !== "list") calls.push(`${call} ${path.replace(/.*\//, "")}`);
  };
  await using store = await folder.open({ disk });
  // Its last batch, and the name that a rename gave it: what is answered from them must survive a power cut.
  equal(calls.slice(-2), [`sync ${SEGMENT}`, "syncFolder journal"]);
  equal((await store.counts()).queueEntries, 0);
});

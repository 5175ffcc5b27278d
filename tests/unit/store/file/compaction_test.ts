/** Snapshots: what they keep, that verbs go on meanwhile, and a crash between any two steps. */
import { deepStrictEqual as equal, ok } from "node:assert/strict";
import { randomBytes } from "../../../../mod/base/bytes.ts";
import type { FileStore } from "../../../../mod/store/file/mod.ts";
import {
  addPerson,
  fetchAll,
  HookedDisk,
  message,
  NOW,
  osError,
  type Person,
  TempFolder,
  texts,
} from "./support.ts";

async function send(store: FileStore, person: Person, words: readonly string[]): Promise<void> {
  await Promise.all(words.map((text) => store.enqueue(message(person, [person], text))));
}

function numbered(from: number, count: number): string[] {
  return Array.from({ length: count }, (_, i) => `message ${from + i}`);
}

Deno.test("compact() keeps everything and deletes the old files", async () => {
  await using folder = new TempFolder();
  const store = await folder.open();
  const alice = await addPerson(store, "alice");
  await send(store, alice, numbered(1, 50));
  await store.ack(alice.deviceId, 40);
  await store.putBlobReference({
    hash: "ab".repeat(32) as never,
    owner: alice.accountId,
    bytes: 10,
    expiresAt: NOW + 1,
    quotaBytes: 100,
    dryRun: false,
    now: NOW,
  });
  const counts = await store.counts();
  await store.compact();
  equal(folder.names(), ["0000000002.segment", "0000000002.snapshot"]);
  equal(await texts(store, alice), numbered(41, 10));
  await store.close();
  await using reopened = await folder.open();
  equal(await reopened.counts(), counts);
  equal(await texts(reopened, alice), numbered(41, 10));
});

Deno.test("a segment that is mostly alive stays, without being replayed, until its payloads are gone", async () => {
  await using folder = new TempFolder();
  const store = await folder.open();
  const alice = await addPerson(store, "alice");
  await store.enqueue(message(alice, [alice], randomBytes(100_000)));
  await store.compact();
  equal(folder.names(), ["0000000001.segment", "0000000002.segment", "0000000002.snapshot"]);
  await store.close();
  const again = await folder.open();
  equal((await fetchAll(again, alice))[0]?.payload.length, 100_000);
  await again.ack(alice.deviceId, 1);
  await again.compact();
  equal(folder.names(), ["0000000003.segment", "0000000003.snapshot"]);
  await again.close();
});

Deno.test("the journal is compacted by itself and stays small while messages come and go", async () => {
  await using folder = new TempFolder();
  const store = await folder.open({ segmentBytes: 20_000 });
  const alice = await addPerson(store, "alice");
  for (let round = 0; round < 200; round++) {
    await store.enqueue(message(alice, [alice], randomBytes(1000), {
      limits: { ...message(alice, [], "").limits, idempotencyCountMax: 1 },
    }));
    await store.ack(alice.deviceId, round + 1);
  }
  await store.compact(); // waits for a run that is under way
  ok(await store.diskBytes() < 100_000, String(await store.diskBytes()));
  ok(Number(folder.names().at(-1)!.slice(0, 10)) > 5, folder.names().join());
  await store.close();
});

Deno.test("verbs go on while a snapshot is written, and all they do is kept", async () => {
  await using folder = new TempFolder();
  const disk = new HookedDisk();
  const store = await folder.open({ disk });
  const alice = await addPerson(store, "alice");
  await send(store, alice, numbered(1, 3000));
  let during = 0;
  let last = 3000;
  disk.before = async (call, path) => {
    if (call !== "write" || !path.endsWith(".snapshot.tmp")) return;
    during++;
    await store.ack(alice.deviceId, during * 100);
    await send(store, alice, numbered(last + 1, 10));
    last += 10;
  };
  await store.compact();
  disk.before = () => {};
  ok(during >= 4, `the snapshot took ${during} steps`);
  await store.close();
  await using reopened = await folder.open();
  equal(await texts(reopened, alice), numbered(during * 100 + 1, last - during * 100));
  equal((await reopened.counts()).queueEntries, last - during * 100);
});

/** Copies the folder before every call on the disk while `work` runs. */
async function copiesDuring(folder: TempFolder, disk: HookedDisk, work: () => Promise<void>) {
  const copies: { at: string; copy: TempFolder }[] = [];
  disk.before = (call, path) => {
    if (call !== "read") copies.push({ at: `${call} ${path.slice(-24)}`, copy: folder.copyJournal() });
  };
  await work();
  disk.before = () => {};
  return copies;
}

Deno.test("a crash before any step of a compaction loses nothing and leaves nothing behind", async () => {
  await using folder = new TempFolder();
  const disk = new HookedDisk();
  await using store = await folder.open({ disk });
  const alice = await addPerson(store, "alice");
  const bob = await addPerson(store, "bob");
  // Segment 1 stays for its large payload, segment 2 is sparse and moved, both have a snapshot before.
  await store.enqueue(message(alice, [bob], randomBytes(50_000)));
  await store.compact();
  await send(store, alice, numbered(1, 100));
  await store.ack(alice.deviceId, 95);
  const copies = await copiesDuring(folder, disk, () => store.compact());
  const steps = new Set(copies.map(({ at }) => at.split(" ")[0]));
  equal([...steps].sort(), ["list", "open", "remove", "rename", "sync", "syncFolder", "truncate", "write"]);
  for (const { at, copy } of copies) {
    await using _ = copy;
    const opened = await copy.open();
    equal(await texts(opened, alice), numbered(96, 5), at);
    equal((await fetchAll(opened, bob))[0]?.payload.length, 50_000, at);
    await opened.compact();
    await opened.enqueue(message(alice, [alice], "after"));
    await opened.close();
    const again = await copy.open();
    equal(await texts(again, alice), [...numbered(96, 5), "after"], at);
    await again.close();
    const names = copy.names();
    equal(names.filter((name) => name.endsWith(".tmp")), [], at);
    equal(names.filter((name) => name.endsWith(".snapshot")).length, 1, at);
  }
});

Deno.test("any step of a compaction may fail: the store goes on, and the next compaction succeeds", async () => {
  for (let failing = 0;; failing++) {
    await using folder = new TempFolder();
    const disk = new HookedDisk();
    const store = await folder.open({ disk });
    const alice = await addPerson(store, "alice");
    await send(store, alice, numbered(1, 20));
    await store.ack(alice.deviceId, 15);
    let call = 0;
    disk.partialBytes = 10;
    disk.before = (name) => {
      if (name !== "truncate" && call++ === failing) throw osError("ENOSPC");
    };
    await store.compact();
    disk.before = () => {};
    equal(await texts(store, alice), numbered(16, 5), `call ${failing}`);
    await send(store, alice, ["more"]);
    await store.close();
    const reopened = await folder.open();
    equal(await texts(reopened, alice), [...numbered(16, 5), "more"], `call ${failing}`);
    await reopened.compact();
    equal(folder.names().length, 2, `call ${failing}: ${folder.names()}`);
    equal(await texts(reopened, alice), [...numbered(16, 5), "more"], `call ${failing}`);
    await reopened.close();
    if (call <= failing) break;
  }
});

Deno.test("making a store: a crash before any step leaves no store or a whole one", async () => {
  await using folder = new TempFolder();
  Deno.mkdirSync(folder.journal);
  const disk = new HookedDisk();
  const copies = await copiesDuring(folder, disk, async () => await (await folder.open({ disk })).close());
  ok(copies.length >= 5);
  for (const { copy } of copies) {
    await using _ = copy;
    const store = await copy.open();
    await addPerson(store, "alice");
    await store.close();
    await (await copy.open({ mustExist: true })).close();
  }
});

Deno.test("close() in the middle of a compaction ends it, and nothing is lost", async () => {
  await using folder = new TempFolder();
  const store = await folder.open();
  const alice = await addPerson(store, "alice");
  await send(store, alice, numbered(1, 2000));
  const compacted = store.compact();
  await store.close();
  await compacted;
  await using reopened = await folder.open();
  equal((await reopened.counts()).queueEntries, 2000);
});

Deno.test("a fetch whose payload is moved away under it finds it again", async () => {
  await using folder = new TempFolder();
  const disk = new HookedDisk();
  const first = await folder.open();
  const alice = await addPerson(first, "alice");
  // Segment 1 is alive, segment 2 sparse. The fetch reads segment 1 first, and is held there.
  await first.enqueue(message(alice, [alice], randomBytes(50_000)));
  await first.compact();
  await send(first, alice, numbered(2, 100));
  await first.close();
  await using store = await folder.open({ disk });
  const { promise: held, resolve: release } = Promise.withResolvers<void>();
  disk.before = async (call, path) => {
    if (call === "open" && path.startsWith("read") && path.endsWith("1.segment")) await held;
  };
  const fetched = store.fetchAfter({
    deviceId: alice.deviceId,
    after: 0,
    entriesMax: 2,
    bytesMax: 2 ** 20,
    now: NOW,
  });
  await store.enqueue(message(alice, [alice], "")); // the fetch has found its entries when this is done
  await store.compact();
  equal(folder.names().includes("0000000002.segment"), false);
  release();
  equal((await fetched)?.entries.map((entry) => entry.payload.length), [50_000, "message 2".length]);
});

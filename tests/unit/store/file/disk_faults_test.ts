/** A disk that fails: verbs are refused and undone, reads go on, and it works again when the disk does. */
import { deepStrictEqual as equal, rejects } from "node:assert/strict";
import { addPerson, HookedDisk, message, NOW, osError, TempFolder, texts } from "./support.ts";

const FAULTS = [
  { call: "write", code: "ENOSPC", partialBytes: 0, problem: "storeFull" },
  { call: "write", code: "ENOSPC", partialBytes: 100, problem: "storeFull" },
  { call: "write", code: "EDQUOT", partialBytes: 100, problem: "storeFull" },
  { call: "write", code: "EIO", partialBytes: 100, problem: "storeUnavailable" },
  { call: "sync", code: "EIO", partialBytes: 0, problem: "storeUnavailable" },
  { call: "sync", code: "ENOSPC", partialBytes: 0, problem: "storeFull" },
] as const;

for (const { call, code, partialBytes, problem } of FAULTS) {
  Deno.test(`${code} at ${call} after ${partialBytes} bytes: ${problem}, nothing changed, works again`, async () => {
    await using folder = new TempFolder();
    const disk = new HookedDisk();
    const store = await folder.open({ disk });
    const alice = await addPerson(store, "alice");
    await store.enqueue(message(alice, [alice], "one"));
    const before = { counts: await store.counts(), cursor: await store.cursor(alice.deviceId) };
    disk.partialBytes = partialBytes;
    // The repair that follows a failed sync syncs too: only the first call fails.
    let failed = false;
    disk.before = (each) => {
      if (each !== call || failed) return;
      failed = true;
      throw osError(code);
    };
    const sent = message(alice, [alice], "two");
    await rejects(store.enqueue(sent), { code: problem });
    equal(await store.counts(), before.counts);
    equal(await store.cursor(alice.deviceId), before.cursor);
    equal(await texts(store, alice), ["one"]);
    const again = await store.enqueue(sent);
    equal(again.status === "accepted" && again.replayed, false);
    await store.close();

    await using reopened = await folder.open();
    equal(await texts(reopened, alice), ["one", "two"]);
  });
}

Deno.test("while the disk stays full every write is refused and every read answered", async () => {
  await using folder = new TempFolder();
  const disk = new HookedDisk();
  await using store = await folder.open({ disk });
  const alice = await addPerson(store, "alice");
  await store.enqueue(message(alice, [alice], "one"));
  disk.partialBytes = 37;
  disk.before = (call) => {
    if (call === "write") throw osError("ENOSPC");
  };
  for (let round = 0; round < 5; round++) {
    const results = await Promise.allSettled([
      store.writeMark(NOW),
      texts(store, alice),
      store.ack(alice.deviceId, 1),
      store.findAccountByName("alice"),
      store.ack(alice.deviceId, 0),
    ]);
    equal(results.map((result) => result.status), [
      "rejected",
      "fulfilled",
      "rejected",
      "fulfilled",
      "fulfilled",
    ]);
  }
  disk.before = () => {};
  equal((await store.ack(alice.deviceId, 1)).status, "acked");
  equal(await texts(store, alice), []);
});

Deno.test("a replay whose first request could not be written is refused, too", async () => {
  await using folder = new TempFolder();
  const disk = new HookedDisk();
  await using store = await folder.open({ disk });
  const alice = await addPerson(store, "alice");
  disk.before = (call) => {
    if (call === "write") throw osError("ENOSPC");
  };
  const sent = message(alice, [alice], "one");
  const results = await Promise.allSettled([
    store.enqueue(sent),
    store.enqueue(sent),
    store.cursor(alice.deviceId),
  ]);
  equal(results.map((result) => result.status), ["rejected", "rejected", "fulfilled"]);
  disk.before = () => {};
  const again = await store.enqueue(sent);
  equal(again.status === "accepted" && again.replayed, false);
});

Deno.test("what cannot be cut off at once is cut off before the next write", async () => {
  await using folder = new TempFolder();
  const disk = new HookedDisk();
  const store = await folder.open({ disk });
  const alice = await addPerson(store, "alice");
  const size = await store.diskBytes();
  disk.partialBytes = 50;
  disk.before = (call) => {
    if (call === "write" || call === "truncate") throw osError("EIO");
  };
  await rejects(store.writeMark(NOW), { code: "storeUnavailable" });
  equal(Deno.statSync(`${folder.journal}/0000000001.segment`).size, size + 50);
  disk.before = (call) => {
    if (call === "truncate") throw osError("EIO");
  };
  await rejects(store.writeMark(NOW), { code: "storeUnavailable" });
  disk.before = () => {};
  await store.enqueue(message(alice, [alice], "one"));
  await store.close();
  await using reopened = await folder.open();
  equal(await texts(reopened, alice), ["one"]);
});

Deno.test("a verb that fails inside changes nothing and does not take others with it", async () => {
  await using folder = new TempFolder();
  await using store = await folder.open();
  const alice = await addPerson(store, "alice");
  const broken = message(alice, [alice], "broken", { now: NOW + 0.5 }); // times are whole
  const results = await Promise.allSettled([
    store.enqueue(message(alice, [alice], "one")),
    store.enqueue(broken),
    store.enqueue(message(alice, [alice], "two")),
  ]);
  equal(results.map((result) => result.status), ["fulfilled", "rejected", "fulfilled"]);
  equal(await texts(store, alice), ["one", "two"]);
  equal((await store.counts()).queueEntries, 2);
});

Deno.test("a payload whose record is damaged is an error that names the place, not a wrong payload", async () => {
  await using folder = new TempFolder();
  await using store = await folder.open();
  const alice = await addPerson(store, "alice");
  const at = await store.diskBytes();
  await store.enqueue(message(alice, [alice], "one"));
  const path = `${folder.journal}/0000000001.segment`;
  const file = await Deno.open(path, { read: true, write: true });
  await file.seek(at + 41, Deno.SeekMode.Start);
  await file.write(new Uint8Array(2));
  file.close();
  await rejects(texts(store, alice), (error: Error) => error.message.includes(`${path} at ${at}`));
  equal((await store.ack(alice.deviceId, 1)).status, "acked");
});

Deno.test("a listener of onEnqueued gets the devices, after the sync, until it is ended", async () => {
  await using folder = new TempFolder();
  const disk = new HookedDisk();
  await using store = await folder.open({ disk });
  const alice = await addPerson(store, "alice");
  const events: string[] = [];
  disk.before = (call) => void (call === "sync" && events.push("sync"));
  const end = store.onEnqueued((devices) => {
    equal(devices, [alice.deviceId]);
    events.push("listener");
    throw new Error("must not end the store");
  });
  await store.enqueue(message(alice, [alice], "one"));
  await store.ack(alice.deviceId, 1);
  end();
  await store.enqueue(message(alice, [alice], "two"));
  equal(events, ["sync", "listener", "sync", "sync"]);
});

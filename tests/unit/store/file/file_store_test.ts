/** The file store as a whole: what is there after a restart, sharing batches, keys, bounds. */
import { deepStrictEqual as equal, rejects } from "node:assert/strict";
import { hex } from "../../../../mod/base/bytes.ts";
import { type AccountId, type DeviceId, randomId } from "../../../../mod/base/ids.ts";
import { StoreOpenError } from "../../../../mod/store/store.ts";
import {
  addDevice,
  addPerson,
  fetchAll,
  HookedDisk,
  KEY,
  LIMITS,
  message,
  NOW,
  TempFolder,
  texts,
} from "./support.ts";

Deno.test("openFileStore() finds everything again after a restart", async () => {
  await using folder = new TempFolder();
  const first = await folder.open();
  const alice = await addPerson(first, "alice");
  const bob = await addPerson(first, "bob");
  await first.enqueue(message(alice, [bob], "one"));
  await first.enqueue(message(alice, [bob, alice], "two"));
  await first.ack(bob.deviceId, 1);
  await first.writeMark(NOW);
  const { incarnation, realmId } = first;
  const counts = await first.counts();
  await first.close();

  await using second = await folder.open({ mustExist: true });
  equal(await texts(second, bob), ["two"]);
  equal(await texts(second, alice), ["two"]);
  equal((await second.cursor(bob.deviceId))?.ackedThrough, 1);
  equal((await second.findAccountByName("alice"))?.accountId, alice.accountId);
  equal(hex(second.incarnation), hex(incarnation));
  equal(second.realmId, realmId);
  equal(await second.counts(), counts);
  equal(await second.writeMark(NOW + 1), NOW);
});

Deno.test("concurrent verbs share one write and one sync", async () => {
  await using folder = new TempFolder();
  const disk = new HookedDisk();
  await using store = await folder.open({ disk });
  const alice = await addPerson(store, "alice");
  const calls: string[] = [];
  disk.before = (call) => void calls.push(call);
  await Promise.all(Array.from({ length: 100 }, (_, i) => store.enqueue(message(alice, [alice], `m${i}`))));
  equal(calls, ["write", "sync"]);
  equal(await texts(store, alice), Array.from({ length: 100 }, (_, i) => `m${i}`));
});

Deno.test("a verb resolves only after the sync", async () => {
  await using folder = new TempFolder();
  const disk = new HookedDisk();
  await using store = await folder.open({ disk });
  const events: string[] = [];
  disk.before = async (call) => {
    await Promise.resolve();
    events.push(call);
  };
  await store.writeMark(NOW).then(() => events.push("resolved"));
  equal(events, ["write", "sync", "resolved"]);
});

Deno.test("a read while a write is under way sees nothing that is not on disk", async () => {
  await using folder = new TempFolder();
  const disk = new HookedDisk();
  await using store = await folder.open({ disk });
  const alice = await addPerson(store, "alice");
  const { promise: gate, resolve: open } = Promise.withResolvers<void>();
  let synced = false;
  disk.before = async (call) => {
    if (call === "sync") {
      await gate;
      synced = true;
    }
  };
  const enqueued = store.enqueue(message(alice, [alice], "hello"));
  const read = store.cursor(alice.deviceId).then((cursor) => ({ cursor, synced }));
  open();
  await enqueued;
  equal((await read).synced, true);
});

Deno.test("enqueue() beyond the bound of all queues together is queueFull, notices pass", async () => {
  await using folder = new TempFolder();
  await using store = await folder.open({ queueEntriesMax: 3 });
  const alice = await addPerson(store, "alice");
  const bob = await addPerson(store, "bob");
  await store.enqueue(message(alice, [alice, bob], "one"));
  const result = await store.enqueue(message(alice, [alice, bob], "two"));
  equal(result.status === "accepted" && result.recipients, ["ok", "queueFull"]);
  equal((await store.cursor(bob.deviceId))?.droppedCount, 1);
  const second = { ...alice, deviceId: randomId<DeviceId>() };
  await addDevice(store, second);
  equal((await fetchAll(store, alice)).at(-1)?.kind, "notice");
});

Deno.test("openFileStore() opens with the first key that fits and keeps the store under it", async () => {
  await using folder = new TempFolder();
  await (await folder.open({ keys: ["pass phrase", KEY] })).close();
  await (await folder.open({ keys: [KEY, "pass phrase"] })).close();
  await rejects(folder.open({ keys: [KEY] }), (error) => problem(error) === "wrongKey");
  await (await folder.open({ keys: ["pass phrase"] })).close();
});

const KEYS = { raw: KEY, otherRaw: "f".repeat(64), word: "word", otherWord: "other", none: "" };

for (
  const [made, tried] of [
    ["raw", "otherRaw"],
    ["raw", "word"],
    ["word", "otherWord"],
    ["word", "raw"],
    ["none", "raw"],
    ["raw", "none"],
  ] as const
) {
  Deno.test(`openFileStore() says wrongKey: made with ${made}, opened with ${tried}`, async () => {
    await using folder = new TempFolder();
    await (await folder.open({ keys: [KEYS[made]] })).close();
    const before = folder.names();
    await rejects(folder.open({ keys: [KEYS[tried]] }), (error) => problem(error) === "wrongKey");
    equal(folder.names(), before);
  });
}

Deno.test("openFileStore() with mustExist makes nothing", async () => {
  await using folder = new TempFolder();
  await rejects(folder.open({ mustExist: true }), StoreOpenError);
  equal([...Deno.readDirSync(folder.path)], []);
});

Deno.test("an unencrypted store works and is recovered like any other", async () => {
  await using folder = new TempFolder();
  const first = await folder.open({ keys: [""] });
  const alice = await addPerson(first, "alice");
  await first.enqueue(message(alice, [alice], "clear"));
  await first.close();
  await using second = await folder.open({ keys: [""] });
  equal(await texts(second, alice), ["clear"]);
});

Deno.test("no payload, name or id of an encrypted store is on disk in clear", async () => {
  await using folder = new TempFolder();
  const store = await folder.open();
  const alice = await addPerson(store, "alice-the-quiet");
  await store.enqueue(message(alice, [alice], "nobody may read this"));
  await store.compact();
  await store.enqueue(message(alice, [alice], "nobody may read this"));
  await store.close();
  for (const name of folder.names()) {
    const text = new TextDecoder("latin1").decode(Deno.readFileSync(`${folder.journal}/${name}`));
    for (const planted of ["alice-the-quiet", "nobody may", "phone of", latin1(alice.accountId)]) {
      equal(text.includes(planted), false, `${planted} in ${name}`);
    }
  }
});

Deno.test(
  "files of the journal are for their owner only",
  { ignore: Deno.build.os === "windows" },
  async () => {
    await using folder = new TempFolder();
    const store = await folder.open();
    await store.compact();
    await store.close();
    equal(Deno.statSync(folder.journal).mode! & 0o777, 0o700);
    for (const name of folder.names()) {
      equal(Deno.statSync(`${folder.journal}/${name}`).mode! & 0o777, 0o600);
    }
  },
);

Deno.test("close() finishes what was accepted; verbs afterwards are refused", async () => {
  await using folder = new TempFolder();
  const store = await folder.open();
  const alice = await addPerson(store, "alice");
  const last = store.enqueue(message(alice, [alice], "last"));
  const read = fetchAll(store, alice);
  await Promise.all([store.close(), store.close()]);
  equal((await last).status, "accepted");
  equal((await read).length, 1);
  await rejects(store.writeMark(NOW), { code: "storeUnavailable" });
});

Deno.test("a message id is remembered across a restart", async () => {
  await using folder = new TempFolder();
  const first = await folder.open();
  const alice = await addPerson(first, "alice");
  const sent = message(alice, [alice], "once");
  await first.enqueue(sent);
  await first.close();
  await using second = await folder.open();
  const again = await second.enqueue(sent);
  equal(again.status === "accepted" && again.replayed, true);
  const other = await second.enqueue({ ...sent, requestSha256: new Uint8Array(32) });
  equal(other.status, "idConflict");
  equal(await texts(second, alice), ["once"]);
});

Deno.test("enqueue() forgets a device's oldest message ids beyond the count", async () => {
  await using folder = new TempFolder();
  await using store = await folder.open();
  const alice = await addPerson(store, "alice");
  const limits = { ...LIMITS, idempotencyCountMax: 2 };
  const sent = ["a", "b", "c"].map((text) => message(alice, [alice], text, { limits }));
  for (const each of sent) await store.enqueue(each);
  const replayed = [];
  for (const each of [sent[2]!, sent[1]!, sent[0]!]) {
    const result = await store.enqueue(each);
    replayed.push(result.status === "accepted" && result.replayed);
  }
  equal(replayed, [true, true, false]);
});

function problem(error: unknown): string {
  return error instanceof StoreOpenError ? error.problem : String(error);
}

function latin1(id: AccountId): string {
  return new TextDecoder("latin1").decode(Uint8Array.fromHex(id));
}

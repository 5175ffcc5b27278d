/** Batches: one bad verb fails alone, a full disk is told as such and goes by, a lost connection comes back. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { QpqError } from "../../../../mod/base/errors.ts";
import type { Store } from "../../../../mod/store/store.ts";
import { BatchRunner } from "../../../../mod/store/sqlcipher/batch.ts";
import { openDatabase } from "../../../../mod/store/sqlcipher/open_database.ts";
import { openSqlcipherStore } from "../../../../mod/store/sqlcipher/mod.ts";
import type { Call, Outcome } from "../../../../mod/store/sqlcipher/wire.ts";
import { type OpenStore, World } from "../../../contract/store/world.ts";
import { tempFolder } from "../../../support/temp_folder.ts";
import { canMount, mountTmpfs } from "../../../support/tmpfs.ts";

const KEY = "5f".repeat(32);
const open: OpenStore = (dataDir) => openSqlcipherStore({ dataDir, keys: [KEY] });

const failedWith = (code: string) => (error: unknown) => error instanceof QpqError && error.code === code;

Deno.test("a verb that throws fails alone, and the others of its batch are done in order", async () => {
  await using world = await World.make(open);
  const [sender, person] = [await world.person(), await world.person()];
  const bad = world.newSession(sender.accountId, { deviceName: null as unknown as string });
  const calls = [
    world.send(sender, [person]),
    world.store.createSession(bad),
    world.send(sender, [person]),
    world.store.ack(person.deviceId, 1),
    world.store.touchSession("no id" as typeof sender.sessionId, world.now),
    world.send(sender, [person]),
  ];
  const results = await Promise.allSettled(calls);
  assert.deepEqual(results.map(({ status }) => status), [
    ...["fulfilled", "rejected", "fulfilled", "fulfilled", "rejected", "fulfilled"],
  ]);
  for (const result of results) {
    if (result.status === "rejected") assert.ok(failedWith("storeUnavailable")(result.reason));
  }
  assert.deepEqual(await world.seqs(person), [2, 3]);
  assert.equal((await world.store.listDevices(sender.accountId)).length, 1);
  assert.equal((await world.store.counts()).queueEntries, 2);
});

Deno.test("an id that is not hexadecimal fails before the batch, and alone", async () => {
  await using world = await World.make(open);
  const [sender, person] = [await world.person(), await world.person()];
  const bad = world.message(sender, [person], { messageId: "not hexadecimal" as never });
  const results = await Promise.allSettled([world.send(sender, [person]), world.store.enqueue(bad)]);
  assert.deepEqual(results.map(({ status }) => status), ["fulfilled", "rejected"]);
  assert.deepEqual(await world.seqs(person), [1]);
});

/** Sends 50 kB messages until one is refused for lack of space; returns how many were taken. */
async function fillUp(world: World, people: { sender: Parameters<World["send"]>[0] }): Promise<number> {
  const payload = crypto.getRandomValues(new Uint8Array(50_000));
  const parts = [{ payload, recipients: [people.sender.deviceId] }];
  for (let sent = 0; sent < 10_000; sent++) {
    try {
      await world.send(people.sender, [], { parts });
    } catch (error) {
      assert.ok(failedWith("storeFull")(error), String(error));
      return sent;
    }
  }
  throw new Error("The disk was never full");
}

const withMounts = { ignore: !await canMount() };
Deno.test(
  "a full disk refuses writes as storeFull, reads go on, and space makes it work again",
  withMounts,
  async () => {
    await using folder = await tempFolder();
    await using mount = await mountTmpfs(folder.path, "4m");
    await using store = await open(folder.path);
    await using world = await World.make(() => Promise.resolve(store));
    const sender = await world.person();
    const sent = await fillUp(world, { sender });
    assert.ok(sent > 10);
    const many = await Promise.allSettled(Array.from({ length: 20 }, () => fillUp(world, { sender })));
    assert.ok(many.every((result) => result.status === "fulfilled"));
    const before = await world.store.counts();
    assert.equal((await world.entries(sender)).length, before.queueEntries);
    await mount.remount("size=32m");
    await world.send(sender, [sender]);
    await world.store.ack(sender.deviceId, 5);
    assert.equal((await world.store.counts()).queueEntries, before.queueEntries + 1 - 5);
  },
);

/** A runner on a database of its own, without the worker around it. */
async function makeRunner() {
  const folder = await tempFolder();
  const { connection, reopen } = openDatabase({ dataDir: folder.path, keys: [KEY] });
  const runner = new BatchRunner(connection, reopen);
  const run = (...calls: Call[]): readonly Outcome[] => runner.run(calls, new ArrayBuffer(0)).outcomes;
  return {
    connection,
    path: join(folder.path, "qpq.db"),
    run,
    [Symbol.asyncDispose]: async () => {
      runner.close();
      await folder[Symbol.asyncDispose]();
    },
  };
}

const setup = (bytes: number): Call => ({
  verb: "initOpaqueSetup",
  args: [{ suiteId: 1, secret: new Uint8Array(bytes).fill(1), createdAt: 1 }],
});
const mark = (now: number): Call => ({ verb: "writeMark", args: [now] });

Deno.test("SQLITE_FULL refuses the one verb that needs space, and goes by", async () => {
  await using runner = await makeRunner();
  const pages = Number(runner.connection.value("PRAGMA page_count"));
  runner.connection.exec(`PRAGMA max_page_count = ${pages + 2}`);
  const [before, full, after, setups] = runner.run(mark(1), setup(100_000), mark(2), {
    verb: "opaqueSetups",
    args: [],
  });
  assert.deepEqual([before, after], [{ value: null }, { value: 1 }]);
  assert.deepEqual(setups, { value: [] });
  assert.ok("failure" in full! && full.failure.code === "storeFull");
  runner.connection.exec(`PRAGMA max_page_count = ${pages + 100}`);
  const [again] = runner.run(setup(100_000));
  assert.ok("value" in again! && (again.value as Awaited<ReturnType<Store["initOpaqueSetup"]>>).added);
});

Deno.test("a page that cannot be read fails the verb, and the connection comes back for the others", async () => {
  await using runner = await makeRunner();
  runner.run(setup(1000), mark(1));
  runner.connection.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  const root = Number(
    runner.connection.value("SELECT rootpage FROM sqlite_schema WHERE name = 'opaque_setups'"),
  );
  const file = Deno.openSync(runner.path, { write: true });
  file.seekSync((root - 1) * 4096 + 100, Deno.SeekMode.Start);
  file.writeSync(new Uint8Array(100));
  file.close();
  // Empties the page cache, as a restart would.
  runner.connection.exec("PRAGMA shrink_memory");
  const [setups, marked] = runner.run({ verb: "opaqueSetups", args: [] }, mark(2));
  assert.ok("failure" in setups! && setups.failure.code === "storeUnavailable");
  assert.deepEqual(marked, { value: 1 });
  assert.deepEqual(runner.run(mark(3)), [{ value: 2 }]);
});

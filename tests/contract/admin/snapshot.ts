/** Contract of AdminStore.snapshotTo: one moment, under the same key, while everybody goes on. */
import assert from "node:assert/strict";
import { randomBytes, utf8, utf8Text } from "../../../mod/base/bytes.ts";
import { rejectsWith } from "../../support/rejects.ts";
import { tempFolder } from "../../support/temp_folder.ts";
import { canMount, mountTmpfs } from "../../support/tmpfs.ts";
import { StoreOpenError } from "../../../mod/store/store.ts";
import { fillFixture } from "../../support/make_store_fixture.ts";
import type { Person, World } from "../store/world.ts";
import {
  type AdminTest,
  assertSame,
  digestOf,
  fill,
  GENEROUS,
  namesIn,
  OTHER_KEY,
  Progress,
} from "./backend.ts";

const ignore = !await canMount();

/** Sends numbered messages to two queues, each when the one before is acknowledged, until `until` resolves. */
async function sendNumbered(
  world: World,
  { sender, to }: { sender: Person; to: readonly Person[] },
  until: Promise<unknown>,
): Promise<number> {
  let over = false;
  until.finally(() => over = true).catch(() => {});
  const recipients = to.map((person) => person.deviceId);
  for (let number = 1;; number++) {
    const payload = new Uint8Array(2000);
    payload.set(utf8(`${number} `));
    await world.send(sender, [], { parts: [{ payload, recipients }], limits: GENEROUS });
    if (over) return number;
  }
}

const numberIn = (payload: Uint8Array) => Number.parseInt(utf8Text(payload), 10);

/** Registers the tests. */
export function snapshotContract(test: AdminTest): void {
  test("snapshotTo() writes a data folder that opens and holds the same", async (world, backend) => {
    await fillFixture(world.store);
    const expected = await digestOf(world.store);
    await using folder = await tempFolder();
    const progress = new Progress();
    const { files, counts, schemaVersion } = await world.store.snapshotTo(folder.path, progress.on);
    progress.assertWhole();
    assert.equal(schemaVersion, world.store.schemaVersion);
    for (const file of files) assert.ok((await Deno.stat(`${folder.path}/${file}`)).isFile);
    await world.store.markRestored(); // what comes afterwards is not in it
    await using copy = await backend.open(folder.path);
    await assertSame(copy, expected);
    assert.deepEqual(await copy.counts(), counts);
    assert.deepEqual(await copy.checkIntegrity(() => {}), []);
  });

  test(
    "snapshotTo() keeps the encryption: the copy opens with the store's key only",
    async (world, backend) => {
      const secret = randomBytes(64);
      const person = await world.person();
      const parts = [{ payload: secret, recipients: [person.deviceId] }];
      await world.send(person, [], { parts });
      await using folder = await tempFolder();
      const { files } = await world.store.snapshotTo(folder.path, () => {});
      for (const file of files) {
        const bytes = await Deno.readFile(`${folder.path}/${file}`);
        assert.equal(bytes.toHex().includes(secret.toHex()), false);
        assert.equal(bytes.toHex().includes(utf8(person.userName).toHex()), false);
      }
      await assert.rejects(backend.open(folder.path, OTHER_KEY), (error) => {
        return error instanceof StoreOpenError && error.problem === "wrongKey";
      });
    },
  );

  test(
    "snapshotTo() is one moment while writers go on, and misses nothing acknowledged before",
    async (world, backend) => {
      await fill(world, { count: 2000, bytes: 5000 });
      const [a, b, left, right] = [
        await world.person(),
        await world.person(),
        await world.person(),
        await world.person(),
      ];
      const before = await world.send(a, [left], { limits: GENEROUS });
      assert.equal(before.recipients[0], "ok");
      await using folder = await tempFolder();
      const snapshot = world.store.snapshotTo(folder.path, () => {});
      const sent = await Promise.all(
        [a, b].map((sender) => sendNumbered(world, { sender, to: [left, right] }, snapshot)),
      );
      const { counts } = await snapshot;
      await using copy = await backend.open(folder.path);
      assert.deepEqual(await copy.counts(), counts);
      assert.deepEqual(await copy.checkIntegrity(() => {}), []);
      const entriesOf = async ({ deviceId }: Person) => {
        const fetch = { deviceId, after: 0, entriesMax: 1e6, bytesMax: 1e9, now: world.now };
        return (await copy.fetchAfter(fetch))!.entries;
      };
      const [first, ...others] = await entriesOf(left);
      assert.equal(first?.payload.length, 100);
      const rightEntries = await entriesOf(right);
      assert.deepEqual(others.map((entry) => entry.entryId), rightEntries.map((entry) => entry.entryId));
      for (const [index, sender] of [a, b].entries()) {
        const own = others.filter((entry) => entry.senderDevice === sender.deviceId);
        const numbers = own.map((entry) => numberIn(entry.payload));
        assert.deepEqual(numbers, numbers.map((_, position) => position + 1), "a prefix without a gap");
        assert.ok(numbers.length <= sent[index]!);
      }
      const all = await world.entries(left);
      assert.equal(all.length, 1 + sent[0]! + sent[1]!, "nothing was lost meanwhile");
    },
  );

  test("snapshotTo() refuses a folder that is not empty, and one that is not there", async (world) => {
    await using folder = await tempFolder();
    Deno.writeTextFileSync(`${folder.path}/mine`, "mine");
    await assert.rejects(world.store.snapshotTo(folder.path, () => {}), /not empty: it holds mine/);
    assert.deepEqual([...Deno.readDirSync(folder.path)].map((entry) => entry.name), ["mine"]);
    await assert.rejects(world.store.snapshotTo(`${folder.path}/none`, () => {}), Deno.errors.NotFound);
    assert.deepEqual(namesIn(folder.path), []);
  });

  test("snapshotTo() onto a full disk is storeFull, leaves nothing, and the store goes on", async (world) => {
    const { sender, recipient } = await fill(world, { count: 1000, bytes: 5000 });
    await using folder = await tempFolder();
    {
      await using _small = await mountTmpfs(folder.path, "2m");
      await rejectsWith(world.store.snapshotTo(folder.path, () => {}), "storeFull");
      assert.deepEqual(namesIn(folder.path), []);
      await world.send(sender, [recipient], { limits: GENEROUS });
    }
    await world.store.snapshotTo(folder.path, () => {});
    assert.equal((await world.store.counts()).queueEntries, 1001);
  }, { ignore });
}

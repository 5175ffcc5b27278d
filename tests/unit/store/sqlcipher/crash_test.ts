/** kill -9 of a process that writes: everything it acknowledged is there, in order, once, and the counts agree. */
import assert from "node:assert/strict";
import { openStore } from "../../../../mod/store/open.ts";
import { World } from "../../../contract/store/world.ts";
import { startStoreProcess } from "./store_process.ts";

const KEY = "5f".repeat(32);
const ROUNDS = 4;

Deno.test("what was acknowledged survives kill -9 of the process", async () => {
  await using world = await World.make((dataDir) =>
    openStore({ backend: "sqlcipher", dataDir, keys: [KEY] })
  );
  const [sender, first, second] = [await world.person(), await world.person(), await world.person()];
  const recipients = [first.deviceId, second.deviceId];
  const ids = JSON.stringify({ senderAccount: sender.accountId, senderDevice: sender.deviceId, recipients });
  const acknowledged: string[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    await world.store.close();
    const writer = startStoreProcess(world.dataDir, KEY, ["write", ids]);
    await writer.reached(1 + 97 * round);
    await writer.kill();
    acknowledged.push(...writer.lines.filter((line) => line !== "ready"));
    await world.reopen();
    for (const person of [first, second]) {
      const entries = await world.entries(person);
      const found = entries.map((entry) => entry.payload.subarray(0, 16).toHex());
      assert.equal(new Set(found).size, found.length);
      const missing = acknowledged.filter((id) => !found.includes(id));
      assert.deepEqual(missing, []);
      assert.deepEqual(entries.map((entry) => entry.seq), entries.map((_, index) => index + 1));
      assert.equal((await world.cursor(person)).nextSeq, entries.length + 1);
    }
    const { queueEntries } = await world.store.counts();
    assert.equal(queueEntries, (await world.entries(first)).length * 2);
  }
});

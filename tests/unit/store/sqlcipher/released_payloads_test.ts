/** Payloads whose last entry is gone: deleted later, within bounds, in their order. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { randomBytes } from "../../../../mod/base/bytes.ts";
import { connect } from "../../../../mod/store/sqlcipher/connect.ts";
import { openSqlcipherStore } from "../../../../mod/store/sqlcipher/mod.ts";
import { type Person, WIDE_LIMITS, World } from "../../../contract/store/world.ts";

const KEY = "5f".repeat(32);
const LIMITS = {
  ...WIDE_LIMITS,
  queueDepthMax: 1e6,
  queueBytesMax: 1e9,
  senderShare: 1,
  senderBytesPerDay: 1e12,
};

function open(dataDir: string) {
  return openSqlcipherStore({ dataDir, keys: [KEY] });
}

/** Payloads and released ones in the file; the store is closed meanwhile. */
async function rows(world: World): Promise<{ payloads: number; released: number }> {
  await world.store.close();
  const connection = connect(join(world.dataDir, "qpq.db"), KEY);
  try {
    const count = (table: string) => Number(connection.value(`SELECT count(*) FROM ${table}`));
    return { payloads: count("payloads"), released: count("released_payloads") };
  } finally {
    connection.close();
    world.store = await open(world.dataDir);
  }
}

/** `count` messages of `bytes` bytes, all acknowledged. */
async function sendAndAck(
  world: World,
  people: { sender: Person; to: Person },
  { count, bytes }: { count: number; bytes: number },
): Promise<void> {
  const { sender, to } = people;
  const parts = [{ payload: randomBytes(bytes), recipients: [to.deviceId] }];
  await Promise.all(Array.from({ length: count }, () => world.send(sender, [to], { parts, limits: LIMITS })));
  const { nextSeq } = await world.cursor(to);
  assert.deepEqual((await world.store.ack(to.deviceId, nextSeq - 1)).status, "acked");
}

Deno.test("acknowledged payloads are released, not served, and gone after a step of expiry", async () => {
  await using world = await World.make(open);
  const [sender, to] = [await world.person(), await world.person()];
  await world.send(sender, [to]);
  await world.send(sender, [to, sender]);
  await world.store.ack(to.deviceId, 2);
  assert.deepEqual(await rows(world), { payloads: 2, released: 1 });
  assert.deepEqual(await world.entries(to), []);
  assert.deepEqual(await world.store.checkIntegrity(() => {}), []);
  await world.store.expireEntries(world.now, 100);
  assert.deepEqual(await rows(world), { payloads: 1, released: 0 }, "the sender's own copy stays");
  await world.store.ack(sender.deviceId, 1);
  await world.store.expireEntries(world.now, 100);
  assert.deepEqual(await rows(world), { payloads: 0, released: 0 });
});

Deno.test("released payloads are bounded in number and bytes, also across a restart", async () => {
  await using world = await World.make(open);
  const people = { sender: await world.person(), to: await world.person() };
  await sendAndAck(world, people, { count: 20, bytes: 1 << 20 });
  assert.ok((await rows(world)).released <= 16, "20 MiB are more than may wait");
  for (let round = 0; round < 5; round++) await sendAndAck(world, people, { count: 4000, bytes: 1 });
  const { payloads, released } = await rows(world);
  assert.equal(payloads, released);
  assert.ok(released <= 16_384, `${released} wait`);
  assert.deepEqual(await world.store.checkIntegrity(() => {}), []);
});

Deno.test("expiry is not held up by released payloads whose time is over", async () => {
  await using world = await World.make(open);
  const [sender, to] = [await world.person(), await world.person()];
  const soon = { expiresAt: world.now + 1 };
  for (let i = 0; i < 40; i++) await world.send(sender, [to], soon);
  await world.store.ack(to.deviceId, 39);
  // One entry has expired; 16 of the released are deleted in the same step, 23 are in its way.
  assert.equal(await world.store.expireEntries(world.now + 2, 2), 1);
  assert.deepEqual(await world.seqs(to), []);
});

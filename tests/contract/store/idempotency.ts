/** Contract of QueueStore: message ids, replay, and what is forgotten. */
import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { type ContractTest, DAY_MS, WIDE_LIMITS } from "./world.ts";

/** Registers the tests. */
export function idempotencyContract(test: ContractTest): void {
  test("enqueue() answers a repeated request with the first result and stores nothing again", async (world) => {
    const [sender, person, blocker] = [await world.person(), await world.person(), await world.person()];
    await world.store.block(blocker.accountId, sender.accountId, 10);
    const message = world.message(sender, [person, blocker]);
    const first = await world.store.enqueue(message);
    assert.equal(first.status, "accepted");
    await world.store.unblock(blocker.accountId, sender.accountId);
    const later = { ...message, now: message.now + 1000, expiresAt: message.expiresAt + 1000 };
    assert.deepEqual(await world.store.enqueue(later), { ...first, replayed: true });
    assert.deepEqual(await world.seqs(person), [1]);
    assert.deepEqual(await world.seqs(blocker), []);
  });

  test("enqueue() accepts one of many equal requests at once", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const message = world.message(sender, [person]);
    const results = await Promise.all(Array.from({ length: 20 }, () => world.store.enqueue(message)));
    assert.equal(results.filter((result) => result.status === "accepted" && !result.replayed).length, 1);
    assert.equal(results.filter((result) => result.status === "accepted" && result.replayed).length, 19);
    assert.deepEqual(await world.seqs(person), [1]);
  });

  test("enqueue() refuses the same id with another request", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const message = world.message(sender, [person]);
    await world.store.enqueue(message);
    const other = { ...message, requestSha256: randomBytes(32) };
    assert.deepEqual(await world.store.enqueue(other), { status: "idConflict" });
    assert.deepEqual(await world.seqs(person), [1]);
  });

  test("message ids belong to the sending account: its devices share them, others do not", async (world) => {
    const [sender, other, person] = [await world.person(), await world.person(), await world.person()];
    const second = await world.device(sender);
    const message = world.message(sender, [person]);
    await world.store.enqueue(message);
    const { messageId, requestSha256 } = message;
    const fromSecond = await world.send(second, [person], { messageId, requestSha256 });
    assert.equal(fromSecond.replayed, true);
    const fromOther = await world.send(other, [person], { messageId });
    assert.equal(fromOther.replayed, false);
    assert.deepEqual(await world.seqs(person), [1, 2]);
  });

  test("a refused enqueue is not remembered", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const limits = { ...WIDE_LIMITS, senderBytesPerDay: 1 };
    const message = world.message(sender, [person], { limits });
    assert.equal((await world.store.enqueue(message)).status, "quotaExceeded");
    const again = await world.store.enqueue({ ...message, limits: WIDE_LIMITS });
    assert.equal(again.status === "accepted" && again.replayed, false);
    assert.equal(again.status, "accepted");
  });

  test("a message id is forgotten after idempotencyMs", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const message = world.message(sender, [person]);
    await world.store.enqueue(message);
    const early = await world.store.enqueue({ ...message, now: message.now + DAY_MS - 1 });
    assert.equal(early.status === "accepted" && early.replayed, true);
    const late = { ...message, now: message.now + DAY_MS + 1, requestSha256: randomBytes(32) };
    const result = await world.store.enqueue(late);
    assert.equal(result.status === "accepted" && result.replayed, false);
    assert.deepEqual(await world.seqs(person), [1, 2]);
    const again = await world.store.enqueue({ ...late, now: late.now + 1 });
    assert.equal(again.status === "accepted" && again.replayed, true);
  });

  test("only the last idempotencyCountMax message ids of a device are remembered", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const second = await world.device(sender);
    const limits = { ...WIDE_LIMITS, idempotencyCountMax: 3 };
    const ofSecond = world.message(second, [person], { limits });
    await world.store.enqueue(ofSecond);
    const messages = Array.from({ length: 4 }, () => world.message(sender, [person], { limits }));
    for (const message of messages) await world.store.enqueue(message);
    const replayed = async (message: typeof ofSecond) => {
      const result = await world.store.enqueue(message);
      return result.status === "accepted" && result.replayed;
    };
    assert.equal(await replayed(messages[1]!), true);
    assert.equal(await replayed(messages[3]!), true);
    assert.equal(await replayed(ofSecond), true);
    assert.equal(await replayed(messages[0]!), false);
  });

  test("expireMessageIds() forgets ids accepted before, at most limit", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const old = [world.message(sender, [person]), world.message(sender, [person])];
    for (const message of old) await world.store.enqueue(message);
    world.now += 3 * DAY_MS;
    const limits = { ...WIDE_LIMITS, idempotencyMs: 100 * DAY_MS };
    const recent = world.message(sender, [person], { limits });
    await world.store.enqueue(recent);
    assert.ok(await world.store.expireMessageIds(world.now - DAY_MS, 1) <= 1);
    while (await world.store.expireMessageIds(world.now - DAY_MS, 100) > 0);
    for (const message of old) {
      const again = await world.store.enqueue({ ...message, now: world.now, limits });
      assert.equal(again.status === "accepted" && again.replayed, false);
    }
    const again = await world.store.enqueue(recent);
    assert.equal(again.status === "accepted" && again.replayed, true);
  });

  test("expireMessageIds() leaves the sums of the day", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    const limits = { ...WIDE_LIMITS, senderBytesPerDay: 150 };
    await world.send(sender, [person], { limits });
    await world.store.expireMessageIds(world.now - DAY_MS, 100);
    await world.store.expireMessageIds(world.now, 100);
    const message = world.message(sender, [person], { limits });
    assert.equal((await world.store.enqueue(message)).status, "quotaExceeded");
  });
}

/** Contract of QueueStore for messages that other servers bring: whatever is counted, is counted for the origin. */
import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import {
  type AccountId,
  type DeviceId,
  type GroupId,
  type MessageId,
  randomId,
} from "../../../mod/base/ids.ts";
import type { NewMessage } from "../../../mod/store/store.ts";
import { type ContractTest, DAY_MS, HOUR_MS, NOON, type Person, WIDE_LIMITS, type World } from "./world.ts";

const ORIGIN = "peer.example";
const OTHER = "other.example";

/** Somebody whom this store does not know. */
function stranger(): Person {
  const ids = { accountId: randomId<AccountId>(), deviceId: randomId<DeviceId>() };
  return { ...ids, userName: "stranger", deviceKey: randomBytes(32), sessionId: randomId() };
}

function relayed(world: World, to: Person, fields: Partial<NewMessage> = {}): NewMessage {
  return world.message(stranger(), [to], { origin: ORIGIN, ...fields });
}

async function statusOf(world: World, message: NewMessage): Promise<string> {
  const result = await world.store.enqueue(message);
  return result.status === "accepted" ? result.recipients.join() : result.status;
}

function guardOf(groupId: GroupId) {
  return { groupId, epoch: 1, tokenSha256: randomBytes(32), nextTokenSha256: randomBytes(32) };
}

/** Registers the tests. */
export function originContract(test: ContractTest): void {
  test("an entry from an origin names its sender and domain, also after reopening", async (world) => {
    const to = await world.person();
    const from = stranger();
    await world.send(from, [to], { origin: ORIGIN });
    await world.send(to, [to]);
    for (const _ of ["fresh", "reopened"]) {
      const [remote, local] = await world.entries(to);
      const { senderAccount, senderDevice, senderDomain, kind } = remote!;
      assert.deepEqual([senderAccount, senderDevice], [from.accountId, from.deviceId]);
      assert.deepEqual([senderDomain, kind, local!.senderDomain], [ORIGIN, "message", null]);
      await world.reopen();
    }
  });

  test("message ids are remembered by (origin, message id), whoever is said to have sent", async (world) => {
    const to = await world.person();
    const ids = { messageId: randomId<MessageId>(), requestSha256: randomBytes(32) };
    assert.equal(await statusOf(world, relayed(world, to, ids)), "ok");
    const again = await world.store.enqueue(relayed(world, to, ids));
    assert.ok(again.status === "accepted" && again.replayed);
    const other = { ...ids, requestSha256: randomBytes(32) };
    assert.equal(await statusOf(world, relayed(world, to, other)), "idConflict");
    assert.equal(await statusOf(world, relayed(world, to, { ...other, origin: OTHER })), "ok");
    assert.equal(await statusOf(world, world.message(to, [to], other)), "ok");
    assert.equal((await world.entries(to)).length, 3);
  });

  test("of an origin only the last ids are remembered", async (world) => {
    const to = await world.person();
    const limits = { ...WIDE_LIMITS, senderShare: 1, idempotencyCountMax: 3 };
    const messages = Array.from({ length: 300 }, () => relayed(world, to, { limits }));
    const before = relayed(world, to, { origin: OTHER, limits });
    const own = world.message(to, [to], { limits: WIDE_LIMITS });
    for (const message of [before, own, ...messages]) await world.store.enqueue(message);
    const replayed = async (message: NewMessage) => {
      const result = await world.store.enqueue(message);
      return result.status === "accepted" && result.replayed;
    };
    assert.deepEqual([await replayed(before), await replayed(own)], [true, true]);
    assert.equal(await replayed(messages.at(-1)!), true);
    assert.equal(await replayed(messages[0]!), false);
  });

  test("expireMessageIds() keeps what came from origins for longer", async (world) => {
    const to = await world.person();
    const limits = { ...WIDE_LIMITS, idempotencyMs: 4 * DAY_MS };
    const [remote, local] = [relayed(world, to, { limits }), world.message(to, [to], { limits })];
    for (const message of [remote, local]) await world.store.enqueue(message);
    world.now += 2 * DAY_MS;
    const remoteBefore = world.now - 4 * DAY_MS;
    while (await world.store.expireMessageIds(world.now - DAY_MS, 10, { remoteBefore }) > 0);
    const results = [
      await world.store.enqueue({ ...remote, now: world.now }),
      await world.store.enqueue(local),
    ];
    assert.deepEqual(results.map((result) => result.status === "accepted" && result.replayed), [true, false]);
    world.now += 3 * DAY_MS;
    while (await world.store.expireMessageIds(world.now, 10, { remoteBefore: world.now }) > 0);
    const later = await world.store.enqueue({ ...remote, now: world.now });
    assert.ok(later.status === "accepted" && !later.replayed);
  });

  test("an origin has one share of a queue, whoever is said to send", async (world) => {
    const to = await world.person();
    const limits = { ...WIDE_LIMITS, queueDepthMax: 8 };
    for (const wanted of ["ok", "ok", "queueFull"]) {
      assert.equal(await statusOf(world, relayed(world, to, { limits })), wanted);
    }
    assert.equal(await statusOf(world, relayed(world, to, { origin: OTHER, limits })), "ok");
    assert.equal((await world.cursor(to)).droppedCount, 1);
    await world.reopen();
    assert.equal(await statusOf(world, relayed(world, to, { limits })), "queueFull");
    await world.store.ack(to.deviceId, 1);
    assert.equal(await statusOf(world, relayed(world, to, { limits })), "ok");
  });

  test("an origin has its bytes of the day", async (world) => {
    const to = await world.person();
    const limits = { ...WIDE_LIMITS, senderBytesPerDay: 250 };
    for (const wanted of ["ok", "ok", "quotaExceeded"]) {
      assert.equal(await statusOf(world, relayed(world, to, { limits })), wanted);
    }
    await world.reopen();
    assert.equal(await statusOf(world, relayed(world, to, { limits })), "quotaExceeded");
    assert.equal(await statusOf(world, relayed(world, to, { origin: OTHER, limits })), "ok");
    world.now = NOON + DAY_MS + HOUR_MS;
    assert.equal(await statusOf(world, relayed(world, to, { limits })), "ok");
  });

  test("a message behind one that was not accepted is held back, in one batch as later", async (world) => {
    const to = await world.person();
    const limits = { ...WIDE_LIMITS, senderBytesPerDay: 250 };
    const [first, large, small] = [100, 200, 1].map((length) => {
      const parts = [{ payload: randomBytes(length), recipients: [to.deviceId] }];
      return relayed(world, to, { limits, parts });
    });
    const batch = [
      { ...first!, behind: [] },
      { ...large!, behind: [first!.messageId] },
      { ...small!, behind: [large!.messageId] },
    ];
    const send = () => Promise.all(batch.map((message) => statusOf(world, message)));
    assert.deepEqual(await send(), ["ok", "quotaExceeded", "heldBack"]);
    await world.reopen();
    assert.deepEqual(await send(), ["ok", "quotaExceeded", "heldBack"]);
    const other = { ...small!, messageId: randomId<MessageId>(), behind: [first!.messageId] };
    assert.equal(await statusOf(world, { ...other, origin: OTHER }), "heldBack");
    assert.equal(await statusOf(world, other), "ok");
    assert.equal((await world.entries(to)).length, 2);
  });

  test("blocks hold for accounts from elsewhere", async (world) => {
    const to = await world.person();
    const from = stranger();
    await world.store.block(to.accountId, from.accountId, 10);
    const result = await world.send(from, [to], { origin: ORIGIN });
    assert.deepEqual(result.recipients, ["blocked"]);
    assert.equal(await statusOf(world, relayed(world, to)), "ok");
  });

  test("the guard judges an origin's commits, once for each message id", async (world) => {
    const to = await world.person();
    const guard = guardOf(randomId<GroupId>());
    const commit = relayed(world, to, { guard, commitsTo: [guard.groupId] });
    assert.equal(await statusOf(world, commit), "ok");
    const again = await world.store.enqueue(commit);
    assert.ok(again.status === "accepted" && again.replayed);
    const stale = relayed(world, to, { guard, commitsTo: [guard.groupId] });
    assert.deepEqual(await world.store.enqueue(stale), { status: "wrongEpoch", currentEpoch: 2 });
    const bare = relayed(world, to, { commitsTo: [guard.groupId] });
    assert.equal(await statusOf(world, bare), "guardRequired");
    const next = { ...guardOf(guard.groupId), epoch: 2, tokenSha256: guard.nextTokenSha256 };
    assert.equal(
      await statusOf(world, world.message(to, [to], { guard: next, commitsTo: [guard.groupId] })),
      "ok",
    );
    assert.equal((await world.entries(to)).length, 2);
  });

  test("an origin begins so many guards a day", async (world) => {
    const to = await world.person();
    const limits = { ...WIDE_LIMITS, guardsPerDay: 1 };
    const begin = (origin: string) => {
      const guard = guardOf(randomId<GroupId>());
      return statusOf(world, relayed(world, to, { origin, guard, commitsTo: [guard.groupId], limits }));
    };
    assert.deepEqual([await begin(ORIGIN), await begin(ORIGIN), await begin(OTHER)], [
      "ok",
      "guardLimit",
      "ok",
    ]);
  });

  test("a made-up id of an account of this server counts for the origin", async (world) => {
    const [to, victim] = [await world.person(), await world.person()];
    const limits = { ...WIDE_LIMITS, senderBytesPerDay: 150 };
    await world.send(victim, [to], { origin: ORIGIN, limits });
    await world.send(victim, [to], { limits });
    assert.deepEqual((await world.entries(to)).map((entry) => entry.senderDomain), [ORIGIN, null]);
  });

  test("expired and purged entries of an origin leave its share", async (world) => {
    const to = await world.person();
    const limits = { ...WIDE_LIMITS, queueDepthMax: 4 };
    const send = () => statusOf(world, relayed(world, to, { limits, expiresAt: world.now + HOUR_MS }));
    assert.deepEqual([await send(), await send()], ["ok", "queueFull"]);
    world.now += 2 * HOUR_MS;
    await world.store.expireEntries(world.now, 100);
    assert.deepEqual([await send(), await send()], ["ok", "queueFull"]);
    await world.store.purgeQueue(to.deviceId);
    assert.equal(await send(), "ok");
    assert.deepEqual(await world.store.checkIntegrity(() => {}), []);
  });
}

import assert from "node:assert/strict";
import { hex, randomBytes, sha256, utf8Text } from "../../../mod/base/bytes.ts";
import type { GroupId } from "../../../mod/base/ids.ts";
import type { CommitHeader, GuardRequest } from "../../../mod/delivery/queues.ts";
import { DeliveryWorld, LIMITS } from "../../support/delivery_world.ts";

const WINDOW = { after: 0, entriesMax: 0, bytesMax: 0 };
const never = new AbortController().signal;

Deno.test("enqueue() refuses what is outside its bounds, and stores nothing of it", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  const part = (bytes: number, recipients = 1) => ({
    payload: randomBytes(bytes),
    recipients: new Array(recipients).fill(bob.deviceId),
  });
  const cases: [string, ReturnType<typeof part>[]][] = [
    ["malformedRequest", []],
    ["malformedRequest", new Array(LIMITS.partsMax + 1).fill(part(1))],
    ["malformedRequest", [part(0)]],
    ["malformedRequest", [part(1, 0)]],
    ["malformedRequest", [part(1, LIMITS.recipientsMax), part(1)]],
    ["payloadTooLarge", [part(LIMITS.payloadBytesMax + 1)]],
    ["payloadTooLarge", [part(1000), part(1000), part(501)]],
  ];
  for (const [code, parts] of cases) {
    await assert.rejects(world.delivery.enqueue(bob, world.request([], { parts })), { code });
  }
  assert.deepEqual((await world.delivery.fetch(bob, WINDOW)).entries, []);
});

Deno.test("enqueue() gives the default time to live and clamps a longer one", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  const ttl = async (ttlMs: number) =>
    (await world.delivery.enqueue(bob, world.request([bob.deviceId], { ttlMs }))).ttlMs;
  assert.deepEqual(
    [await ttl(0), await ttl(5_000), await ttl(10 ** 12)],
    [LIMITS.ttlDefaultMs, 5_000, LIMITS.ttlMaxMs],
  );
});

Deno.test("enqueue() compares all of a request with the one that had its id", async () => {
  await using world = await DeliveryWorld.open();
  const alice = await world.caller("alice");
  const bob = await world.caller("bob");
  const first = world.request([bob.deviceId], { text: "one" });
  assert.equal((await world.delivery.enqueue(alice, first)).replayed, false);
  assert.equal((await world.delivery.enqueue(alice, { ...first })).replayed, true);
  const { messageId } = first;
  const others = [
    world.request([bob.deviceId], { text: "two", messageId }),
    world.request([alice.deviceId], { text: "one", messageId }),
    world.request([bob.deviceId], { text: "one", messageId, ttlMs: 1000 }),
  ];
  for (const other of others) {
    await assert.rejects(world.delivery.enqueue(alice, other), { code: "idConflict" });
  }
  // Another account's ids are its own.
  assert.equal((await world.delivery.enqueue(bob, first)).replayed, false);
  const { body } = await world.metrics.expose();
  assert.match(body, /^enqueue_total 2$/m);
  assert.match(body, /^enqueue_bytes_total 6$/m);
});

/** A chain of guards as a group's members make them. */
class Epochs {
  readonly groupId = hex(randomBytes(16)) as GroupId;
  readonly #tokens = Array.from({ length: 5 }, () => randomBytes(32));

  async commit(epoch: number): Promise<{ guard: GuardRequest; commits: CommitHeader[] }> {
    const { groupId } = this;
    const nextTokenSha256 = await sha256(this.#tokens[epoch + 1]!);
    return {
      guard: { groupId, epoch, token: this.#tokens[epoch]!, nextTokenSha256 },
      commits: [{ groupId, epoch, external: false }],
    };
  }
}

Deno.test("enqueue() accepts one commit of each epoch, by who has its token", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  const epochs = new Epochs();
  const enqueue = async (changes: Parameters<typeof world.request>[1]) =>
    await world.delivery.enqueue(bob, world.request([bob.deviceId], changes));
  await enqueue(await epochs.commit(0));
  await assert.rejects(enqueue(await epochs.commit(0)), {
    code: "wrongEpoch",
    details: { currentEpoch: 1 },
  });
  const stranger = await epochs.commit(1);
  const forged = { ...stranger, guard: { ...stranger.guard, token: randomBytes(32) } };
  await assert.rejects(enqueue(forged), { code: "wrongEpoch" });
  await enqueue(await epochs.commit(1));
  const { commits } = await epochs.commit(2);
  await assert.rejects(enqueue({ commits }), { code: "guardRequired" });
});

Deno.test("enqueue() wants a guard to belong to exactly one commit, which is no external one", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  const { guard, commits } = await new Epochs().commit(0);
  const commit = commits[0]!;
  const wrong: CommitHeader[][] = [
    [],
    [commit, commit],
    [{ ...commit, epoch: 1 }],
    [{ ...commit, groupId: hex(randomBytes(16)) as GroupId }],
    [{ ...commit, external: true }],
  ];
  for (const headers of wrong) {
    const request = world.request([bob.deviceId], { guard, commits: headers });
    await assert.rejects(world.delivery.enqueue(bob, request), { code: "guardMismatch" });
  }
});

Deno.test("fetchWait() returns at once when something waits", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  await world.delivery.enqueue(bob, world.request([bob.deviceId], { text: "there" }));
  const { entries } = await world.delivery.fetchWait(bob, {
    window: WINDOW,
    timeoutMs: 1000,
    cancelled: never,
  });
  assert.deepEqual(entries.map(({ payload }) => utf8Text(payload)), ["there"]);
  assert.equal(world.delivery.waiters.count, 0);
});

Deno.test("fetchWait() wakes for an entry behind its window only", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  await world.delivery.enqueue(bob, world.request([bob.deviceId]));
  let done = false;
  const waiting = world.delivery.fetchWait(bob, {
    window: { ...WINDOW, after: 2 },
    timeoutMs: 1000,
    cancelled: never,
  }).finally(() => done = true);
  await world.delivery.enqueue(bob, world.request([bob.deviceId]));
  await world.clock.settle();
  assert.equal(done, false);
  await world.delivery.enqueue(bob, world.request([bob.deviceId], { text: "third" }));
  assert.deepEqual((await waiting).entries.map(({ seq }) => seq), [3]);
});

Deno.test("fetchWait() gives up after its time, and at once when its caller is gone", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  const timed = world.delivery.fetchWait(bob, { window: WINDOW, timeoutMs: 5000, cancelled: never });
  while (world.delivery.waiters.count === 0) await world.clock.settle();
  await world.clock.advance(5000);
  assert.deepEqual((await timed).entries, []);
  const gone = new AbortController();
  const cancelled = world.delivery.fetchWait(bob, {
    window: WINDOW,
    timeoutMs: 5000,
    cancelled: gone.signal,
  });
  gone.abort();
  assert.deepEqual((await cancelled).entries, []);
  assert.equal(world.delivery.waiters.count, 0);
});

Deno.test("a subscriber is told before parked waits, and takes over from an older one", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  const pushed: number[] = [];
  const gone = new AbortController();
  const subscribe = (after: number) =>
    world.delivery.subscribe(bob, {
      after,
      creditBytes: 1000,
      gone: gone.signal,
      push: (entries) => {
        pushed.push(...entries.map(({ seq }) => seq));
        return Promise.resolve();
      },
    });
  const older = assert.rejects(subscribe(0), { code: "replaced" });
  const newer = subscribe(0);
  await older;
  assert.equal(world.delivery.subscriptionCount, 1);
  await world.delivery.enqueue(bob, world.request([bob.deviceId]));
  while (pushed.length === 0) await world.clock.settle();
  gone.abort();
  await newer;
  assert.deepEqual([pushed, world.delivery.subscriptionCount], [[1], 0]);
});

Deno.test("fetchWait() gets what a subscriber was told of that went away", async () => {
  await using world = await DeliveryWorld.open();
  const bob = await world.caller("bob");
  const gone = new AbortController();
  const pushed = Promise.withResolvers<void>();
  const push = () => Promise.resolve(pushed.resolve());
  const subscribed = world.delivery.subscribe(bob, { after: 0, creditBytes: 1000, gone: gone.signal, push });
  const looked = Promise.withResolvers<void>();
  const wait = world.delivery.fetchWait(bob, {
    window: { after: 0, entriesMax: 0, bytesMax: 0 },
    timeoutMs: 60_000,
    cancelled: new AbortController().signal,
    turn: { take: () => Promise.resolve(), giveBack: looked.resolve },
  });
  await looked.promise; // nothing is there, and it waits
  await world.delivery.enqueue(bob, world.request([bob.deviceId]));
  await pushed.promise; // into a connection that nobody reads any more
  gone.abort();
  await subscribed;
  const late = world.clock.advance(60_000);
  assert.deepEqual((await wait).entries.map(({ seq }) => seq), [1]);
  await late;
});

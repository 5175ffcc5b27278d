import assert from "node:assert/strict";
import { QpqError } from "../../../mod/base/errors.ts";
import { type EntryId, randomId } from "../../../mod/base/ids.ts";
import { Subscription } from "../../../mod/delivery/subscription.ts";
import { prng } from "../../support/prng.ts";
import type { Cursor, Entry, FreshEntries } from "../../../mod/store/store.ts";

const CURSOR: Cursor = { ackedThrough: 0, nextSeq: 1, droppedThrough: 0, droppedCount: 0 };

function entry(seq: number, bytes: number): Entry {
  return {
    seq,
    kind: "message",
    entryId: randomId<EntryId>(),
    senderAccount: null,
    senderDevice: null,
    senderDomain: null,
    payload: new Uint8Array(bytes),
    acceptedAt: 0,
    expiresAt: 1,
  };
}

/** A queue in memory with the store's promise: at least one entry, otherwise within bytesMax. */
function harness(options: { creditBytes: number; entries: Entry[] }) {
  const { entries } = options;
  const pushed: number[] = [];
  let onPush = () => {};
  let fetches = 0;
  const subscription = new Subscription({
    after: 0,
    creditBytes: options.creditBytes,
    fetch: (after, bytesMax) => {
      fetches++;
      const waiting = entries.filter(({ seq }) => seq > after);
      let bytes = 0;
      const fits = waiting.filter(({ payload }, i) => (bytes += payload.length) <= bytesMax || i === 0);
      return Promise.resolve({
        entries: fits,
        cursor: { ...CURSOR, nextSeq: (entries.at(-1)?.seq ?? 0) + 1 },
      });
    },
    push: (batch) => {
      pushed.push(...batch.map(({ seq }) => seq));
      onPush();
      return Promise.resolve();
    },
  });
  const until = (count: number) =>
    new Promise<void>((resolve) => {
      onPush = () => pushed.length >= count ? resolve() : undefined;
      onPush();
    });
  return { subscription, pushed, entries, until, fetches: () => fetches };
}

Deno.test("Subscription pushes what is there and what comes, in order", async () => {
  const { subscription, pushed, entries, until } = harness({ creditBytes: 1000, entries: [entry(1, 10)] });
  const running = subscription.run();
  await until(1);
  entries.push(entry(2, 10), entry(5, 10));
  subscription.offer(null);
  await until(3);
  assert.deepEqual(pushed, [1, 2, 5]);
  subscription.end("closed");
  await running;
});

Deno.test("Subscription keeps to its credit until the acknowledgement comes", async () => {
  const all = [1, 2, 3, 4].map((seq) => entry(seq, 50));
  const { subscription, pushed, until } = harness({ creditBytes: 100, entries: all });
  const running = subscription.run();
  await until(2);
  subscription.offer(null);
  await new Promise<void>((resolve) => setTimeout(resolve, 0));
  assert.deepEqual(pushed, [1, 2]);
  subscription.acked(1);
  await until(3);
  subscription.acked(3);
  await until(4);
  assert.deepEqual(pushed, [1, 2, 3, 4]);
  subscription.end("closed");
  await running;
});

Deno.test("Subscription pushes one entry that is larger than the whole credit", async () => {
  const { subscription, pushed, until } = harness({
    creditBytes: 10,
    entries: [entry(1, 500), entry(2, 500)],
  });
  const running = subscription.run();
  await until(1);
  await new Promise<void>((resolve) => setTimeout(resolve, 0));
  assert.deepEqual(pushed, [1]);
  subscription.acked(1);
  await until(2);
  subscription.end("closed");
  await running;
});

Deno.test("Subscription.end() with an error rejects run() with it", async () => {
  const { subscription } = harness({ creditBytes: 10, entries: [] });
  const running = subscription.run();
  subscription.end(new QpqError("replaced", "A newer subscriber took over"));
  await assert.rejects(running, { code: "replaced" });
});

/** What a store that has it at hand says of `entries`. */
function fresh(...entries: Entry[]): FreshEntries {
  return { entries, cursor: { ...CURSOR, nextSeq: entries.at(-1)!.seq + 1 } };
}

/** A harness whose first fetch is over, and that counts the fetches. */
async function followed(options: { creditBytes: number }) {
  const world = harness({ ...options, entries: [entry(1, 10)] });
  const running = world.subscription.run();
  await world.until(1);
  await turn();
  return { ...world, running, fetchesBefore: world.fetches() };
}

function turn(): Promise<void> {
  return new Promise<void>((resolve) => setTimeout(resolve, 0));
}

Deno.test("Subscription pushes what it is offered without a fetch", async () => {
  const { subscription, pushed, entries, until, running, fetches, fetchesBefore } = await followed({
    creditBytes: 1000,
  });
  for (const seq of [2, 3]) {
    entries.push(entry(seq, 10));
    subscription.offer(fresh(entries.at(-1)!));
  }
  await until(3);
  assert.deepEqual([pushed, fetches() - fetchesBefore], [[1, 2, 3], 0]);
  subscription.end("closed");
  await running;
});

Deno.test("Subscription fetches what an offer leaves out, each entry once", async () => {
  const { subscription, pushed, entries, until, running } = await followed({ creditBytes: 1000 });
  entries.push(entry(2, 10), entry(3, 10), entry(4, 10));
  subscription.offer(fresh(entries[3]!));
  subscription.offer(null);
  await until(4);
  entries.push(entry(5, 10));
  subscription.offer(fresh(entries[4]!));
  await until(5);
  assert.deepEqual(pushed, [1, 2, 3, 4, 5]);
  subscription.end("closed");
  await running;
});

Deno.test("Subscription.offer() during a fetch pushes nothing twice", async () => {
  const { subscription, pushed, entries, until, running } = await followed({ creditBytes: 1000 });
  entries.push(entry(2, 10));
  subscription.offer(null); // begins a fetch that already finds what is offered next
  entries.push(entry(3, 10));
  await Promise.resolve();
  subscription.offer(fresh(entries[2]!));
  await until(3);
  await turn();
  assert.deepEqual(pushed, [1, 2, 3]);
  subscription.end("closed");
  await running;
});

Deno.test("Subscription keeps to its credit with what it is offered", async () => {
  const { subscription, pushed, entries, until, running } = await followed({ creditBytes: 100 });
  entries.push(...[2, 3, 4, 5].map((seq) => entry(seq, 60)));
  for (const offered of entries.slice(1)) subscription.offer(fresh(offered));
  await until(3);
  await turn();
  assert.deepEqual(pushed, [1, 2, 3]); // the last one passes the credit
  subscription.acked(1);
  await turn();
  assert.deepEqual(pushed, [1, 2, 3]);
  for (const seq of [2, 3]) {
    subscription.acked(seq);
    await until(seq + 2);
  }
  assert.deepEqual(pushed, [1, 2, 3, 4, 5]);
  subscription.end("closed");
  await running;
});

Deno.test("Subscription gives up keeping what comes faster than it is read, and loses nothing", async () => {
  const { subscription, pushed, entries, until, running } = await followed({ creditBytes: 1 << 20 });
  subscription.acked(1);
  entries.push(...Array.from({ length: 1000 }, (_, index) => entry(index + 2, 1000)));
  for (const offered of entries.slice(1)) subscription.offer(fresh(offered));
  await until(1001);
  assert.deepEqual(pushed, entries.map(({ seq }) => seq));
  subscription.end("closed");
  await running;
});

/** A queue that gets entries and acknowledgements at random while fetches and pushes take their time. */
async function randomRun(seed: number): Promise<void> {
  const random = prng(seed);
  const below = (count: number) => Math.floor(random() * count);
  const entries: Entry[] = [];
  const pushed: number[] = [];
  const pause = async () => {
    for (let turns = below(4); turns > 0; turns--) await Promise.resolve();
  };
  const subscription = new Subscription({
    after: 0,
    creditBytes: 300 + below(2000),
    fetch: async (after, bytesMax) => {
      await pause();
      const cursor = { ...CURSOR, nextSeq: entries.length + 1 };
      let bytes = 0;
      const fits = entries.slice(after).filter(({ payload }, i) =>
        (bytes += payload.length) <= bytesMax || i === 0
      );
      await pause();
      return { entries: fits, cursor };
    },
    push: async (batch) => {
      pushed.push(...batch.map(({ seq }) => seq));
      await pause();
    },
  });
  const running = subscription.run();
  for (let step = 0; step < 60; step++) {
    const added = Array.from({ length: below(4) }, (_, i) => entry(entries.length + i + 1, below(500)));
    entries.push(...added);
    if (added.length > 0) subscription.offer(below(3) > 0 ? fresh(...added) : null);
    if (below(2) === 0) subscription.acked(pushed.length);
    await pause();
  }
  while (pushed.length < entries.length) {
    subscription.acked(pushed.length);
    await turn();
  }
  subscription.end("closed");
  await running;
  assert.deepEqual(pushed, entries.map(({ seq }) => seq), `seed ${seed}`);
}

Deno.test("Subscription pushes each entry once and in order, whatever comes when", async () => {
  for (let seed = 1; seed <= 100; seed++) await randomRun(seed);
});

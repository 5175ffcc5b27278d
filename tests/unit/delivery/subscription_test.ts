import assert from "node:assert/strict";
import { QpqError } from "../../../mod/base/errors.ts";
import { type EntryId, randomId } from "../../../mod/base/ids.ts";
import { Subscription } from "../../../mod/delivery/subscription.ts";
import type { Cursor, Entry } from "../../../mod/store/store.ts";

const CURSOR: Cursor = { ackedThrough: 0, nextSeq: 1, droppedThrough: 0, droppedCount: 0 };

function entry(seq: number, bytes: number): Entry {
  return {
    seq,
    kind: "message",
    entryId: randomId<EntryId>(),
    senderAccount: null,
    senderDevice: null,
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
  const subscription = new Subscription({
    after: 0,
    creditBytes: options.creditBytes,
    fetch: (after, bytesMax) => {
      const waiting = entries.filter(({ seq }) => seq > after);
      let bytes = 0;
      const fits = waiting.filter(({ payload }, i) => (bytes += payload.length) <= bytesMax || i === 0);
      return Promise.resolve({ entries: fits, cursor: CURSOR });
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
  return { subscription, pushed, entries, until };
}

Deno.test("Subscription pushes what is there and what comes, in order", async () => {
  const { subscription, pushed, entries, until } = harness({ creditBytes: 1000, entries: [entry(1, 10)] });
  const running = subscription.run();
  await until(1);
  entries.push(entry(2, 10), entry(5, 10));
  subscription.notify();
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
  subscription.notify();
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

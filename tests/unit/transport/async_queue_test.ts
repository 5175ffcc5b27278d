import assert from "node:assert/strict";
import { AsyncQueue } from "../../../mod/transport/async_queue.ts";

Deno.test("AsyncQueue gives values in order, those from before and after the consumer came", async () => {
  const queue = new AsyncQueue<number>();
  queue.push(1);
  queue.push(2);
  const values = Array.fromAsync(queue);
  await Promise.resolve();
  queue.push(3);
  await Promise.resolve();
  queue.push(4);
  // What the consumer has not taken at the end is returned to the producer, never lost.
  const left = queue.end();
  assert.deepEqual([...await values, ...left], [1, 2, 3, 4]);
});

Deno.test("AsyncQueue end() wakes a waiting consumer", async () => {
  const queue = new AsyncQueue<number>();
  const next = queue[Symbol.asyncIterator]().next();
  assert.deepEqual(queue.end(), []);
  assert.deepEqual(await next, { value: undefined, done: true });
});

Deno.test("AsyncQueue knows how many values wait", async () => {
  const queue = new AsyncQueue<string>();
  for (const value of ["a", "b", "c"]) queue.push(value);
  await queue[Symbol.asyncIterator]().next();
  assert.equal(queue.length, 2);
  assert.deepEqual(queue.end(), ["b", "c"]);
  assert.equal(queue.length, 0);
});

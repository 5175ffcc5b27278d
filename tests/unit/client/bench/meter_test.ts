import assert from "node:assert/strict";
import { Meter } from "../../../../mod/client/bench/meter.ts";

Deno.test("a meter counts neither the warm-up nor what ends after its end", () => {
  const meter = new Meter();
  meter.begin();
  meter.end(1000);
  meter.refuse("overloaded");
  meter.measure();
  meter.begin();
  meter.end(2, 5);
  meter.refuse("queueFull");
  meter.stop();
  meter.end(1000);
  meter.refuse("queueFull");
  assert.equal(meter.operations, 5);
  assert.equal(meter.latency.count, 1);
  assert.equal(meter.latency.maxMs, 2);
  assert.deepEqual(Object.fromEntries(meter.refused), { queueFull: 1 });
});

Deno.test("a meter with a maximum closes when so many have begun, and stops when they have ended", async () => {
  const meter = new Meter({ operationsMax: 2 });
  let stopped = false;
  meter.stopped.then(() => stopped = true);
  meter.measure();
  meter.begin();
  assert.equal(meter.open, true);
  meter.begin();
  assert.equal(meter.open, false);
  meter.end(1);
  await Promise.resolve();
  assert.equal(stopped, false);
  meter.refuse("rateLimited");
  await meter.stopped;
  assert.equal(meter.operations, 1);
});

Deno.test("takeRecent() has what ended since the last call", () => {
  const meter = new Meter();
  meter.measure();
  meter.end(4);
  meter.end(8);
  assert.equal(meter.takeRecent().operations, 2);
  meter.end(16);
  const { operations, p50Ms, p99Ms } = meter.takeRecent();
  assert.deepEqual([operations, p50Ms, p99Ms], [1, 16, 16]);
  assert.equal(meter.latency.count, 3);
});

Deno.test("its seconds stand still after its end", () => {
  const meter = new Meter();
  assert.equal(meter.seconds, 0);
  meter.measure();
  meter.stop();
  const { seconds } = meter;
  for (const now = performance.now(); performance.now() === now;);
  assert.equal(meter.seconds, seconds);
});

import assert from "node:assert/strict";
import { CLOSED_LOOP, OpenLoop, paceOf, pacesOf } from "../../../../mod/client/bench/pace.ts";

Deno.test("a closed loop is due whenever it is asked", () => {
  assert.equal(CLOSED_LOOP.take(17), 17);
  assert.equal(CLOSED_LOOP.msUntilDue(17), 0);
  assert.equal(paceOf(null), CLOSED_LOOP);
});

Deno.test("an open loop is due at equal distances, whenever it is asked", () => {
  const loop = new OpenLoop(100);
  assert.equal(loop.take(1000), 1000);
  assert.equal(loop.take(1009), NaN);
  assert.equal(loop.msUntilDue(1009), 1);
  assert.equal(loop.take(1010), 1010);
});

Deno.test("after a stall an open loop gives all that was due, each with the time it was due at", () => {
  const loop = new OpenLoop(10);
  loop.take(0);
  const due = [
    loop.take(500),
    loop.take(500),
    loop.take(500),
    loop.take(500),
    loop.take(500),
    loop.take(500),
  ];
  assert.deepEqual(due, [100, 200, 300, 400, 500, NaN]);
});

Deno.test("several lanes share a rate and do not beat together", () => {
  const lanes = pacesOf(1000, 4);
  for (const lane of lanes) lane.take(0);
  assert.deepEqual(lanes.map((lane) => lane.msUntilDue(0)), [4, 1, 2, 3]);
  const operations = lanes.map((lane) => {
    let count = 0;
    while (!Number.isNaN(lane.take(1000))) count++;
    return count;
  });
  const first = 1; // the lane that was due at 0
  assert.equal(operations.reduce((sum, count) => sum + count, first), 1001);
});

Deno.test("a rate is above 0", () => {
  assert.throws(() => new OpenLoop(0), RangeError);
  assert.throws(() => new OpenLoop(NaN), RangeError);
});

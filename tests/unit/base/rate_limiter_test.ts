import assert from "node:assert/strict";
import fc from "fast-check";
import { RateLimiter } from "../../../mod/base/rate_limiter.ts";
import { FakeClock } from "../../support/fake_clock.ts";

function limiter(options: { perSecond?: number; burst?: number; keysMax?: number } = {}) {
  const clock = new FakeClock();
  return { clock, limits: new RateLimiter({ clock, perSecond: 1, burst: 3, keysMax: 100, ...options }) };
}

Deno.test("take() allows the burst, then tells when the next fits", () => {
  const { limits } = limiter();
  assert.deepEqual([1, 2, 3, 4].map(() => limits.take("a")), [0, 0, 0, 1000]);
  assert.equal(limits.take("b"), 0);
});

Deno.test("take() allows exactly when it said it would, and not a millisecond before", async () => {
  const { clock, limits } = limiter({ perSecond: 5 / 60, burst: 5 });
  for (let i = 0; i < 5; i++) assert.equal(limits.take("a"), 0);
  assert.equal(limits.take("a"), 12_000);
  await clock.advance(11_999);
  assert.equal(limits.take("a"), 1);
  await clock.advance(1);
  assert.equal(limits.take("a"), 0);
});

Deno.test("take() takes nothing when it refuses", async () => {
  const { clock, limits } = limiter();
  limits.take("a", 3);
  for (let i = 0; i < 100; i++) limits.take("a");
  await clock.advance(1000);
  assert.equal(limits.take("a"), 0);
});

Deno.test("a bucket never holds more than the burst", async () => {
  const { clock, limits } = limiter();
  limits.take("a");
  await clock.advance(1e9);
  assert.deepEqual([1, 2, 3, 4].map(() => limits.take("a")), [0, 0, 0, 1000]);
});

Deno.test("a cost above the burst passes a full bucket and leaves it in debt", async () => {
  const { clock, limits } = limiter();
  assert.equal(limits.take("a", 10), 0);
  assert.equal(limits.take("a"), 8000);
  await clock.advance(8000);
  assert.equal(limits.take("a"), 0);
  assert.equal(limits.take("a", 10), 3000);
});

Deno.test("refund() gives back what was taken, up to the burst", () => {
  const { limits } = limiter();
  limits.take("a", 3);
  limits.refund("a", 2);
  assert.deepEqual([limits.take("a"), limits.take("a"), limits.take("a")], [0, 0, 1000]);
  limits.refund("a", 99);
  assert.equal(limits.take("a", 3), 0);
  limits.refund("unknown");
  assert.equal(limits.size, 1);
});

Deno.test("an infinite rate never refuses and remembers nobody", () => {
  const { limits } = limiter({ perSecond: Infinity });
  for (let i = 0; i < 100; i++) assert.equal(limits.take(`key ${i}`, 1e9), 0);
  assert.equal(limits.size, 0);
});

Deno.test("setRate() applies to the buckets that exist", () => {
  const { limits } = limiter();
  limits.take("a", 3);
  limits.setRate({ perSecond: 10, burst: 1 });
  assert.equal(limits.take("a"), 100);
  assert.throws(() => limits.setRate({ perSecond: 0, burst: 1 }), RangeError);
  assert.throws(() => limits.setRate({ perSecond: NaN, burst: 1 }), RangeError);
});

Deno.test("the number of keys is bounded; the oldest goes when no bucket is full", () => {
  const { limits } = limiter({ keysMax: 3 });
  for (const key of ["a", "b", "c"]) limits.take(key, 3);
  limits.take("a");
  limits.take("d", 3);
  assert.equal(limits.size, 3);
  assert.notEqual(limits.take("a"), 0, "a was used after b and stays");
  assert.equal(limits.take("b"), 0, "b was forgotten");
});

Deno.test("full buckets go before older ones that are not", async () => {
  const { clock, limits } = limiter({ keysMax: 3, burst: 10 });
  limits.take("old and empty", 10);
  limits.take("full soon", 1);
  limits.take("full later", 2);
  await clock.advance(1000);
  limits.take("new");
  assert.notEqual(limits.take("old and empty", 10), 0, "it was not forgotten");
  const keys = limits.top(10).map(({ key }) => key);
  assert.ok(!keys.includes("full soon"));
});

Deno.test("idle keys are forgotten as others come, long before the bound", async () => {
  const { clock, limits } = limiter({ keysMax: 1_000_000 });
  for (let i = 0; i < 1000; i++) limits.take(`early ${i}`);
  await clock.advance(10_000);
  for (let i = 0; i < 200; i++) limits.take(`late ${i}`);
  assert.ok(limits.size <= 200, `${limits.size} keys`);
});

Deno.test("top() names who was refused most, then who took most", () => {
  const { limits } = limiter();
  for (let i = 0; i < 9; i++) limits.take("refused often");
  for (let i = 0; i < 5; i++) limits.take("refused");
  limits.take("takes", 2);
  limits.take("hardly there");
  const top = limits.top(3);
  assert.deepEqual(top.map(({ key }) => key), ["refused often", "refused", "takes"]);
  assert.deepEqual([top[0]!.taken, top[0]!.refused], [3, 6]);
});

Deno.test("no one gets more than burst and rate allow, whatever the pattern", async () => {
  const step = fc.record({ waitMs: fc.integer({ min: 0, max: 3000 }), cost: fc.integer({ min: 1, max: 3 }) });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const { clock, limits } = limiter({ perSecond: 2, burst: 5 });
      let taken = 0;
      for (const { waitMs, cost } of steps) {
        await clock.advance(waitMs);
        const retryMs = limits.take("a", cost);
        if (retryMs === 0) taken += cost;
        else {
          await clock.advance(retryMs);
          assert.equal(limits.take("a", cost), 0, "the promised time is enough");
          taken += cost;
        }
      }
      assert.ok(taken <= 5 + 2 * clock.monotonic() / 1000 + 1e-6);
    }),
    { numRuns: 30 },
  );
});

import assert from "node:assert/strict";
import fc from "fast-check";
import { backoff } from "../../../mod/base/retry.ts";

Deno.test("nextMs() doubles up to the bound", () => {
  const waits = backoff({ initialMs: 100, maxMs: 1000, random: () => 0.999999 });
  assert.deepEqual([1, 2, 3, 4, 5, 6].map(() => waits.nextMs()), [100, 200, 400, 800, 1000, 1000]);
  assert.equal(waits.attempts, 6);
});

Deno.test("nextMs() is never below half of the ceiling", () => {
  const waits = backoff({ initialMs: 100, maxMs: 1000, factor: 3, random: () => 0 });
  assert.deepEqual([1, 2, 3, 4].map(() => waits.nextMs()), [50, 150, 450, 500]);
});

Deno.test("reset() begins again", () => {
  const waits = backoff({ initialMs: 100, maxMs: 1000, random: () => 0 });
  waits.nextMs();
  waits.nextMs();
  waits.reset();
  assert.deepEqual([waits.attempts, waits.nextMs()], [0, 50]);
});

Deno.test("nextMs() stays within its bounds for any random numbers", () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })), (numbers) => {
      let i = 0;
      const waits = backoff({ initialMs: 10, maxMs: 5000, random: () => numbers[i++] ?? 0 });
      for (const _ of numbers) {
        const waitMs = waits.nextMs();
        assert.ok(waitMs >= 5 && waitMs <= 5000);
      }
    }),
  );
});

Deno.test("backoff() refuses bounds that make no sense", () => {
  assert.throws(() => backoff({ initialMs: 0, maxMs: 10 }), RangeError);
  assert.throws(() => backoff({ initialMs: 20, maxMs: 10 }), RangeError);
  assert.throws(() => backoff({ initialMs: 1, maxMs: 10, factor: 0.5 }), RangeError);
});

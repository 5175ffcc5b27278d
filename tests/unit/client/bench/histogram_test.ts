import assert from "node:assert/strict";
import { LatencyHistogram } from "../../../../mod/client/bench/histogram.ts";
import { prng } from "../../../support/prng.ts";

Deno.test("a histogram's quantiles are those of the sorted latencies, to 0.8 %", () => {
  const random = prng(1);
  const histogram = new LatencyHistogram();
  // From microseconds to minutes, as many in each power of ten.
  const latencies = Array.from({ length: 20_000 }, () => 10 ** (random() * 8 - 3));
  for (const latency of latencies) histogram.record(latency);
  latencies.sort((a, b) => a - b);
  for (const share of [0.001, 0.1, 0.5, 0.9, 0.99, 0.999]) {
    const exact = latencies[Math.ceil(share * latencies.length) - 1]!;
    const error = Math.abs(histogram.quantileMs(share) - exact) / exact;
    assert.ok(error < 0.008 + 0.0005 / exact, `${share}: ${histogram.quantileMs(share)} is not ${exact}`);
  }
});

Deno.test("a histogram is exact where a bucket is a microsecond, and for the longest", () => {
  const histogram = new LatencyHistogram();
  for (let microseconds = 1; microseconds <= 100; microseconds++) histogram.record(microseconds / 1000);
  assert.equal(histogram.quantileMs(0.5), 0.05);
  assert.equal(histogram.quantileMs(0.99), 0.099);
  histogram.record(1234.5678);
  assert.equal(histogram.quantileMs(1), 1234.5678);
  assert.equal(histogram.maxMs, 1234.5678);
});

Deno.test("a histogram takes nothing, zero and hours", () => {
  const histogram = new LatencyHistogram();
  assert.deepEqual([histogram.quantileMs(0.99), histogram.meanMs, histogram.maxMs], [0, 0, 0]);
  histogram.record(0);
  assert.equal(histogram.quantileMs(0.5), 0);
  histogram.record(1e9);
  assert.equal(histogram.maxMs, 1e9);
  assert.equal(histogram.count, 2);
});

Deno.test("every latency is in a bucket whose bounds hold it, also at the powers of two", () => {
  for (let power = 0; power < 32; power++) {
    for (const microseconds of [2 ** power - 1, 2 ** power, 2 ** power + 1]) {
      const histogram = new LatencyHistogram();
      histogram.record(microseconds / 1000);
      histogram.record(1e7); // so that the highest value of the bucket shows, not the longest latency
      const shown = histogram.quantileMs(0.5) * 1000;
      assert.ok(shown >= microseconds - 1e-6, `${microseconds} is shown as ${shown}`);
      assert.ok(shown <= microseconds * (1 + 1 / 128), `${microseconds} is shown as ${shown}`);
    }
  }
});

Deno.test("reset() forgets everything", () => {
  const histogram = new LatencyHistogram();
  histogram.record(5);
  histogram.reset();
  assert.deepEqual([histogram.count, histogram.quantileMs(0.5), histogram.maxMs], [0, 0, 0]);
});

/** The simulation of two servers in CI: many seeds keep every promise, and every planted bug is found. */
import assert from "node:assert/strict";
import { RELAY_BUGS } from "./relay_bugs.ts";
import { type RelayReport, simulateRelay } from "./relay_simulation.ts";
import { SimFailure } from "./simulation.ts";

/** More by hand: deno task sim --relay --seeds N --seed S. */
const SEEDS = 150;
/** A planted bug has to be found within so many. */
const SEEDS_FOR_A_BUG = 100;

Deno.test(`what is relayed arrives once and in order, or its sender knows, in ${SEEDS} simulations`, async () => {
  const sums = { crashes: 0, accepted: 0, delivered: 0, failed: 0 };
  for (let seed = 1; seed <= SEEDS; seed++) {
    const report = await simulateRelay(seed);
    for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += report[name];
  }
  // Enough of everything happened that a broken promise would have shown.
  const perSeed = { crashes: 0.5, accepted: 20, delivered: 20, failed: 1 };
  for (const name of Object.keys(sums) as (keyof typeof sums)[]) {
    assert.ok(sums[name] >= perSeed[name] * SEEDS, `${name}: ${sums[name]} in ${SEEDS} simulations`);
  }
});

for (const bug of RELAY_BUGS) {
  Deno.test(`a server that ${bug.name} is found out`, async () => {
    let found: SimFailure | null = null;
    for (let seed = 1; seed <= SEEDS_FOR_A_BUG && !found; seed++) {
      await simulateRelay(seed, bug).catch((error) => {
        if (!(error instanceof SimFailure)) throw error;
        found = error;
      });
    }
    assert.match((found as SimFailure | null)?.message ?? "not found", bug.found);
    assert.match(found!.message, /deno task sim --seed \d+ --seeds 1 --relay --bug/);
  });
}

Deno.test("a seed leads to the same simulation of two servers each time, whatever ran before", async () => {
  const first: RelayReport = await simulateRelay(7);
  await simulateRelay(8);
  assert.deepEqual(await simulateRelay(7), first);
});

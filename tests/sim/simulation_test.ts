/** The simulation in CI: many seeds keep every promise, and every planted bug is found. */
import assert from "node:assert/strict";
import { tempFolder } from "../support/temp_folder.ts";
import { PLANTED_BUGS } from "./planted_bugs.ts";
import { makeTemplate, SimFailure, type SimReport, simulate } from "./simulation.ts";
import { simSurroundings } from "./sim_server.ts";

/** More by hand: deno task sim --seeds N --seed S. */
const SEEDS = 1_000;
/** A planted bug has to be found within so many. */
const SEEDS_FOR_A_BUG = 300;

await using folder = await tempFolder();
const surroundings = await simSurroundings(folder.path);
const template = await makeTemplate(surroundings);

Deno.test(`the promises hold in ${SEEDS} simulations`, async () => {
  const sums = { crashes: 0, accepted: 0, delivered: 0, claimed: 0, commits: 0 };
  for (let seed = 1; seed <= SEEDS; seed++) {
    const report = await simulate(seed, { template, surroundings });
    for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += report[name];
  }
  // Enough of everything happened that a broken promise would have shown.
  const perSeed = { crashes: 0.3, accepted: 10, delivered: 20, claimed: 2, commits: 3 };
  for (const name of Object.keys(sums) as (keyof typeof sums)[]) {
    assert.ok(sums[name] >= perSeed[name] * SEEDS, `${name}: ${sums[name]} in ${SEEDS} simulations`);
  }
});

for (const bug of PLANTED_BUGS) {
  Deno.test(`a server that ${bug.name} is found out`, async () => {
    let found: SimFailure | null = null;
    for (let seed = 1; seed <= SEEDS_FOR_A_BUG && !found; seed++) {
      await simulate(seed, { template, surroundings, bug }).catch((error) => {
        if (!(error instanceof SimFailure)) throw error;
        found = error;
      });
    }
    assert.match((found as SimFailure | null)?.message ?? "not found", bug.found);
    assert.match(found!.message, /deno task sim --seed \d+ --seeds 1 --bug/);
  });
}

Deno.test("a seed leads to the same simulation each time, whatever ran before", async () => {
  const first: SimReport = await simulate(7, { template, surroundings });
  await simulate(8, { template, surroundings });
  assert.deepEqual(await simulate(7, { template, surroundings }), first);
});

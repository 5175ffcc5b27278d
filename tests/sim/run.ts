/**
 * Runs simulations by hand: `deno task sim --seeds 10000 --seed 1`. `--seed` is the first one, `--bug NAME` plants a
 * bug (planted_bugs.ts). Ends at the first failure, with how to replay it.
 */
import { parseArgs } from "node:util";
import { configureLogs } from "../../mod/base/log.ts";
import { PLANTED_BUGS } from "./planted_bugs.ts";
import { makeTemplate, simulate } from "./simulation.ts";
import { simSurroundings } from "./sim_server.ts";
import { tempFolder } from "../support/temp_folder.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1000" },
    seed: { type: "string", default: "1" },
    bug: { type: "string" },
    log: { type: "string" },
  },
});
if (values.log) configureLogs({ filter: values.log, format: "human" });
const bug = values.bug === undefined ? null : PLANTED_BUGS.find(({ name }) => name === values.bug);
if (bug === undefined) {
  console.error(
    `There is no such bug; there are:\n${PLANTED_BUGS.map(({ name }) => `  ${name}`).join("\n")}`,
  );
  Deno.exit(2);
}
const [first, count] = [Number(values.seed), Number(values.seeds)];
await using folder = await tempFolder();
const surroundings = await simSurroundings(folder.path);
const template = await makeTemplate(surroundings);
const startedAt = performance.now();
const sums = { steps: 0, simulatedMs: 0, crashes: 0, accepted: 0, delivered: 0, claimed: 0, commits: 0 };
for (let seed = first; seed < first + count; seed++) {
  const report = await simulate(seed, { template, surroundings, bug });
  for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += report[name];
}
const seconds = (performance.now() - startedAt) / 1000;
console.log(`${count} simulations in ${seconds.toFixed(1)} s`, sums);

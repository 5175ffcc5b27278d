/**
 * Runs simulations by hand: `deno task sim --seeds 10000 --seed 1`. `--seed` is the first one, `--relay` simulates two
 * servers and what is relayed between them instead of one and its clients, `--bug NAME` plants a bug (planted_bugs.ts,
 * relay_bugs.ts). Ends at the first failure, with how to replay it.
 */
import { parseArgs } from "node:util";
import { configureLogs } from "../../mod/base/log.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { PLANTED_BUGS } from "./planted_bugs.ts";
import { RELAY_BUGS } from "./relay_bugs.ts";
import { simulateRelay } from "./relay_simulation.ts";
import { simSurroundings } from "./sim_server.ts";
import { makeTemplate, simulate } from "./simulation.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1000" },
    seed: { type: "string", default: "1" },
    relay: { type: "boolean", default: false },
    bug: { type: "string" },
    log: { type: "string" },
  },
});
if (values.log) configureLogs({ filter: values.log, format: "human" });
await using folder = await tempFolder();
const run = values.relay ? relaySimulation() : await clientSimulation(folder.path);
const [first, count] = [Number(values.seed), Number(values.seeds)];
const startedAt = performance.now();
const sums: Record<string, number> = {};
for (let seed = first; seed < first + count; seed++) {
  const { seed: _, ...report } = await run(seed);
  for (const [name, value] of Object.entries(report)) sums[name] = (sums[name] ?? 0) + value;
}
const seconds = (performance.now() - startedAt) / 1000;
console.log(`${count} simulations in ${seconds.toFixed(1)} s`, sums);

function relaySimulation() {
  const bug = bugOf(RELAY_BUGS);
  return (seed: number) => simulateRelay(seed, bug);
}

async function clientSimulation(path: string) {
  const bug = bugOf(PLANTED_BUGS);
  const surroundings = await simSurroundings(path);
  const template = await makeTemplate(surroundings);
  return (seed: number) => simulate(seed, { template, surroundings, bug });
}

function bugOf<Bug extends { name: string }>(bugs: readonly Bug[]): Bug | null {
  if (values.bug === undefined) return null;
  const bug = bugs.find(({ name }) => name === values.bug);
  if (bug) return bug;
  console.error(`There is no such bug; there are:\n${bugs.map(({ name }) => `  ${name}`).join("\n")}`);
  Deno.exit(2);
}

/**
 * `deno task crash [--kills N] [--seed S] [--backend sqlcipher|file]`: kills a server under mixed load at N random
 * moments (default 200, half of them for each backend) and looks at what it promised. A failure prints its seed and
 * round; the same seed draws the same moments, though not the same interleaving.
 */
import { parseArgs } from "node:util";
import { DATA_PATHS, type StoreBackend } from "../../mod/store/open.ts";
import { runCrashes } from "../support/crash_rounds.ts";

const KILLS = 200;
const BACKENDS = Object.keys(DATA_PATHS) as StoreBackend[];

const { values } = parseArgs({
  options: { kills: { type: "string" }, seed: { type: "string" }, backend: { type: "string" } },
});
const chosen = BACKENDS.filter((backend) => values.backend === undefined || backend === values.backend);
if (chosen.length === 0) throw new RangeError(`--backend must be one of ${BACKENDS.join(", ")}`);
const seed = Number(values.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]);
const kills = Math.ceil(Number(values.kills ?? KILLS) / chosen.length);
if (!Number.isSafeInteger(kills) || !Number.isSafeInteger(seed)) {
  throw new RangeError("--kills and --seed take whole numbers");
}
for (const backend of chosen) {
  console.log(await runCrashes({ backend, kills, seed, onRound: (line) => console.log(line) }));
}

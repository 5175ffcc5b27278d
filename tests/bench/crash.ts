/**
 * `deno task crash [--kills N] [--minutes N] [--seed S] [--backend sqlcipher|file]`: kills a server under mixed load at
 * random moments and looks at what it promised: 200 kills, or N, or as many as the minutes have room for. The kills go
 * in stories on one data folder each, for each backend in turn. A failure prints its seed and round, keeps the data
 * folder and exits with 1; the same seed draws the same moments, though not the same interleaving.
 */
import { parseArgs } from "node:util";
import { DATA_PATHS, type StoreBackend } from "../../mod/store/open.ts";
import { runCrashes } from "../support/crash_rounds.ts";

const KILLS = 200;
/** A story's blobs stay far below an account's quota, and its data folder small. */
const STORY_KILLS_MAX = 100;
const BACKENDS = Object.keys(DATA_PATHS) as StoreBackend[];

const { values } = parseArgs({
  options: {
    kills: { type: "string" },
    minutes: { type: "string" },
    seed: { type: "string" },
    backend: { type: "string" },
  },
});
const backends = BACKENDS.filter((backend) => values.backend === undefined || backend === values.backend);
if (backends.length === 0) throw new RangeError(`--backend must be one of ${BACKENDS.join(", ")}`);
const seed = Number(values.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]);
const minutes = Number(values.minutes ?? Infinity);
const kills = Number(values.kills ?? (values.minutes === undefined ? KILLS : Infinity));
if (!Number.isSafeInteger(seed) || !(kills === Infinity || Number.isSafeInteger(kills))) {
  throw new RangeError("--kills and --seed take whole numbers");
}
if (!(minutes > 0 && kills > 0)) throw new RangeError("--kills and --minutes take numbers above 0");

const begun = performance.now();
const minutesGone = () => (performance.now() - begun) / 60_000;
const total = { kills: 0, messages: 0, keyPackages: 0, claimed: 0 };

/** What `deno task crash` says while it works and when it ends. */
function progress(): string {
  return `${total.kills} kills in ${minutesGone().toFixed(1)} minutes (seed ${seed})`;
}

/** One data folder and as many kills as are wanted of it. */
async function story(backend: StoreBackend, storySeed: number): Promise<void> {
  // Split among the backends, the last of which gets what is left.
  const share = Math.ceil(kills / backends.length);
  const wanted = Math.min(STORY_KILLS_MAX, share, kills - total.kills);
  const done = await runCrashes({
    ...{ backend, kills: wanted, seed: storySeed, keepBroken: true },
    enough: () => minutesGone() >= minutes,
    onRound: (line) => {
      total.kills++;
      console.log(`${line} [${progress()}]`);
    },
  });
  for (const what of ["messages", "keyPackages", "claimed"] as const) total[what] += done[what];
}

console.log(`seed ${seed}, ${backends.join(" and ")}`);
try {
  for (let number = 0; total.kills < kills && minutesGone() < minutes; number++) {
    await story(backends[number % backends.length]!, seed + Math.floor(number / backends.length));
  }
  console.log(
    `No promise was broken: ${progress()}, ${total.messages} messages, ${total.keyPackages} KeyPackages, ` +
      `${total.claimed} of them claimed`,
  );
} catch (error) {
  console.error(error);
  console.error(`A PROMISE WAS BROKEN, or the run failed, after ${progress()}: see above`);
  Deno.exitCode = 1;
}

/**
 * `deno task fuzz [--seconds N] [--seed S] [--target NAME] [--replay FILE] [--frames N]`: every reader of bytes from
 * outside, in turn, for N seconds together (600), then a live server under malformed frames (1,000,000; 0: none). Prints the seed; an
 * input that fails is kept in tests/fuzz/corpus and its path printed.
 */
import { basename, dirname } from "node:path";
import { parseArgs } from "node:util";
import { configureLogs } from "../../mod/base/log.ts";
import { dnsTarget } from "./dns_targets.ts";
import { FEDERATION_TARGETS, SLOW_TARGETS } from "./federation_targets.ts";
import { FILE_TARGETS } from "./file_targets.ts";
import { fuzz, readInput, replayCorpus } from "./fuzzer.ts";
import { httpTargets } from "./http_targets.ts";
import { attackServerProcess } from "./live_processes.ts";
import { WIRE_TARGETS } from "./wire_targets.ts";

const { values } = parseArgs({
  args: Deno.args,
  options: {
    seconds: { type: "string", default: "600" },
    seed: { type: "string", default: String(crypto.getRandomValues(new Uint32Array(1))[0]) },
    target: { type: "string" },
    replay: { type: "string" },
    frames: { type: "string" },
  },
});
const [seconds, seed] = [Number(values.seconds), Number(values.seed)];
/** Frames for each second of the rest, up to the million. */
const frames = Number(values.frames ?? Math.min(1_000_000, Math.round(seconds * 2000)));

const targets = [
  ...WIRE_TARGETS,
  ...FEDERATION_TARGETS,
  ...SLOW_TARGETS,
  ...FILE_TARGETS,
  ...await httpTargets(),
  await dnsTarget(),
];
const wanted = values.replay ? basename(dirname(values.replay)) : values.target;
const chosen = targets.filter(({ name }) => wanted === undefined || name === wanted);
if (chosen.length === 0) {
  console.error(`error: the targets are ${targets.map(({ name }) => name).join(", ")}`);
  Deno.exit(2);
}
configureLogs({ filter: "off", format: "json", write: () => {} });
let failed = false;
try {
  if (values.replay) {
    await chosen[0]!.run(await readInput(values.replay));
    console.log(`${values.replay}: refused or taken as it should be`);
  } else await runAll();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  failed = true;
} finally {
  for (const target of targets) await target.close?.();
}
Deno.exit(failed ? 1 : 0);

async function runAll(): Promise<void> {
  console.log(`seed ${seed}`);
  for (const target of chosen) {
    const kept = await replayCorpus(target);
    const end = performance.now() + seconds * 1000 / chosen.length;
    const { inputs, slowestMs } = await fuzz(target, { seed, goOn: () => performance.now() < end });
    console.log(
      `${target.name.padEnd(14)} ${String(inputs).padStart(9)} inputs and ${kept} kept, slowest ${
        slowestMs.toFixed(1)
      } ms`,
    );
  }
  if (wanted !== undefined || frames === 0) return;
  await attackServerProcess({ frames, seed });
}

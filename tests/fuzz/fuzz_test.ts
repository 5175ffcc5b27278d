/** The short form of `deno task fuzz`: what is kept in the corpus, some new inputs, and a live server for a moment. */
import assert from "node:assert/strict";
import { tempFolder } from "../support/temp_folder.ts";
import { dnsTarget } from "./dns_targets.ts";
import { FEDERATION_TARGETS, SLOW_TARGETS } from "./federation_targets.ts";
import { FILE_TARGETS } from "./file_targets.ts";
import { fuzz, FuzzFind, readCorpus, readInput, replayCorpus } from "./fuzzer.ts";
import { httpTargets } from "./http_targets.ts";
import { attackLiveServer } from "./live.ts";
import type { Target } from "./target.ts";
import { WIRE_TARGETS } from "./wire_targets.ts";

/** The same inputs in every run of the suite; the task takes others. */
const SEED = 1;
const INPUTS = 1000;
const HTTP_INPUTS = 100;
const DNS_INPUTS = 200;
const SLOW_INPUTS = 20;

for (const target of [...WIRE_TARGETS, ...FEDERATION_TARGETS, ...FILE_TARGETS]) {
  Deno.test(`${target.name}: every input of the corpus and ${INPUTS} more are refused or taken as they should be`, async () => {
    await replayCorpus(target);
    await fuzz(target, { seed: SEED, goOn: (inputs) => inputs < INPUTS });
  });
}

for (const target of SLOW_TARGETS) {
  Deno.test(`${target.name}: ${SLOW_INPUTS} inputs are refused or taken as they should be`, async () => {
    await replayCorpus(target);
    await fuzz(target, { seed: SEED, goOn: (inputs) => inputs < SLOW_INPUTS });
  });
}

Deno.test("HTTP requests to the metrics listener and the control socket, of the corpus and more", async () => {
  for (const target of await httpTargets()) {
    try {
      await replayCorpus(target);
      await fuzz(target, { seed: SEED, goOn: (inputs) => inputs < HTTP_INPUTS });
    } finally {
      await target.close?.();
    }
  }
});

Deno.test("answers of a name server, of the corpus and more, name places to connect to or are refused", async () => {
  const target = await dnsTarget();
  try {
    await replayCorpus(target);
    await fuzz(target, { seed: SEED, goOn: (inputs) => inputs < DNS_INPUTS });
  } finally {
    await target.close?.();
  }
});

Deno.test("a live server under malformed frames loses nothing of honest clients and keeps nothing", async () => {
  const { frames, honestMessages } = await attackLiveServer({ frames: 5000, seed: SEED });
  assert.ok(frames >= 5000 && honestMessages > 0);
});

Deno.test("a find is kept, named, and fails again when it is replayed", async () => {
  await using corpus = await tempFolder();
  const planted: Target = {
    name: "planted",
    generate: (random) => random.bytes(20),
    run(input) {
      if (input.length > 5 && input[3]! > 250) throw new TypeError("a planted bug");
    },
  };
  const options = { seed: SEED, goOn: (inputs: number) => inputs < 10_000, corpus: corpus.path };
  const find = await fuzz(planted, options).catch((error) => error);
  assert.ok(find instanceof FuzzFind, "the planted bug is found");
  assert.match(find.message, /planted bug[^]*deno task fuzz --replay/);
  const [kept, ...more] = await readCorpus("planted", corpus.path);
  assert.deepEqual([kept!.path, more.length], [find.path, 0]);
  assert.deepEqual(await readInput(find.path), kept!.input);
  await assert.rejects(replayCorpus(planted, corpus.path), FuzzFind);
});

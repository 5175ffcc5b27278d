/**
 * The loop: inputs from a target's generator or its corpus, changed at random, run one after another. What fails is
 * kept in the corpus, as hexadecimal text, and runs first from then on: in the test suite too.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { exists } from "../../mod/base/files.ts";
import { mutate, Random } from "./random.ts";
import type { Target } from "./target.ts";

/** Where inputs are kept: a folder for each target. */
export const CORPUS = new URL("./corpus", import.meta.url).pathname;

/** An input that a target did not refuse as it should. */
export class FuzzFind extends Error {
  override name = "FuzzFind";

  constructor(readonly target: string, readonly path: string, cause: unknown) {
    const reason = cause instanceof Error ? cause.stack ?? cause.message : String(cause);
    super(`${target} fails on ${path}:\n${reason}\nAgain: deno task fuzz --replay ${path}`, { cause });
  }
}

/** What a run did. */
export interface FuzzReport {
  readonly inputs: number;
  /** Of the input that took longest. */
  readonly slowestMs: number;
}

/** Everything that is kept for a target. */
export async function readCorpus(
  target: string,
  corpus = CORPUS,
): Promise<{ path: string; input: Uint8Array }[]> {
  const folder = join(corpus, target);
  if (!await exists(folder)) return [];
  const names = (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).sort();
  return await Promise.all(names.map(async (name) => {
    const path = join(folder, name);
    return { path, input: await readInput(path) };
  }));
}

/** An input of the corpus. */
export async function readInput(path: string): Promise<Uint8Array<ArrayBuffer>> {
  return Uint8Array.fromHex((await Deno.readTextFile(path)).replaceAll(/\s/g, ""));
}

/** Keeps `input`; returns its path. */
export async function keepInput(target: string, input: Uint8Array, corpus = CORPUS): Promise<string> {
  const folder = join(corpus, target);
  await Deno.mkdir(folder, { recursive: true });
  const path = join(folder, `${createHash("sha256").update(input).digest("hex").slice(0, 12)}.hex`);
  await Deno.writeTextFile(path, input.toHex().replaceAll(/.{80}/g, "$&\n") + "\n");
  return path;
}

/** Runs everything that is kept for `target`. Throws FuzzFind. */
export async function replayCorpus(target: Target, corpus = CORPUS): Promise<number> {
  const kept = await readCorpus(target.name, corpus);
  for (const { path, input } of kept) {
    try {
      await target.run(input);
    } catch (cause) {
      throw new FuzzFind(target.name, path, cause);
    }
  }
  return kept.length;
}

/** Runs new inputs while `goOn` says so. Throws FuzzFind, with the input kept. */
export async function fuzz(
  target: Target,
  options: { seed: number; goOn: (inputs: number) => boolean; corpus?: string },
): Promise<FuzzReport> {
  const random = new Random(seedOf(target.name, options.seed));
  const kept = (await readCorpus(target.name, options.corpus)).map(({ input }) => input);
  const base = () => kept.length > 0 && random.oneIn(3) ? random.pick(kept) : target.generate(random);
  let [inputs, slowestMs] = [0, 0];
  for (; options.goOn(inputs); inputs++) {
    const input = mutate(random, base(), target.generate(random));
    const startedAt = performance.now();
    try {
      await target.run(input);
    } catch (cause) {
      throw new FuzzFind(target.name, await keepInput(target.name, input, options.corpus), cause);
    }
    slowestMs = Math.max(slowestMs, performance.now() - startedAt);
  }
  return { inputs, slowestMs };
}

/** Targets do not depend on each other's number of choices. */
function seedOf(name: string, seed: number): number {
  return createHash("sha256").update(`${name} ${seed}`).digest().readUInt32BE();
}

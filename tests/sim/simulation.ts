/** One simulation from one seed, and how to say that it failed. */
import type { PlantedBug } from "./planted_bugs.ts";
import { SeededRuntime } from "./seeded_runtime.ts";
import { SimClock } from "./sim_clock.ts";
import { SimRandom } from "./sim_random.ts";
import type { SimSurroundings } from "./sim_server.ts";
import { type SimTemplate, SimWorld } from "./sim_world.ts";

/** When every simulation begins. */
export const START = Date.UTC(2030, 0, 1, 12);
/** A simulation that takes more steps than any does is stuck in a circle. */
const STEPS_MAX = 300_000;

/** What a simulation did. */
export interface SimReport {
  readonly seed: number;
  readonly steps: number;
  readonly simulatedMs: number;
  readonly crashes: number;
  readonly accepted: number;
  readonly delivered: number;
  readonly claimed: number;
  readonly commits: number;
}

/** A promise was broken, or the server failed otherwise, in the simulation of this seed. */
export class SimFailure extends Error {
  override name = "SimFailure";
  readonly seed: number;

  constructor(seed: number, cause: unknown, { flags = "", bug }: { flags?: string; bug: string | null }) {
    const flag = bug ? `${flags} --bug "${bug}"` : flags;
    const why = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
    super(`${why}\nReplay it: deno task sim --seed ${seed} --seeds 1${flag}`, { cause });
    this.seed = seed;
  }
}

/** What all simulations begin with. */
export async function makeTemplate(surroundings: SimSurroundings): Promise<SimTemplate> {
  using _runtime = new SeededRuntime(0);
  const clock = new SimClock(START);
  const world = new SimWorld({ clock, random: new SimRandom(0), template: null, surroundings, bug: null });
  return await settled(clock, world.makeTemplate()).then(({ value }) => value);
}

/** Runs the simulation of `seed`. Throws SimFailure. */
export async function simulate(
  seed: number,
  options: { template: SimTemplate; surroundings: SimSurroundings; bug?: PlantedBug | null },
): Promise<SimReport> {
  const { template, surroundings, bug = null } = options;
  using _runtime = new SeededRuntime(seed);
  const clock = new SimClock(START);
  const world = new SimWorld({ clock, random: new SimRandom(seed), template, surroundings, bug });
  try {
    const { steps } = await settled(clock, world.live());
    const { crashes, model } = world;
    return { seed, steps, simulatedMs: clock.monotonic(), crashes, ...model.figures };
  } catch (error) {
    throw new SimFailure(seed, error, { bug: bug?.name ?? null });
  } finally {
    world.server?.kill();
    await clock.settle();
  }
}

/** Lets time pass until `work` is done. A promise that nobody handles is a failure, too. */
export async function settled<Value>(
  clock: SimClock,
  work: Promise<Value>,
): Promise<{ value: Value; steps: number }> {
  let outcome: { value: Value } | null = null;
  let failure: { error: unknown } | null = null;
  const onUnhandled = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    failure ??= { error: event.reason };
  };
  work.then((value) => outcome = { value }, (error) => failure ??= { error });
  addEventListener("unhandledrejection", onUnhandled);
  try {
    for (let steps = 0; steps < STEPS_MAX; steps++) {
      const went = await clock.step();
      if (failure) throw (failure as { error: unknown }).error;
      if (outcome) return { ...outcome as { value: Value }, steps };
      if (!went) throw new Error("Everything waits for something that never comes");
    }
    throw new Error(`Not done after ${STEPS_MAX} steps`);
  } finally {
    removeEventListener("unhandledrejection", onUnhandled);
  }
}

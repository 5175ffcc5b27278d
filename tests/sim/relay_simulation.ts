/** One simulation of two servers from one seed. */
import type { RelayBug } from "./relay_bugs.ts";
import { RelayWorld } from "./relay_world.ts";
import { SeededRuntime } from "./seeded_runtime.ts";
import { SimClock } from "./sim_clock.ts";
import { SimRandom } from "./sim_random.ts";
import { settled, SimFailure, START } from "./simulation.ts";

/** What a simulation did. */
export interface RelayReport {
  readonly seed: number;
  readonly steps: number;
  readonly simulatedMs: number;
  readonly crashes: number;
  readonly accepted: number;
  readonly delivered: number;
  readonly failed: number;
}

/** Runs the simulation of `seed`. Throws SimFailure. */
export async function simulateRelay(seed: number, bug: RelayBug | null = null): Promise<RelayReport> {
  using _runtime = new SeededRuntime(seed);
  const clock = new SimClock(START);
  const world = new RelayWorld({ clock, random: new SimRandom(seed), bug });
  try {
    const { steps } = await settled(clock, world.live());
    const { accepted, delivered, failed } = world.model;
    const crashes = world.sending.crashes + world.receiving.crashes;
    return { seed, steps, simulatedMs: clock.monotonic(), crashes, accepted, delivered, failed };
  } catch (error) {
    throw new SimFailure(seed, error, { flags: " --relay", bug: bug?.name ?? null });
  } finally {
    world.end();
    await clock.settle();
  }
}

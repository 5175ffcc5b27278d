/**
 * Do several kinds of attempt take the same time? Interleaved samples are compared by their lower quartiles, and a
 * series that other work on the machine has disturbed is repeated: what really takes another time does so in every one.
 */

/** One attempt: the milliseconds of each of its phases. */
export type Timed = () => Promise<Readonly<Record<string, number>>>;

const WARM_UP_ROUNDS = 5;
const SERIES_MAX = 4;

/** For each phase how many times longer the slowest kind takes than the fastest: the best of the series; at least 1. */
export async function timeRatios(
  kinds: readonly Timed[],
  options: { rounds: number; enough: number },
): Promise<Record<string, number>> {
  const best: Record<string, number> = {};
  for (let series = 0; series < SERIES_MAX; series++) {
    for (const [phase, ratio] of Object.entries(await oneSeries(kinds, options.rounds))) {
      best[phase] = Math.min(best[phase] ?? Infinity, ratio);
    }
    if (Math.max(...Object.values(best)) <= options.enough) break;
  }
  return best;
}

async function oneSeries(kinds: readonly Timed[], rounds: number): Promise<Record<string, number>> {
  const samples = kinds.map(() => new Map<string, number[]>());
  for (let round = -WARM_UP_ROUNDS; round < rounds; round++) {
    // No kind always comes first.
    for (let i = 0; i < kinds.length; i++) {
      const kind = (i + round + WARM_UP_ROUNDS) % kinds.length;
      const times = await kinds[kind]!();
      if (round < 0) continue;
      for (const [phase, ms] of Object.entries(times)) {
        samples[kind]!.set(phase, [...samples[kind]!.get(phase) ?? [], ms]);
      }
    }
  }
  const ratios: Record<string, number> = {};
  for (const phase of samples[0]!.keys()) {
    const quartiles = samples.map((byPhase) => lowerQuartile(byPhase.get(phase)!));
    ratios[phase] = Math.max(...quartiles) / Math.min(...quartiles);
  }
  return ratios;
}

function lowerQuartile(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 4)]!;
}

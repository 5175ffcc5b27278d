/**
 * `mixed`: several workloads at the same time, each measured by itself. The first one is looked at and is run as it was
 * asked for; the others keep it company for as long as it runs.
 */
import type { BenchPart } from "./bench.ts";
import type { LoadOptions } from "./load.ts";
import { loadOptions, WORKLOAD_NAMES } from "./workloads.ts";

/** Messages one by one, beside some to many recipients, and logins. */
export const MIX_DEFAULT = "pingpong,fanout,login";

/**
 * The parts of a mix such as `pingpong,login:4`: names, and how many connections (1) a companion has, each with one
 * request in flight. Throws RangeError for what is no mix.
 */
export function partsOfMix(text: string, chosen: Partial<LoadOptions>): BenchPart[] {
  return text.split(",").map((word, index) => {
    const [, name, connections] = /^([a-z]+)(?::([1-9]\d{0,5}))?$/.exec(word.trim()) ?? [];
    const workload = WORKLOAD_NAMES.find((each) => each === name);
    if (!workload) {
      throw new RangeError(`A mix is names with or without connections: pingpong,login:4; not ${word}`);
    }
    const company = { connections: Number(connections ?? 1), inFlight: 1 };
    const asked = index > 0
      ? company
      : connections
      ? { ...chosen, connections: Number(connections) }
      : chosen;
    return { workload, options: loadOptions(workload, asked) };
  });
}

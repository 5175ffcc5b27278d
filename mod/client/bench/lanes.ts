/** Lanes and connections of one workload, many at once. */
import type { ServerLink } from "../identity.ts";
import { Lane, type LaneRequests } from "./lane.ts";
import type { LoadOptions } from "./load.ts";
import type { Meter } from "./meter.ts";
import { pacesOf } from "./pace.ts";

/** One lane on each connection. */
export async function makeLanes(
  links: readonly ServerLink[],
  load: { meter: Meter; options: LoadOptions; requests: (lane: Lane, index: number) => LaneRequests },
): Promise<Lane[]> {
  const { meter, options } = load;
  const { inFlight } = options;
  const paces = pacesOf(options.perSecond, links.length);
  return await Promise.all(links.map(async ({ connection }, index) => {
    const requests = (lane: Lane) => load.requests(lane, index);
    return new Lane(await connection.openStream(), { inFlight, meter, pace: paces[index]!, requests });
  }));
}

/** Runs lanes until all have ended. */
export async function runAll(lanes: readonly Lane[]): Promise<void> {
  await Promise.all(lanes.map((lane) => lane.run()));
}

/** Closes connections. */
export async function closeAll(links: readonly ServerLink[]): Promise<void> {
  await Promise.all(links.map(({ connection }) => connection.close()));
}

/**
 * Operations that are a few round trips each, by workers that do one at a time. For whatever is far more work than the
 * promise around it; messages have lanes.
 */
import { delay, systemClock } from "../../base/clock.ts";
import { QpqError } from "../../base/errors.ts";
import { ConnectError } from "../../transport/connect_error.ts";
import { ConnectionLostError } from "../connection.ts";
import type { Meter } from "./meter.ts";
import type { Pace } from "./pace.ts";

/** A worker that was refused rests for as long as the server asks, and no less than this. */
const REST_MS_MIN = 20;
/** A pause is cut into pieces of this length, so that the end of a measurement is not slept through. */
const PAUSE_MS_MAX = 100;

/** Runs `work` by `workers` at once until the meter is stopped. */
export async function runWorkers(
  workers: number,
  load: { meter: Meter; pace: Pace; work: (worker: number) => Promise<void> },
): Promise<void> {
  const { meter, pace, work } = load;
  const worker = async (_: unknown, index: number) => {
    while (meter.open) {
      const now = performance.now();
      const due = pace.take(now);
      if (Number.isNaN(due)) await delay(systemClock, Math.min(PAUSE_MS_MAX, pace.msUntilDue(now)));
      else await operate(meter, due, () => work(index));
    }
  };
  await Promise.all(Array.from({ length: workers }, worker));
}

/** One operation that was due at `due`: how it ended, and how long that took, goes to the meter. */
export async function operate(meter: Meter, due: number, work: () => Promise<void>): Promise<void> {
  meter.begin();
  try {
    await work();
    meter.end(performance.now() - due);
  } catch (error) {
    meter.refuse(refusalName(error));
    const retryAfterMs = error instanceof QpqError ? error.details.retryAfterMs ?? 0 : 0;
    await delay(systemClock, Math.max(REST_MS_MIN, retryAfterMs));
  }
}

/** What a load counts as a refusal; anything else is a failure of the bench itself and thrown. */
function refusalName(error: unknown): string {
  if (error instanceof QpqError) return error.code;
  if (error instanceof ConnectError) return error.problem;
  if (error instanceof ConnectionLostError) return "connectionLost";
  throw error;
}

/** Runs a prepared workload for a time or a number of operations, and says what came of it. */
import { type Clock, systemClock } from "../../base/clock.ts";
import type { Load, LoadOptions } from "./load.ts";
import { Meter } from "./meter.ts";
import type { WorkloadName } from "./workloads.ts";

/** What is under way when a measurement ends has this long to end. */
const ENDING_MS_MAX = 60_000;
const SECOND = 1000;

/** How long. */
export interface Span {
  /** Begins to measure after this. */
  readonly warmUpMs: number;
  readonly durationMs: number;
  /** Ends after so many operations if that is earlier. Null: by time alone. */
  readonly operations: number | null;
}

/** Each second of a measurement. */
export interface Progress {
  /** Seconds since it began; negative in the warm-up. */
  readonly atSecond: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly refused: number;
}

/** What was measured. */
export interface BenchResult {
  readonly workload: WorkloadName;
  readonly connections: number;
  readonly inFlight: number;
  readonly payloadBytes: number;
  /** Operations wanted in a second; null in a closed loop. */
  readonly rate: number | null;
  readonly seconds: number;
  readonly operations: number;
  readonly perSecond: number;
  readonly latencyMs: {
    readonly mean: number;
    readonly p50: number;
    readonly p90: number;
    readonly p99: number;
    readonly p999: number;
    readonly max: number;
  };
  /** Operations that were refused, by the name of the error. */
  readonly refused: Readonly<Record<string, number>>;
  /** Figures of this workload alone. */
  readonly figures: Readonly<Record<string, number>>;
}

/** Runs `load`. Rejects when a connection is lost, or what is under way does not end. */
export async function runLoad(load: Load, run: {
  workload: WorkloadName;
  options: LoadOptions;
  span: Span;
  onProgress: (progress: Progress) => void;
  /** Ends it early. */
  signal?: AbortSignal;
  clock?: Clock;
}): Promise<BenchResult> {
  const { span } = run;
  const clock = run.clock ?? systemClock;
  const meter = new Meter(span.operations === null ? {} : { operationsMax: span.operations });
  const { warmUpMs } = span;
  const end = () => meter.stop();
  run.signal?.addEventListener("abort", end, { once: true });
  const timers = [clock.after(warmUpMs + span.durationMs, end)];
  if (warmUpMs > 0) timers.push(clock.after(warmUpMs, () => meter.measure()));
  else meter.measure();
  const beganAt = clock.monotonic() + warmUpMs;
  const ticker = setInterval(() => {
    const { operations, p50Ms, p99Ms } = meter.takeRecent();
    const refused = [...meter.refused.values()].reduce((sum, count) => sum + count, 0);
    const atSecond = Math.round((clock.monotonic() - beganAt) / SECOND);
    run.onProgress({ atSecond, perSecond: operations, p50Ms, p99Ms, refused });
  }, SECOND);
  try {
    meter.stopped.then(() => clearInterval(ticker));
    const late = Promise.withResolvers<never>();
    meter.stopped.then(() =>
      timers.push(clock.after(ENDING_MS_MAX, () => late.reject(new Error(NOT_ENDING))))
    );
    await Promise.race([load.run(meter), late.promise]);
  } finally {
    clearInterval(ticker);
    for (const cancel of timers) cancel();
    run.signal?.removeEventListener("abort", end);
  }
  return resultOf(meter, run, load.figures?.(meter) ?? {});
}

const NOT_ENDING = `Operations that were under way had no end within ${ENDING_MS_MAX / SECOND} s`;

function resultOf(
  meter: Meter,
  { workload, options }: { workload: WorkloadName; options: LoadOptions },
  figures: Readonly<Record<string, number>>,
): BenchResult {
  const { latency, operations, seconds } = meter;
  const { connections, inFlight, payloadBytes } = options;
  return {
    workload,
    connections,
    inFlight,
    payloadBytes,
    rate: options.perSecond,
    seconds,
    operations,
    perSecond: seconds > 0 ? operations / seconds : 0,
    latencyMs: {
      mean: latency.meanMs,
      p50: latency.quantileMs(0.5),
      p90: latency.quantileMs(0.9),
      p99: latency.quantileMs(0.99),
      p999: latency.quantileMs(0.999),
      max: latency.maxMs,
    },
    refused: Object.fromEntries(meter.refused),
    figures,
  };
}

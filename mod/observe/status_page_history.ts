/**
 * What the charts of the status page show: numbers sampled from the metrics every few seconds into rings of fixed
 * size (an hour in steps of 5 s, a day in steps of 2 min). In memory only: a restart begins anew, Prometheus keeps.
 */
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import type { Metrics } from "./metrics.ts";
import { between, type MethodReading, quantile, type Reading, readMetrics } from "./status_page_reading.ts";

const log = logger("health");

/** Time between two samples. */
export const SAMPLE_MS = 5_000;

/** A time span of the charts. Rates and quantiles of a sample are those of the last `stepsBack` steps. */
interface Range {
  readonly stepMs: number;
  readonly samples: number;
  readonly stepsBack: number;
}

/** The charts' time spans. A few logins in 5 s would be a comb: the hour's samples look back a minute. */
export const RANGES = {
  "1h": { stepMs: SAMPLE_MS, samples: 720, stepsBack: 12 },
  "24h": { stepMs: 24 * SAMPLE_MS, samples: 720, stepsBack: 1 },
} as const satisfies Record<string, Range>;

/** Name of a time span. */
export type RangeName = keyof typeof RANGES;

/** The method table looks back over so many steps of the day's ring: about 10 minutes. */
const METHOD_MARKS_MAX = 6;

const DAY_S = 86_400;

/** Each series: its value from an earlier reading and the newest one, `seconds` apart. NaN: there is none. */
const SERIES = {
  enqueued: (a, b, seconds) => (b.numbers.enqueued - a.numbers.enqueued) / seconds,
  fetched: (a, b, seconds) => (b.numbers.fetched - a.numbers.fetched) / seconds,
  bytes: (a, b, seconds) => (b.numbers.enqueuedBytes - a.numbers.enqueuedBytes) / seconds,
  depth: (_, b) => b.numbers.queueDepth,
  enqueueP50: (a, b) => 1000 * enqueueQuantile(0.5, a, b),
  enqueueP99: (a, b) => 1000 * enqueueQuantile(0.99, a, b),
  loginsOk: (a, b, seconds) => 60 * (b.numbers.loginsOk - a.numbers.loginsOk) / seconds,
  loginsFailed: (a, b, seconds) => 60 * (b.numbers.loginsFailed - a.numbers.loginsFailed) / seconds,
  connections: (_, b) => b.numbers.connections,
  sessions: (_, b) => b.numbers.sessions,
  refused: (a, b, seconds) => (b.numbers.refused - a.numbers.refused) / seconds,
  errors: (a, b, seconds) => (b.numbers.errors - a.numbers.errors) / seconds,
  cpu: (a, b, seconds) => 100 * (b.numbers.cpuSeconds - a.numbers.cpuSeconds) / seconds,
  lag: (a, b) => 1000 * quantile(0.99, between(a.lag, b.lag)),
  memory: (_, b) => b.numbers.memoryBytes,
  certificateDays: (_, b) =>
    b.numbers.certificateExpiry > 0 ? (b.numbers.certificateExpiry - b.atMs / 1000) / DAY_S : NaN,
  backupHours: (_, b) =>
    b.numbers.backupLast > 0 ? Math.max(0, b.atMs / 1000 - b.numbers.backupLast) / 3600 : NaN,
} satisfies Record<string, (earlier: Reading, later: Reading, seconds: number) => number>;

/** Name of a series. */
export type SeriesName = keyof typeof SERIES;

const SERIES_NAMES = Object.keys(SERIES) as SeriesName[];

function enqueueQuantile(share: number, earlier: Reading, later: Reading): number {
  const now = later.methods.get("enqueue");
  return now ? quantile(share, between(earlier.methods.get("enqueue")?.times, now.times)) : NaN;
}

/** Samples of one range, oldest first. Null where there is no number. */
export interface Samples {
  readonly stepS: number;
  readonly windowS: number;
  /** Unix time in seconds. */
  readonly times: readonly number[];
  readonly series: Readonly<Record<SeriesName, readonly (number | null)[]>>;
}

/** A row of the method table. */
export interface MethodRow {
  readonly method: string;
  readonly perSecond: number;
  readonly errorShare: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Bounded memory of the samples of one range. */
class Ring {
  readonly #range: Range;
  readonly #times: Float64Array;
  readonly #columns: Float64Array[];
  /** Oldest first. */
  readonly #readings: Reading[] = [];
  #written = 0;

  constructor(range: Range) {
    this.#range = range;
    this.#times = new Float64Array(range.samples);
    this.#columns = SERIES_NAMES.map(() => new Float64Array(range.samples));
  }

  /** Takes the reading if its time has come; returns whether it did. */
  offer(reading: Reading): boolean {
    const { stepMs, samples, stepsBack } = this.#range;
    const last = this.#readings.at(-1);
    // Timers are never early, but may be a little late each time.
    if (last && reading.monotonicMs - last.monotonicMs < stepMs - SAMPLE_MS / 2) return false;
    this.#readings.push(reading);
    if (!last) return true;
    const earlier = this.#readings[0]!;
    if (this.#readings.length > stepsBack) this.#readings.shift();
    const slot = this.#written++ % samples;
    this.#times[slot] = reading.atMs / 1000;
    const seconds = (reading.monotonicMs - earlier.monotonicMs) / 1000;
    for (const [i, name] of SERIES_NAMES.entries()) {
      this.#columns[i]![slot] = SERIES[name](earlier, reading, seconds);
    }
    return true;
  }

  /** The newest value of a series; NaN without one. */
  lastValue(name: SeriesName): number {
    if (this.#written === 0) return NaN;
    return this.#columns[SERIES_NAMES.indexOf(name)]![(this.#written - 1) % this.#range.samples]!;
  }

  /** Samples after `sinceS`. */
  samples(sinceS: number): Samples {
    const { stepMs, samples } = this.#range;
    const slots: number[] = [];
    for (let i = Math.max(0, this.#written - samples); i < this.#written; i++) {
      if (this.#times[i % samples]! > sinceS) slots.push(i % samples);
    }
    const column = (values: Float64Array) => slots.map((slot) => shortened(values[slot]!));
    return {
      stepS: stepMs / 1000,
      windowS: stepMs * samples / 1000,
      times: slots.map((slot) => this.#times[slot]!),
      series: Object.fromEntries(SERIES_NAMES.map((name, i) => [name, column(this.#columns[i]!)])) as Record<
        SeriesName,
        (number | null)[]
      >,
    };
  }
}

/** Four digits are enough for a chart; NaN is null in JSON anyway. */
function shortened(value: number): number | null {
  return Number.isFinite(value) ? Number(value.toPrecision(4)) : null;
}

/** Samples the metrics from start() to stop(). */
export class StatusHistory {
  readonly #metrics: Metrics;
  readonly #clock: Clock;
  readonly #rings = { "1h": new Ring(RANGES["1h"]), "24h": new Ring(RANGES["24h"]) };
  readonly #methodMarks: Reading[] = [];
  #latest: Reading | undefined;
  #running: Promise<void> | undefined;
  #cancel: () => void = () => {};
  #stopped = false;

  constructor(metrics: Metrics, clock: Clock) {
    this.#metrics = metrics;
    this.#clock = clock;
  }

  /** Takes the first reading and goes on until stop(). */
  start(): void {
    this.#running = this.#sample()
      .catch((error) =>
        log.error("a sample for the status page failed: {error}", { error: messageOf(error) })
      )
      .finally(() => {
        if (!this.#stopped) this.#cancel = this.#clock.after(SAMPLE_MS, () => this.start());
      });
  }

  /** Resolves when no reading is being taken any more. Idempotent. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancel();
    await this.#running;
  }

  async #sample(): Promise<void> {
    const reading = await readMetrics(this.#metrics, this.#clock);
    this.#latest = reading;
    this.#rings["1h"].offer(reading);
    if (!this.#rings["24h"].offer(reading)) return;
    this.#methodMarks.push(reading);
    if (this.#methodMarks.length > METHOD_MARKS_MAX) this.#methodMarks.shift();
  }

  /** The newest reading; waits for the first. */
  async latest(): Promise<Reading> {
    if (!this.#latest) await this.#running;
    if (!this.#latest) throw new Error("The metrics could not be read yet");
    return this.#latest;
  }

  /** A series over the last minute; NaN without a sample. */
  lastMinute(name: SeriesName): number {
    return this.#rings["1h"].lastValue(name);
  }

  /** Samples of a range that came after `sinceS` (Unix time). */
  samples(range: RangeName, sinceS: number): Samples {
    return this.#rings[range].samples(sinceS);
  }

  /** Methods called in the last ten minutes or so, busiest first. */
  async methods(): Promise<MethodRow[]> {
    const later = await this.latest();
    const earlier = this.#methodMarks[0]!;
    const seconds = (later.monotonicMs - earlier.monotonicMs) / 1000;
    return [...later.methods].flatMap(([method, now]) =>
      methodRow(method, now, { before: earlier.methods.get(method), seconds })
    ).sort((a, b) => b.perSecond - a.perSecond || (a.method < b.method ? -1 : 1));
  }
}

function methodRow(
  method: string,
  now: MethodReading,
  { before, seconds }: { before: MethodReading | undefined; seconds: number },
): MethodRow[] {
  const times = between(before?.times, now.times);
  const count = times.counts.at(-1) ?? 0;
  if (count === 0 || seconds === 0) return [];
  return [{
    method,
    perSecond: count / seconds,
    errorShare: (now.errors - (before?.errors ?? 0)) / count,
    p50Ms: 1000 * quantile(0.5, times),
    p99Ms: 1000 * quantile(0.99, times),
  }];
}

/**
 * One look at the metrics for the status page: plain numbers, and the request times by method as cumulative
 * buckets, so that the difference of two readings gives rates and quantiles of the time between them.
 */
import type { Clock } from "../base/clock.ts";
import type { Metrics } from "./metrics.ts";

/** What is read of the metrics without labels; labelled ones are summed. */
const NUMBERS = {
  enqueued: "enqueue_total",
  enqueuedBytes: "enqueue_bytes_total",
  fetched: "fetch_total",
  loginsOk: "auth_login_success_total",
  loginsFailed: "auth_login_failure_total",
  refused: "rate_limit_hit_total",
  errors: "qpq_request_errors_total",
  queueDepth: "delivery_queue_depth",
  queueBytes: "qpq_store_queue_bytes",
  connections: "qpq_connections",
  sessions: "qpq_sessions_online",
  subscribers: "qpq_subscribers",
  waiters: "qpq_fetch_waiters",
  accounts: "qpq_store_accounts",
  devices: "qpq_store_devices",
  keyPackages: "qpq_store_key_packages",
  blobs: "qpq_store_blobs",
  blobBytes: "qpq_store_blob_bytes",
  diskBytes: "qpq_store_disk_bytes",
  certificateExpiry: "qpq_tls_certificate_expiry_timestamp_seconds",
  backupLast: "qpq_backup_last_success_timestamp_seconds",
  backupInterval: "qpq_backup_interval_seconds",
  startedAt: "process_start_time_seconds",
  cpuSeconds: "process_cpu_seconds_total",
  memoryBytes: "process_resident_memory_bytes",
  unhandled: "qpq_unhandled_rejections_total",
} as const;

/** Name of a number in a reading. */
export type NumberName = keyof typeof NUMBERS;

/** A histogram: upper bounds without the infinite one, and cumulative counts with it. */
export interface Buckets {
  readonly bounds: readonly number[];
  readonly counts: readonly number[];
}

/** Requests of a method since the start. */
export interface MethodReading {
  readonly times: Buckets;
  readonly errors: number;
}

/** The metrics at one moment. */
export interface Reading {
  readonly atMs: number;
  readonly monotonicMs: number;
  readonly numbers: Readonly<Record<NumberName, number>>;
  /** Methods that were called at least once. */
  readonly methods: ReadonlyMap<string, MethodReading>;
  readonly lag: Buckets;
}

interface Value {
  readonly value: number;
  readonly labels: Partial<Record<string, string | number>>;
  readonly metricName?: string;
}

/** Reads them; gauges that must be asked for are asked. */
export async function readMetrics(metrics: Metrics, clock: Clock): Promise<Reading> {
  await metrics.refresh();
  const values = async (name: string): Promise<readonly Value[]> =>
    (await metrics.registry.getSingleMetric(name)?.get())?.values ?? [];
  const numbers: Partial<Record<NumberName, number>> = {};
  for (const [name, metric] of Object.entries(NUMBERS)) {
    numbers[name as NumberName] = sum(await values(metric));
  }
  return {
    atMs: clock.now(),
    monotonicMs: clock.monotonic(),
    numbers: numbers as Record<NumberName, number>,
    methods: methodsOf(await values("qpq_request_seconds")),
    lag: bucketsOf(await values("qpq_event_loop_lag_seconds")),
  };
}

function sum(values: readonly Value[]): number {
  return values.reduce((total, { value }) => total + value, 0);
}

function methodsOf(values: readonly Value[]): Map<string, MethodReading> {
  const byMethod = Map.groupBy(values, ({ labels }) => String(labels["method"]));
  const methods = new Map<string, MethodReading>();
  for (const [method, all] of byMethod) {
    const times = bucketsOf(all);
    if ((times.counts.at(-1) ?? 0) === 0) continue;
    const failed = bucketsOf(all.filter(({ labels }) => labels["outcome"] === "error"));
    methods.set(method, { times, errors: failed.counts.at(-1) ?? 0 });
  }
  return methods;
}

/** Buckets of a histogram, added up over all labels but `le`. */
function bucketsOf(values: readonly Value[]): Buckets {
  const counts = new Map<number, number>();
  for (const { labels, metricName, value } of values) {
    if (!metricName?.endsWith("_bucket")) continue;
    const bound = labels["le"] === "+Inf" ? Infinity : Number(labels["le"]);
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  const bounds = [...counts.keys()].sort((a, b) => a - b);
  return {
    bounds: bounds.filter((bound) => bound !== Infinity),
    counts: bounds.map((bound) => counts.get(bound)!),
  };
}

/** What came between two readings of a histogram. */
export function between(earlier: Buckets | undefined, later: Buckets): Buckets {
  return {
    bounds: later.bounds,
    counts: later.counts.map((count, i) => Math.max(0, count - (earlier?.counts[i] ?? 0))),
  };
}

/** As Prometheus' histogram_quantile: linear within a bucket, the last bound beyond it. NaN without values. */
export function quantile(share: number, { bounds, counts }: Buckets): number {
  const rank = share * (counts.at(-1) ?? 0);
  if (rank === 0) return NaN;
  const i = counts.findIndex((count) => count >= rank);
  if (i >= bounds.length) return bounds.at(-1) ?? NaN;
  const [from, below] = i === 0 ? [0, 0] : [bounds[i - 1]!, counts[i - 1]!];
  return from + (bounds[i]! - from) * (rank - below) / (counts[i]! - below);
}

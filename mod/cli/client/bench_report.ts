/** What `bench` prints: a line for each second on stderr, and the result as a table or an object. */
import type { BenchResult, Progress } from "../../client/bench/run.ts";
import { workloadOf } from "../../client/bench/workloads.ts";
import { table } from "./output.ts";

/** One second. */
export function progressText(progress: Progress, unit: string): string {
  const { atSecond, perSecond, p50Ms, p99Ms, refused } = progress;
  if (atSecond <= 0) return `progress: warming up, ${-atSecond} s to go`;
  const tail = refused > 0 ? `, ${count(refused)} refused` : "";
  return `progress: ${atSecond} s, ${count(perSecond)} ${unit}/s, p50 ${ms(p50Ms)}, p99 ${ms(p99Ms)}${tail}`;
}

/** The results for people: what was run, a table, and what a table has no room for. */
export function resultsText(results: readonly BenchResult[]): string {
  const head = ["workload", "per second", "p50", "p90", "p99", "p99.9", "max"];
  const rows = results.map(({ workload, perSecond, latencyMs }) => {
    const { p50, p90, p99, p999, max } = latencyMs;
    return [workload, count(perSecond), ...[p50, p90, p99, p999, max].map(ms)];
  });
  return [...results.map(loadText), table(head, rows), ...results.flatMap(remarks)].join("\n");
}

function loadText(result: BenchResult): string {
  const { workload, connections, inFlight, payloadBytes, rate, operations, seconds } = result;
  const wanted = rate === null ? "" : `, ${count(rate)}/s wanted`;
  const load = `${connections} connections x ${inFlight} in flight, ${payloadBytes} bytes${wanted}`;
  const { unit } = workloadOf(workload);
  return `${workload}: ${load}: ${count(operations)} ${unit} in ${seconds.toFixed(1)} s`;
}

function remarks({ workload, figures, refused }: BenchResult): string[] {
  return [
    ...Object.entries(figures).map(([name, value]) => `${workload}: ${words(name)}: ${count(value)}`),
    ...Object.entries(refused).map(([name, times]) => `${workload}: refused (${name}): ${count(times)}`),
  ];
}

/** The result for programs: the same, numbers cut to what was measured. */
export function resultJson(result: BenchResult): Record<string, unknown> {
  const latencyMs = Object.fromEntries(
    Object.entries(result.latencyMs).map(([name, value]) => [name, round(value, 3)]),
  );
  const figures = Object.fromEntries(
    Object.entries(result.figures).map(([name, value]) => [name, round(value, 3)]),
  );
  const { seconds, perSecond } = result;
  return { ...result, seconds: round(seconds, 3), perSecond: round(perSecond, 1), latencyMs, figures };
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

/** `31,204`; a number below 100 keeps one digit behind the point. */
function count(value: number): string {
  return value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 });
}

function ms(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : 1)} ms`;
}

/** `entries per second` for `entriesPerSecond`. */
function words(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

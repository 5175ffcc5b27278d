/** What `bench` prints: a line for each second on stderr, and the result as a table or an object. */
import type { BenchResult, Progress } from "../../client/bench/run.ts";
import { table } from "./output.ts";

/** What is going on. */
export function stageText(workload: string, stage: string): string {
  return `${workload}: ${stage}`;
}

/** One second. */
export function progressText(progress: Progress, unit: string): string {
  const { atSecond, perSecond, p50Ms, p99Ms, refused } = progress;
  if (atSecond <= 0) return `progress: warming up, ${-atSecond} s to go`;
  const tail = refused > 0 ? `, ${count(refused)} refused` : "";
  return `progress: ${atSecond} s, ${count(perSecond)} ${unit}/s, p50 ${ms(p50Ms)}, p99 ${ms(p99Ms)}${tail}`;
}

/** The result for people. */
export function resultText(result: BenchResult, unit: string): string {
  const { latencyMs, refused, figures } = result;
  const load =
    `${result.connections} connections x ${result.inFlight} in flight, ${result.payloadBytes} bytes` +
    (result.rate === null ? "" : `, ${count(result.rate)}/s wanted`);
  const head = ["workload", `${unit}/s`, "p50", "p90", "p99", "p99.9", "max"];
  const { p50, p90, p99, p999, max } = latencyMs;
  const row = [result.workload, count(result.perSecond), ...[p50, p90, p99, p999, max].map(ms)];
  const lines = [
    `${load}: ${count(result.operations)} ${unit} in ${result.seconds.toFixed(1)} s`,
    table(head, [row]),
    ...Object.entries(figures).map(([name, value]) => `${words(name)}: ${count(value)}`),
    ...Object.entries(refused).map(([name, times]) => `refused (${name}): ${count(times)}`),
  ];
  return lines.join("\n");
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

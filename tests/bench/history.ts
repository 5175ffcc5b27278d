/**
 * The figures of former runs, one JSON object a line, oldest first, so that a loss shows. Only runs of the same
 * machine are compared: figures of another one say nothing.
 */
import type { Machine } from "../../ops/scaling/machine.ts";

/** A workload and its limit, measured in one run. */
export interface Figure {
  readonly name: string;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** The lowest of its limits, a second; null where there is none. */
  readonly limitPerSecond: number | null;
  /** What sets that limit. */
  readonly limitBy: string | null;
  /** Of the minute before it: with others at work it is a lower bound. */
  readonly load: number;
}

/** One run. */
export interface Entry {
  readonly date: string;
  /** Short id; with a `+` behind it when files were changed. Null: not known. */
  readonly commit: string | null;
  readonly version: string;
  readonly machine: Machine;
  readonly figures: readonly Figure[];
}

/** Where the history is. */
export const HISTORY_FILE = new URL("./history.jsonl", import.meta.url);

/** All entries. */
export async function readHistory(path: string | URL): Promise<Entry[]> {
  const text = await Deno.readTextFile(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  });
  return text.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line) as Entry);
}

/** Adds an entry. */
export async function appendHistory(path: string | URL, entry: Entry): Promise<void> {
  await Deno.writeTextFile(path, JSON.stringify(entry) + "\n", { append: true });
}

/** The latest entry of the same machine; undefined when there is none. */
export function formerEntry(history: readonly Entry[], machine: Machine): Entry | undefined {
  return history.findLast((entry) =>
    entry.machine.processor === machine.processor && entry.machine.cores === machine.cores
  );
}

/** Part of its limit that a workload reaches; null without a limit. */
export function shareOf({ perSecond, limitPerSecond }: Figure): number | null {
  return limitPerSecond === null ? null : perSecond / limitPerSecond;
}

/** By what part throughput has changed since `former`: 0.1 is a tenth more. Null when that has no such figure. */
export function changeOf(figure: Figure, former: Entry | undefined): number | null {
  const before = former?.figures.find(({ name }) => name === figure.name);
  return before && before.perSecond > 0 ? figure.perSecond / before.perSecond - 1 : null;
}

/** The table for people. */
export function tableOf(entry: Entry, former: Entry | undefined): string {
  const head = ["workload", "per second", "p50", "p99", "limit", "set by", "share", "change", "load"];
  const rows = entry.figures.map((figure) => [
    figure.name,
    count(figure.perSecond),
    `${figure.p50Ms.toFixed(2)} ms`,
    `${figure.p99Ms.toFixed(2)} ms`,
    figure.limitPerSecond === null ? "" : count(figure.limitPerSecond),
    figure.limitBy ?? "",
    percent(shareOf(figure), ""),
    percent(changeOf(figure, former), "+"),
    figure.load.toFixed(1),
  ]);
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  const lines = all.map((row) =>
    row.map((cell, column) => cell.padEnd(widths[column]!)).join("  ").trimEnd()
  );
  const { machine, commit, version } = entry;
  return [
    `${version} (${commit ?? "commit not known"}) on ${machine.processor}, ${machine.cores} cores, fsync ${
      machine.fsyncMs.toFixed(2)
    } ms, load before the run ${machine.loadBefore.toFixed(1)}`,
    former
      ? `change: against ${former.commit ?? "?"} of ${former.date}, load then ${
        former.machine.loadBefore.toFixed(1)
      }`
      : "change: there is no former run on this machine",
    "",
    ...lines,
  ].join("\n");
}

function count(value: number): string {
  return Number(value.toPrecision(3)).toLocaleString("en");
}

function percent(share: number | null, plus: string): string {
  if (share === null) return "";
  const rounded = Math.round(share * 100);
  return `${rounded > 0 ? plus : ""}${rounded} %`;
}

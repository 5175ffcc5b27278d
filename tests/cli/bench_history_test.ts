/** The history of `deno task bench`: what a run is compared with, and what the table says. */
import assert from "node:assert/strict";
import { join } from "node:path";
import {
  appendHistory,
  changeOf,
  type Entry,
  type Figure,
  formerEntry,
  readHistory,
  shareOf,
  tableOf,
} from "../bench/history.ts";
import { RUNS } from "../bench/runs.ts";
import { tempFolder } from "../support/temp_folder.ts";

const MACHINE = {
  processor: "Fast",
  cores: 2,
  memoryBytes: 1,
  system: "Linux",
  deno: "2",
  fsyncMs: 0.2,
  loadBefore: 0.5,
};
const FIGURE: Figure = {
  name: "enqueue 1 x 256",
  perSecond: 30_000,
  p50Ms: 8.25,
  p99Ms: 20,
  limitPerSecond: 40_000,
  limitBy: "disk",
  load: 0.5,
};

const entry = (
  commit: string,
  machine: Partial<Entry["machine"]> = {},
  figure: Partial<Figure> = {},
): Entry => ({
  date: "2026-01-02T03:04:05.000Z",
  commit,
  version: "1.2.3",
  machine: { ...MACHINE, ...machine },
  figures: [{ ...FIGURE, ...figure }],
});

Deno.test("the history is read as it was written, and is empty before the first run", async () => {
  await using folder = await tempFolder();
  const path = join(folder.path, "history.jsonl");
  assert.deepEqual(await readHistory(path), []);
  await appendHistory(path, entry("a"));
  await appendHistory(path, entry("b"));
  assert.deepEqual(await readHistory(path), [entry("a"), entry("b")]);
});

Deno.test("a run is compared with the last one of the same machine", () => {
  const history = [entry("a"), entry("b"), entry("c", { processor: "Slow" }), entry("d", { cores: 4 })];
  assert.equal(formerEntry(history, MACHINE)?.commit, "b");
  assert.equal(formerEntry(history, { ...MACHINE, processor: "New" }), undefined);
});

Deno.test("share and change are parts, and null where there is nothing to compare with", () => {
  assert.equal(shareOf(FIGURE), 0.75);
  assert.equal(shareOf({ ...FIGURE, limitPerSecond: null }), null);
  assert.ok(Math.abs(changeOf(FIGURE, entry("a", {}, { perSecond: 40_000 }))! - -0.25) < 1e-9);
  assert.equal(changeOf(FIGURE, entry("a", {}, { name: "other" })), null);
  assert.equal(changeOf(FIGURE, undefined), null);
});

Deno.test("the table shows share and change, and how busy the machine was", () => {
  const text = tableOf(entry("now"), entry("then", { loadBefore: 3 }, { perSecond: 24_000 }));
  assert.match(text, /^1\.2\.3 \(now\) on Fast, 2 cores, fsync 0\.20 ms, load before the run 0\.5$/m);
  assert.match(text, /^change: against then of 2026-01-02T03:04:05\.000Z, load then 3\.0$/m);
  assert.match(text, /^enqueue 1 x 256 +30,000 +8\.25 ms +20\.00 ms +40,000 +disk +75 % +\+25 % +0\.5$/m);
  assert.match(tableOf(entry("now"), undefined), /no former run on this machine/);
});

Deno.test("every run has a name of its own, as the history goes by names", () => {
  assert.equal(new Set(RUNS.map(({ name }) => name)).size, RUNS.length);
});

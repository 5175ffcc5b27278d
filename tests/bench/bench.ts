/**
 * `deno task bench [--quick] [--json] [--only TEXT] [--no-history]`: each workload of `qpq-client bench` against a
 * server that is started for it, and in the same run the limits: what the disk takes by prepared statements alone,
 * and what the network takes with nobody behind it. Prints each workload as a share of its limit and as a change
 * against the last run on this machine, and adds the run to history.jsonl (not a quick one: it is too short to be
 * compared). Linux only: the server is looked at through /proc.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { VERSION } from "../../mod/base/version.ts";
import { describeMachine } from "../../ops/scaling/machine.ts";
import { MeasuredServer } from "../../ops/scaling/measured_server.ts";
import {
  appendHistory,
  type Entry,
  type Figure,
  formerEntry,
  HISTORY_FILE,
  readHistory,
  tableOf,
} from "./history.ts";
import { runClient, runScript } from "./processes.ts";
import { type LimitRun, RUNS, type WorkloadRun } from "./runs.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** How long each is measured. */
interface Plan {
  readonly duration: string;
  readonly warmUp: string;
  readonly limitSeconds: string;
  readonly limitsTwice: boolean;
  readonly backlog: string;
}

const FULL: Plan = { duration: "5s", warmUp: "2s", limitSeconds: "2", limitsTwice: true, backlog: "200000" };
const QUICK: Plan = {
  duration: "800ms",
  warmUp: "400ms",
  limitSeconds: "0.4",
  limitsTwice: false,
  backlog: "5000",
};

async function measureRuns(runs: readonly WorkloadRun[], plan: Plan): Promise<Figure[]> {
  await using server = await MeasuredServer.make("sqlcipher", null);
  await server.start();
  return await inTurn(runs, (run) => measureRun(run, server, plan));
}

async function inTurn<Item, Result>(
  items: readonly Item[],
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  for (const item of items) results.push(await work(item));
  return results;
}

async function measureRun(run: WorkloadRun, server: MeasuredServer, plan: Plan): Promise<Figure> {
  console.error(run.name);
  const load = Deno.loadavg()[0]!;
  // Before and after, the better counts: a limit that was found while others were at work is none.
  const before = plan.limitsTwice ? await runLimits(run, plan) : [];
  const span = ["--duration", plan.duration, "--warm-up", plan.warmUp, "--backlog", plan.backlog];
  const { perSecond, latencyMs } = await runClient(server, [...run.words, ...span]);
  const after = await runLimits(run, plan);
  let lowest: { perSecond: number; by: string } | null = null;
  for (const [index, { by }] of run.limits.entries()) {
    const best = Math.max(before[index] ?? 0, after[index]!);
    if (!lowest || best < lowest.perSecond) lowest = { perSecond: best, by };
  }
  return {
    name: run.name,
    perSecond: round(perSecond),
    p50Ms: latencyMs.p50,
    p99Ms: latencyMs.p99,
    limitPerSecond: lowest && round(lowest.perSecond),
    limitBy: lowest && lowest.by,
    load,
  };
}

function runLimits({ limits }: WorkloadRun, plan: Plan): Promise<number[]> {
  return inTurn(limits, (limit) => runLimit(limit, plan));
}

async function runLimit({ script, words }: LimitRun, plan: Plan): Promise<number> {
  const path = join(ROOT, "tests", "bench", script);
  return (await runScript(path, [...words, "--seconds", plan.limitSeconds])).perSecond;
}

async function commitNow(): Promise<string | null> {
  const git = async (...args: string[]) => {
    const { success, stdout } = await new Deno.Command("git", { args, cwd: ROOT, stderr: "null" }).output();
    return success ? new TextDecoder().decode(stdout).trim() : null;
  };
  try {
    const commit = await git("rev-parse", "--short", "HEAD");
    return commit && commit + (await git("status", "--porcelain", "--untracked-files=no") ? "+" : "");
  } catch {
    return null; // no git, or no repository
  }
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      only: { type: "string", default: "" },
      "no-history": { type: "boolean", default: false },
    },
  });
  const plan = values.quick ? QUICK : FULL;
  const runs = RUNS.filter((run) => (run.quick || !values.quick) && run.name.includes(values.only));
  const machine = await describeMachine(null);
  // Each on a new server: what the one before has left would be a part of it. Quick runs are too rough for that.
  const figures = values.quick
    ? await measureRuns(runs, plan)
    : (await inTurn(runs, (run) => measureRuns([run], plan))).flat();
  const date = new Date().toISOString();
  const entry: Entry = { date, commit: await commitNow(), version: VERSION, machine, figures };
  const former = formerEntry(await readHistory(HISTORY_FILE), machine);
  console.log(values.json ? JSON.stringify(entry) : tableOf(entry, former));
  if (!values.quick && values.only === "" && !values["no-history"]) await appendHistory(HISTORY_FILE, entry);
}

if (import.meta.main) await main();

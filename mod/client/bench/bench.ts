/** One bench from its first account to its last: prepare, run, and take everything away again. */
import { AckedLog } from "./acked_log.ts";
import { BenchAccounts } from "./bench_accounts.ts";
import { BenchServer, type BenchTarget } from "./bench_server.ts";
import { newRun } from "./enqueue_template.ts";
import type { BenchContext, Load, LoadOptions } from "./load.ts";
import { type BenchResult, type Progress, runLoad, type Span } from "./run.ts";
import { type WorkloadName, workloadOf } from "./workloads.ts";

/** For as long as there is work, or company is wanted. */
const UNTIL_DONE = { durationMs: 24 * 3_600_000, operations: null };

/** A workload and what it is run with. */
export interface BenchPart {
  readonly workload: WorkloadName;
  readonly options: LoadOptions;
}

/** What to run. */
export interface BenchRun {
  /** All at the same time; it is over when the first one is. */
  readonly parts: readonly BenchPart[];
  readonly span: Span;
  /** Where to write what was acknowledged; the recipients' accounts then stay for `verify`. */
  readonly ackedLogPath?: string | undefined;
  /** Leaves the accounts on the server. */
  readonly keep?: boolean;
  readonly onStage?: (text: string) => void;
  /** Of the first part. */
  readonly onProgress?: (progress: Progress) => void;
  /** Ends the measurement early; what was measured until then is the result. */
  readonly signal?: AbortSignal;
}

/** Runs workloads against a server; a result for each. The accounts are deleted also when it fails. */
export async function runBench(target: BenchTarget, run: BenchRun): Promise<BenchResult[]> {
  const server = new BenchServer(target);
  const id = newRun(Date.now());
  const accounts = new BenchAccounts(server, { run: id });
  using ackedLog = run.ackedLogPath === undefined ? null : new AckedLog(run.ackedLogPath, id);
  let number = 0;
  const context: BenchContext = { server, accounts, run: id, ackedLog, nextNumber: () => number++ };
  const clean = async () => {
    if (run.keep) return;
    run.onStage?.("deleting accounts");
    await accounts.deleteAll(ackedLog?.recipients);
  };
  let results: BenchResult[];
  try {
    results = await prepareAndRun(context, run);
  } catch (error) {
    // A server that went away cannot delete anything either: what ended the bench is what has to be told.
    await clean().catch(() => {});
    throw error;
  }
  await clean();
  return results;
}

async function prepareAndRun(context: BenchContext, run: BenchRun): Promise<BenchResult[]> {
  run.onStage?.("preparing");
  await using loads = new AsyncDisposableStack();
  const prepared: Load[] = [];
  for (const { workload, options } of run.parts) {
    prepared.push(loads.use(await workloadOf(workload).prepare(context, options)));
  }
  run.onStage?.("running");
  return await runTogether(prepared, run);
}

/** Runs all until the first one is over, or one fails. */
async function runTogether(loads: readonly Load[], run: BenchRun): Promise<BenchResult[]> {
  const over = new AbortController();
  const signal = run.signal ? AbortSignal.any([run.signal, over.signal]) : over.signal;
  const first = spanOf(run);
  const runs = run.parts.map((part, index) => {
    const span = index === 0 ? first : { ...first, ...UNTIL_DONE };
    const onProgress = index === 0 ? run.onProgress ?? ignore : ignore;
    return runLoad(loads[index]!, { ...part, span, onProgress, signal });
  });
  const end = () => over.abort();
  runs[0]!.then(end, end);
  for (const each of runs) each.catch(end);
  const results = await Promise.allSettled(runs);
  for (const result of results) if (result.status === "rejected") throw result.reason;
  return results.map((result) => (result as PromiseFulfilledResult<BenchResult>).value);
}

/** Of the first part. Counted work has no warm-up: every operation counts. */
function spanOf({ parts, span }: BenchRun): Span {
  if (workloadOf(parts[0]!.workload).endsByItself) return { warmUpMs: 0, ...UNTIL_DONE };
  return span.operations === null ? span : { ...span, warmUpMs: 0 };
}

function ignore(): void {}

/** One bench from its first account to its last: prepare, run, and take everything away again. */
import { AckedLog } from "./acked_log.ts";
import { BenchAccounts } from "./bench_accounts.ts";
import { BenchServer, type BenchTarget } from "./bench_server.ts";
import { newRun } from "./enqueue_template.ts";
import type { BenchContext, LoadOptions } from "./load.ts";
import { type BenchResult, type Progress, runLoad, type Span } from "./run.ts";
import { type WorkloadName, workloadOf } from "./workloads.ts";

/** As long as it takes, but not for ever. */
const UNTIL_DONE: Span = { warmUpMs: 0, durationMs: 24 * 3_600_000, operations: null };

/** What to run. */
export interface BenchRun {
  readonly workload: WorkloadName;
  readonly options: LoadOptions;
  readonly span: Span;
  /** Where to write what was acknowledged; the recipients' accounts then stay for `verify`. */
  readonly ackedLogPath?: string | undefined;
  /** Leaves the accounts on the server. */
  readonly keep?: boolean;
  readonly onStage?: (text: string) => void;
  readonly onProgress?: (progress: Progress) => void;
  /** Ends the measurement early; what was measured until then is the result. */
  readonly signal?: AbortSignal;
}

/** Runs one workload against a server. The accounts are deleted also when it fails. */
export async function runBench(target: BenchTarget, run: BenchRun): Promise<BenchResult> {
  const server = new BenchServer(target);
  const id = newRun(Date.now());
  const accounts = new BenchAccounts(server, { run: id });
  using ackedLog = run.ackedLogPath === undefined ? null : new AckedLog(run.ackedLogPath, id);
  let number = 0;
  const context: BenchContext = { server, accounts, run: id, ackedLog, nextNumber: () => number++ };
  try {
    const { prepare, endsByItself } = workloadOf(run.workload);
    run.onStage?.("preparing");
    await using load = await prepare(context, run.options);
    run.onStage?.("running");
    const span = endsByItself ? UNTIL_DONE : run.span;
    return await runLoad(load, { ...run, span, onProgress: run.onProgress ?? (() => {}) });
  } finally {
    if (!run.keep) {
      run.onStage?.("deleting accounts");
      await accounts.deleteAll(ackedLog?.recipients);
    }
  }
}

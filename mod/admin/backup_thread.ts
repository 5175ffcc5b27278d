/** The long work on backups: in a worker when a server runs in this process, which must not wait for it; else here. */
import type { Progress } from "./control.ts";
import { AdminError } from "./operations_error.ts";
import { sealBackup, type SealOptions, type SealReport } from "./backup_seal.ts";
import { type Verified, verifyBackup, type VerifyOptions } from "./backup_verify.ts";

/** To the worker, once. */
export type BackupJob =
  | { readonly kind: "seal"; readonly options: SealOptions }
  | { readonly kind: "verify"; readonly options: VerifyOptions };

/** From the worker: any number of `progress`, then one of the others. */
export type BackupAnswer =
  | { readonly progress: number }
  | { readonly result: SealReport | Verified }
  | { readonly error: string };

/** How the work is done; `signal` null: in this thread. */
export interface BackupThread {
  /** Ends the worker where it is: what it had made is the caller's to remove. */
  readonly signal: AbortSignal | null;
  readonly progress: Progress;
}

/** See sealBackup(). */
export async function seal(options: SealOptions, thread: BackupThread): Promise<SealReport> {
  if (!thread.signal) return await sealBackup(options, thread.progress);
  return await inWorker({ kind: "seal", options }, thread) as SealReport;
}

/** See verifyBackup(). */
export async function verify(options: VerifyOptions, thread: BackupThread): Promise<Verified> {
  if (!thread.signal) return await verifyBackup(options, thread.progress);
  return await inWorker({ kind: "verify", options }, thread) as Verified;
}

async function inWorker(job: BackupJob, { signal, progress }: BackupThread): Promise<SealReport | Verified> {
  const stopped = () => new AdminError("The server was stopped meanwhile");
  if (signal!.aborted) throw stopped();
  const worker = new Worker(new URL("./backup_worker.ts", import.meta.url), {
    type: "module",
    name: "backup",
  });
  const done = Promise.withResolvers<SealReport | Verified>();
  const onAbort = () => done.reject(stopped());
  signal!.addEventListener("abort", onAbort);
  worker.onmessage = ({ data }: MessageEvent<BackupAnswer>) => {
    if ("progress" in data) progress(data.progress);
    else if ("result" in data) done.resolve(data.result);
    else done.reject(new AdminError(data.error));
  };
  worker.onerror = (event) => {
    event.preventDefault(); // an unhandled error of a worker would end the server
    done.reject(new AdminError(`The work on the backup failed: ${event.message}`));
  };
  try {
    worker.postMessage(job);
    return await done.promise;
  } finally {
    signal!.removeEventListener("abort", onAbort);
    worker.terminate();
  }
}

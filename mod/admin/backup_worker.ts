/** Entry point of the worker that seals and verifies backups for a running server, away from the network's thread. */
/// <reference lib="deno.worker" />
import { messageOf } from "../base/errors.ts";
import { restBetweenChunks } from "./backup_files.ts";
import { sealBackup } from "./backup_seal.ts";
import type { BackupAnswer, BackupJob } from "./backup_thread.ts";
import { verifyBackup } from "./backup_verify.ts";

restBetweenChunks();

const PILLOW = new Int32Array(new SharedArrayBuffer(4));
const REST_MS_MAX = 50;

const scope = self as unknown as DedicatedWorkerGlobalScope;

scope.onmessage = async ({ data }: MessageEvent<BackupJob>) => {
  const answer = (message: BackupAnswer) => scope.postMessage(message);
  let began = performance.now();
  const progress = (share: number) => {
    answer({ progress: share });
    // Also where no chunk is read here: the check of a file store is one long piece of work of this thread.
    Atomics.wait(PILLOW, 0, 0, Math.min(REST_MS_MAX, (performance.now() - began) / 2));
    began = performance.now();
  };
  try {
    const result = data.kind === "seal"
      ? await sealBackup(data.options, progress)
      : await verifyBackup(data.options, progress);
    answer({ result });
  } catch (error) {
    answer({ error: messageOf(error) });
  }
};

/** Entry point of the worker that seals and verifies backups for a running server, away from the network's thread. */
/// <reference lib="deno.worker" />
import { messageOf } from "../base/errors.ts";
import { restBetweenChunks } from "./backup_files.ts";
import { sealBackup } from "./backup_seal.ts";
import type { BackupAnswer, BackupJob } from "./backup_thread.ts";
import { verifyBackup } from "./backup_verify.ts";

restBetweenChunks();

const scope = self as unknown as DedicatedWorkerGlobalScope;

scope.onmessage = async ({ data }: MessageEvent<BackupJob>) => {
  const answer = (message: BackupAnswer) => scope.postMessage(message);
  const progress = (share: number) => answer({ progress: share });
  try {
    const result = data.kind === "seal"
      ? await sealBackup(data.options, progress)
      : await verifyBackup(data.options, progress);
    answer({ result });
  } catch (error) {
    answer({ error: messageOf(error) });
  }
};

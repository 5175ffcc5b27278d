/**
 * Entry point of the worker that owns the database: neither fsync nor page encryption stops the network's thread. A
 * second such worker, without a store of its own, does what takes long with another connection (long_task.ts).
 */
/// <reference lib="deno.worker" />
import { join } from "node:path";
import { messageOf } from "../../base/errors.ts";
import { BatchRunner } from "./batch.ts";
import { LongTask } from "./long_task.ts";
import { asOpenError, DATABASE_NAME, openDatabase } from "./open_database.ts";
import { Upkeep } from "./upkeep.ts";
import type { Outcome, Request, Response } from "./wire.ts";

const scope = self as unknown as DedicatedWorkerGlobalScope;
let runner: BatchRunner | undefined;
let upkeep: Upkeep | undefined;
const longTask = new LongTask((response) => answer(response));

scope.onmessage = (event: MessageEvent<Request>) => {
  const request = event.data;
  switch (request.type) {
    case "open":
      return answer(open(request.options));
    case "close":
      return answer(close());
    case "task":
      return longTask.begin(request.task, upkeep);
    case "abort":
      return longTask.abort(request.reason, upkeep);
    case "batch":
      if (longTask.swapping) return void longTask.swapping.then(() => runBatch(request));
      return runBatch(request);
  }
};

function runBatch({ calls, messages }: Extract<Request, { type: "batch" }>): void {
  const { outcomes, enqueued, relaying } = runner!.run(calls, messages);
  answer({ type: "done", outcomes, enqueued, relaying, messages }, [
    messages,
    ...packPayloads(outcomes),
    ...enqueued.map(({ standing }) => standing.buffer),
  ]);
  upkeep!.afterBatch();
}

function answer(response: Response, transfer: Transferable[] = []): void {
  scope.postMessage(response, transfer);
}

function open(options: Parameters<typeof openDatabase>[0]): Response {
  try {
    const { connection, path, key, reopen } = openDatabase(options);
    runner = new BatchRunner(connection, reopen);
    upkeep = new Upkeep(runner, { dataDir: options.dataDir, path, key });
    return { type: "opened", ...runner.identity() };
  } catch (error) {
    const { problem, path, message } = asOpenError(join(options.dataDir, DATABASE_NAME), error);
    return { type: "refused", problem, path, message };
  }
}

function close(): Response {
  try {
    upkeep?.close();
    return { type: "closed", failure: null };
  } catch (error) {
    return { type: "closed", failure: messageOf(error) };
  }
}

/**
 * Moves the payloads of each fetch into one buffer that is transferred. The database's own buffers are one for
 * each row: cloning them costs a copy and an allocation each on the receiving thread.
 */
function packPayloads(outcomes: readonly Outcome[]): ArrayBuffer[] {
  const buffers: ArrayBuffer[] = [];
  for (const outcome of outcomes) {
    const entries = "value" in outcome &&
      (outcome.value as { entries?: { payload: Uint8Array }[] } | null)?.entries;
    if (!entries || entries.length === 0) continue;
    const packed = new Uint8Array(entries.reduce((sum, entry) => sum + entry.payload.length, 0));
    let end = 0;
    for (const entry of entries) {
      packed.set(entry.payload, end);
      entry.payload = packed.subarray(end, end += entry.payload.length);
    }
    buffers.push(packed.buffer);
  }
  return buffers;
}

/**
 * The side of a store's thread that does the work: it owns the database, so that neither fsync nor page encryption stops
 * whoever asks. One without a store of its own does what takes long with another connection (long_task.ts).
 */
import { join } from "node:path";
import { messageOf } from "../../base/errors.ts";
import { BatchRunner } from "./batch.ts";
import { LongTask } from "./long_task.ts";
import { asOpenError, DATABASE_NAME, openDatabase } from "./open_database.ts";
import { Upkeep } from "./upkeep.ts";
import type { Outcome, Request, Response } from "./wire.ts";

/** Where requests come from and answers go: a worker's scope, or one end of a channel. */
export interface StorePort {
  onmessage: ((event: MessageEvent<Request>) => void) | null;
  postMessage(message: Response, transfer: Transferable[]): void;
}

/** Answers what comes through the port. */
export function serveStore(port: StorePort): void {
  const server = new StoreServer((response, transfer) => port.postMessage(response, transfer));
  port.onmessage = (event) => server.answerTo(event.data);
}

class StoreServer {
  readonly #post: (response: Response, transfer: Transferable[]) => void;
  readonly #longTask = new LongTask((response) => this.#answer(response));
  #runner: BatchRunner | undefined;
  #upkeep: Upkeep | undefined;

  constructor(post: (response: Response, transfer: Transferable[]) => void) {
    this.#post = post;
  }

  answerTo(request: Request): void {
    switch (request.type) {
      case "open":
        return this.#answer(this.#open(request.options));
      case "close":
        return this.#answer(this.#close());
      case "task":
        return this.#longTask.begin(request.task, this.#upkeep);
      case "abort":
        return this.#longTask.abort(request.reason, this.#upkeep);
      case "batch":
        if (this.#longTask.swapping) {
          return void this.#longTask.swapping.then(() => this.#runBatch(request));
        }
        return this.#runBatch(request);
    }
  }

  #runBatch({ calls, messages }: Extract<Request, { type: "batch" }>): void {
    const { outcomes, enqueued, relaying } = this.#runner!.run(calls, messages);
    this.#answer({ type: "done", outcomes, enqueued, relaying, messages }, [
      messages,
      ...packPayloads(outcomes),
      ...enqueued.map(({ standing }) => standing.buffer),
    ]);
    this.#upkeep!.afterBatch();
  }

  #answer(response: Response, transfer: Transferable[] = []): void {
    this.#post(response, transfer);
  }

  #open(options: Parameters<typeof openDatabase>[0]): Response {
    try {
      const { connection, path, key, reopen } = openDatabase(options);
      this.#runner = new BatchRunner(connection, reopen);
      this.#upkeep = new Upkeep(this.#runner, { dataDir: options.dataDir, path, key });
      return { type: "opened", ...this.#runner.identity() };
    } catch (error) {
      const { problem, path, message } = asOpenError(join(options.dataDir, DATABASE_NAME), error);
      return { type: "refused", problem, path, message };
    }
  }

  #close(): Response {
    try {
      this.#upkeep?.close();
      return { type: "closed", failure: null };
    } catch (error) {
      return { type: "closed", failure: messageOf(error) };
    }
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

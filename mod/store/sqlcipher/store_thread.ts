/** The store's worker seen from outside: verbs go through the batcher, long tasks beside it. */
import { messageOf, QpqError } from "../../base/errors.ts";
import type { OnProgress } from "../admin_store.ts";
import { type EnqueuedListener, type OpenOptions, type RelayingListener, StoreOpenError } from "../store.ts";
import { Batcher } from "./batcher.ts";
import { startStoreWorker } from "./store_worker.ts";
import type { VerbName } from "./verb_names.ts";
import type { Request, Response, Task } from "./wire.ts";

/** What the worker answers when the store is open. */
export type Opened = Extract<Response, { type: "opened" }>;

interface RunningTask {
  readonly onProgress: OnProgress;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: QpqError) => void;
}

/** One worker; with a store of its own once {@link open} has resolved. */
export class StoreThread {
  readonly #worker = startStoreWorker();
  readonly #listeners = new Set<EnqueuedListener>();
  readonly #relayingListeners = new Set<RelayingListener>();
  readonly #batcher: Batcher;
  #answer = Promise.withResolvers<Response>();
  #closing: Promise<void> | undefined;
  #failure: QpqError | undefined;
  #task: RunningTask | undefined;

  constructor(onBatch?: OpenOptions["onBatch"]) {
    this.#batcher = new Batcher((request, transfer) => this.#worker.postMessage(request, transfer), {
      onEnqueued: (...told) => notify(this.#listeners, told),
      onRelaying: (...told) => notify(this.#relayingListeners, told),
      onBatch,
    });
    this.#answer.promise.catch(() => {}); // Waited for only while opening and closing.
    this.#worker.onmessage = (event: MessageEvent<Response>) => {
      const response = event.data;
      if (response.type === "done") this.#batcher.settle(response);
      else if (!this.#answerTask(response)) this.#answer.resolve(response);
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#died(event.message);
    };
    this.#worker.onmessageerror = () => this.#died("a message could not be read");
  }

  #died(reason: string): void {
    const failure = new QpqError("storeUnavailable", `The store's worker has ended: ${reason}`);
    this.#failure = failure;
    this.#batcher.fail(failure);
    this.#answer.reject(failure);
    this.#task?.reject(failure);
  }

  /** Tells the task under way; false: the answer is not for it. */
  #answerTask(response: Response): boolean {
    if (response.type === "progress") this.#task?.onProgress(response.share);
    else if (response.type === "taskDone") this.#task?.resolve(response.value);
    else if (response.type === "taskFailed") {
      const { code, message } = response.failure;
      this.#task?.reject(new QpqError(code, message));
    } else return false;
    return true;
  }

  /** Has the worker do a long task, one at a time. The signal ends it between two steps. */
  async task(
    task: Task,
    { onProgress = () => {}, signal }: { onProgress?: OnProgress; signal?: AbortSignal } = {},
  ): Promise<unknown> {
    if (this.#failure) throw this.#failure;
    signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const abort = () => this.#worker.postMessage({ type: "abort", reason: messageOf(signal?.reason) });
    this.#task = { onProgress, resolve, reject };
    signal?.addEventListener("abort", abort);
    try {
      this.#worker.postMessage({ type: "task", task } satisfies Request);
      return await promise;
    } finally {
      signal?.removeEventListener("abort", abort);
      this.#task = undefined;
    }
  }

  async open(options: OpenOptions): Promise<Opened> {
    const answer = await this.#ask({ type: "open", options });
    if (answer.type === "opened") return answer;
    if (answer.type === "refused") throw new StoreOpenError(answer.problem, answer.path, answer.message);
    throw new TypeError(`Unexpected answer ${answer.type}`);
  }

  #ask(request: Request): Promise<Response> {
    if (this.#failure) return Promise.reject(this.#failure);
    this.#answer = Promise.withResolvers();
    this.#answer.promise.catch(() => {});
    this.#worker.postMessage(request);
    return this.#answer.promise;
  }

  call(verb: VerbName, args: readonly unknown[]): Promise<unknown> {
    return this.#batcher.call(verb, args);
  }

  /** Calls that may write wait from now on; resolves when none is under way. */
  holdWrites(): Promise<void> {
    return this.#batcher.holdWrites();
  }

  /** They go on. */
  releaseWrites(): void {
    this.#batcher.releaseWrites();
  }

  listen(listener: EnqueuedListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Calls `listener` after each transaction that put messages into outboxes, until the returned function is called. */
  listenRelaying(listener: RelayingListener): () => void {
    const own: RelayingListener = (domains) => listener(domains);
    this.#relayingListeners.add(own);
    return () => void this.#relayingListeners.delete(own);
  }

  /** Verbs that are called from now on reject; those accepted go on. */
  refuseCalls(): void {
    this.#batcher.refuse(closed());
  }

  /** Finishes what was accepted, and ends the worker. No task may be under way. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    await this.#batcher.finish(closed());
    try {
      const answer = await this.#ask({ type: "close" });
      if (answer.type === "closed" && answer.failure !== null) {
        throw new QpqError("storeUnavailable", `Cannot close the store cleanly: ${answer.failure}`);
      }
    } finally {
      this.#listeners.clear();
      this.#relayingListeners.clear();
      this.terminate();
    }
  }

  terminate(): void {
    this.#worker.terminate();
  }
}

/** One listener's fault is not another's: it is reported like any uncaught error. */
function notify<Told extends unknown[]>(listeners: Iterable<(...told: Told) => void>, told: Told): void {
  for (const listener of listeners) {
    try {
      listener(...told);
    } catch (error) {
      reportError(error);
    }
  }
}

function closed(): QpqError {
  return new QpqError("storeUnavailable", "The store is closed");
}

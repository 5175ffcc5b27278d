/**
 * The SQLCipher store: one encrypted file, `qpq.db`, in a worker of its own. Verbs that are called while a batch
 * is being written share the next transaction (group commit); a promise resolves when that is on disk.
 */
import { join } from "node:path";
import { messageOf, QpqError } from "../../base/errors.ts";
import type { DeviceId } from "../../base/ids.ts";
import { type OpenOptions, type Store, StoreOpenError } from "../store.ts";
import { Batcher } from "./batcher.ts";
import { READ_VERBS, type VerbName, WRITE_VERBS } from "./verb_names.ts";
import type { Request, Response } from "./wire.ts";

type Opened = Extract<Response, { type: "opened" }>;
type EnqueuedListener = (devices: readonly DeviceId[]) => void;

const DATABASE_NAME = "qpq.db";

/** Opens the store in `dataDir`, or makes it; throws StoreOpenError. Taking the folder is the caller's. */
export async function openSqlcipherStore(options: OpenOptions): Promise<Store> {
  const { dataDir, keys, mustExist = false } = options;
  const thread = new StoreThread(options.onBatch);
  try {
    const opened = await thread.open({ dataDir, keys: [...keys], mustExist });
    return makeStore(thread, { opened, path: join(dataDir, DATABASE_NAME) });
  } catch (error) {
    thread.terminate();
    throw error;
  }
}

/** The worker seen from outside. */
class StoreThread {
  readonly #worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "store" });
  readonly #listeners = new Set<EnqueuedListener>();
  readonly #batcher: Batcher;
  #answer = Promise.withResolvers<Response>();
  #closing: Promise<void> | undefined;
  #failure: QpqError | undefined;

  constructor(onBatch: OpenOptions["onBatch"]) {
    this.#batcher = new Batcher((request, transfer) => this.#worker.postMessage(request, transfer), {
      onEnqueued: (devices) => this.#notify(devices as readonly DeviceId[]),
      onBatch,
    });
    this.#answer.promise.catch(() => {}); // Waited for only while opening and closing.
    this.#worker.onmessage = (event: MessageEvent<Response>) => {
      if (event.data.type === "done") this.#batcher.settle(event.data);
      else this.#answer.resolve(event.data);
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

  listen(listener: EnqueuedListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** One listener's fault is not another's: it is reported like any uncaught error. */
  #notify(devices: readonly DeviceId[]): void {
    for (const listener of this.#listeners) {
      try {
        listener(devices);
      } catch (error) {
        reportError(error);
      }
    }
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    await this.#batcher.finish(new QpqError("storeUnavailable", "The store is closed"));
    try {
      const answer = await this.#ask({ type: "close" });
      if (answer.type === "closed" && answer.failure !== null) {
        throw new QpqError("storeUnavailable", `Cannot close the store cleanly: ${answer.failure}`);
      }
    } finally {
      this.#listeners.clear();
      this.terminate();
    }
  }

  terminate(): void {
    this.#worker.terminate();
  }
}

function makeStore(thread: StoreThread, { opened, path }: { opened: Opened; path: string }): Store {
  const verbs = Object.fromEntries(
    [...READ_VERBS, ...WRITE_VERBS].map((verb) => [verb, (...args: unknown[]) => thread.call(verb, args)]),
  ) as unknown as Pick<Store, VerbName>;
  return {
    ...verbs,
    backend: "sqlcipher",
    incarnation: opened.incarnation,
    realmId: opened.realmId,
    onEnqueued: (listener) => thread.listen(listener),
    diskBytes: async () => await fileBytes(path) + await fileBytes(`${path}-wal`),
    close: () => thread.close(),
    [Symbol.asyncDispose]: () => thread.close(),
  };
}

async function fileBytes(path: string): Promise<number> {
  try {
    return (await Deno.stat(path)).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw new QpqError("storeUnavailable", `Cannot look at ${path}: ${messageOf(error)}`, { cause: error });
  }
}

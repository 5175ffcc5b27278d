/** The long verbs of a store (snapshot, rekey, integrity check): one at a time, and ended when the store closes. */
import { messageOf, QpqError } from "../base/errors.ts";
import { type OnProgress, StoreBusyError } from "./admin_store.ts";
import { isDiskFull } from "./file/disk.ts";

/** Runs the long verbs of one store. */
export class Maintenance {
  #running: { readonly name: string; readonly ended: Promise<unknown> } | undefined;
  readonly #stopping = new AbortController();

  /**
   * Runs `work` unless another is running. Its signal aborts when the store is being closed: work then throws the
   * signal's reason as soon as it can. Progress ends with 1.
   */
  async run<Result>(
    { name, onProgress }: { name: string; onProgress: OnProgress },
    work: (signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    const { signal } = this.#stopping;
    if (signal.aborted) throw new StoreBusyError(`Cannot begin ${name} as the store is being closed`);
    if (this.#running) {
      throw new StoreBusyError(
        `Cannot begin ${name} as ${this.#running.name} is under way: try again when it has ended`,
      );
    }
    const result = work(signal);
    this.#running = { name, ended: result.catch(() => {}) }; // the caller of this run gets the error
    try {
      const value = await result;
      onProgress(1);
      return value;
    } finally {
      this.#running = undefined;
    }
  }

  /** Ends what is running; resolves when it has ended. */
  async stop(): Promise<void> {
    this.#stopping.abort(new QpqError("storeUnavailable", "The store is being closed"));
    await this.#running?.ended;
  }
}

/** A snapshot among other files could not be told from them. */
export async function refuseUnlessEmpty(folder: string): Promise<void> {
  for await (const { name } of Deno.readDir(folder)) {
    throw new RangeError(`Cannot write a snapshot into ${folder} as it is not empty: it holds ${name}`);
  }
}

/** What a long verb rejects with. */
export function asStoreError(error: unknown, what: string): QpqError {
  if (error instanceof QpqError) return error;
  const code = isDiskFull(error) ? "storeFull" : "storeUnavailable";
  const reason = code === "storeFull" ? " as the disk is full" : `: ${messageOf(error)}`;
  return new QpqError(code, what + reason, { cause: error });
}

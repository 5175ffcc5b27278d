/**
 * Where the work of a store's thread is done: in a worker, so that the network's thread never waits for a disk. What is
 * a worker already has no such thread to spare, and starting a worker in a worker takes Deno (2.9) a second, asleep.
 */
import { messageOf } from "../../base/errors.ts";
import type { Request, Response } from "./wire.ts";

/** What a StoreThread needs of a worker. */
export interface StoreWorker {
  onmessage: ((event: MessageEvent<Response>) => void) | null;
  onerror: ((event: ErrorEvent) => void) | null;
  onmessageerror: ((event: MessageEvent) => void) | null;
  postMessage(message: Request, transfer?: Transferable[]): void;
  terminate(): void;
}

/** Starts one. What is posted before it listens waits for it. */
export function startStoreWorker(): StoreWorker {
  if ("DedicatedWorkerGlobalScope" in globalThis) return new SameThread();
  return new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "store" });
}

/** The same work in this thread: a call holds up only whoever waits for it anyway. */
class SameThread implements StoreWorker {
  readonly #channel = new MessageChannel();
  onerror: StoreWorker["onerror"] = null;

  constructor() {
    // Not imported from above: the main thread is not to load the database's native code.
    import("./serve_store.ts").then(
      ({ serveStore }) => serveStore(this.#channel.port2),
      (error) => this.onerror?.(new ErrorEvent("error", { message: messageOf(error), error })),
    );
  }

  set onmessage(listener: StoreWorker["onmessage"]) {
    this.#channel.port1.onmessage = listener;
  }

  set onmessageerror(listener: StoreWorker["onmessageerror"]) {
    this.#channel.port1.onmessageerror = listener;
  }

  postMessage(message: Request, transfer: Transferable[] = []): void {
    this.#channel.port1.postMessage(message, transfer);
  }

  terminate(): void {
    this.#channel.port1.close();
    this.#channel.port2.close();
  }
}

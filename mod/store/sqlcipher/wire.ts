/** What goes between the thread that serves the network and the worker that owns the database. */
import type { ErrorCode } from "../../base/errors.ts";
import type { OpenOptions, StoreOpenProblem } from "../store.ts";
import type { Touched } from "./touched_queues.ts";
import type { Reencryption } from "./reencrypt.ts";
import type { VerbName } from "./verb_names.ts";

/** A verb to run. */
export interface Call {
  readonly verb: VerbName;
  /** Arguments; for enqueue where its message begins in the batch's buffer. */
  readonly args: readonly unknown[] | number;
}

/** To the worker. */
export type Request =
  | { readonly type: "open"; readonly options: OpenOptions }
  | { readonly type: "batch"; readonly calls: readonly Call[]; readonly messages: ArrayBuffer }
  | { readonly type: "close" }
  | { readonly type: "task"; readonly task: Task }
  | { readonly type: "abort"; readonly reason: string };

/** Long work, one at a time; batches go on beside it. The first five are for the worker that has the store open. */
export type Task =
  | { readonly name: "copyTo"; readonly target: string }
  | { readonly name: "key" }
  | { readonly name: "share" }
  | { readonly name: "unshare" }
  | { readonly name: "swap"; readonly key: string }
  | { readonly name: "reencrypt"; readonly work: Reencryption }
  | { readonly name: "check"; readonly path: string; readonly key: string };

/** Why a verb failed. */
export interface Failure {
  readonly code: ErrorCode & ("storeFull" | "storeUnavailable");
  readonly message: string;
}

/** What became of a verb; `{}` with nothing in it is an enqueue accepted anew with every recipient ok and remote message relaying. */
export type Outcome = { readonly value?: unknown } | { readonly failure: Failure };

/** From the worker, one for each request. */
export type Response =
  | { readonly type: "opened"; readonly incarnation: Uint8Array; readonly realmId: string }
  | {
    readonly type: "refused";
    readonly problem: StoreOpenProblem;
    readonly path: string;
    readonly message: string;
  }
  | {
    readonly type: "done";
    readonly outcomes: readonly Outcome[];
    /** What got entries: one for each transaction that the batch took. */
    readonly enqueued: readonly Touched[];
    /** Domains whose outboxes got messages. */
    readonly relaying: readonly string[];
    /** The request's buffer, to be used again. */
    readonly messages: ArrayBuffer;
  }
  | { readonly type: "closed"; readonly failure: string | null }
  | { readonly type: "progress"; readonly share: number }
  | { readonly type: "taskDone"; readonly value: unknown }
  | { readonly type: "taskFailed"; readonly failure: Failure };

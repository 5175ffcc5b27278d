/**
 * OPAQUE's server side (RFC 9807) in a pool of workers, so that its elliptic curves never stop the network
 * thread. Sizes are checked before any worker sees a message. Each worker has one job at a time; the others
 * wait in one bounded queue. A worker that dies is replaced and its job is rejected.
 */
import { assert } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { QpqError } from "../base/errors.ts";
import { OPAQUE_BYTES, SUITE_RISTRETTO255 } from "../base/opaque_suite.ts";
import type { OpaqueAnswer, OpaqueJob } from "./opaque_worker.ts";

/** Settings of the pool. */
export interface OpaquePoolOptions {
  /** Worker threads. */
  readonly workers: number;
  /** Jobs that may wait for a worker; more are refused with `overloaded`. */
  readonly pendingMax: number;
  /** Another worker module, for tests of what happens when one fails. */
  readonly workerUrl?: string;
}

/** What a refused caller is told to wait: about what a full queue of 256 takes two workers. */
const RETRY_AFTER_MS = 500;

interface Task {
  readonly job: OpaqueJob;
  readonly resolve: (answer: OpaqueAnswer) => void;
  readonly reject: (error: unknown) => void;
}

/** One worker thread and what it does now. */
interface Seat {
  readonly worker: Worker;
  ready: boolean;
  task: Task | null;
}

/** Answers OPAQUE's server messages. */
export class OpaquePool implements AsyncDisposable {
  readonly #options: OpaquePoolOptions;
  readonly #seats = new Set<Seat>();
  readonly #queue: Task[] = [];
  #closed = false;

  private constructor(options: OpaquePoolOptions) {
    this.#options = options;
  }

  /** Starts the workers and waits until they are ready; rejects when one cannot start. */
  static async open(options: OpaquePoolOptions): Promise<OpaquePool> {
    assert(options.workers > 0, `A pool needs workers: ${options.workers}`);
    const pool = new OpaquePool(options);
    try {
      await Promise.all(Array.from({ length: options.workers }, () => pool.#hire()));
    } catch (error) {
      await pool.close();
      throw error;
    }
    return pool;
  }

  /** A new server setup: `oprf_seed ‖ server_private_key ‖ dummy_public_key`, 128 secret bytes. */
  async createSetup(suiteId: number): Promise<Bytes> {
    checkSuite(suiteId);
    const [setup] = await this.#do({ kind: "createSetup" });
    return expectBytes(setup, OPAQUE_BYTES.serverSetup);
  }

  /** Answers a RegistrationRequest. Throws `malformedRequest` when it does not decode. */
  async registrationResponse(
    input: { suiteId: number; setup: Uint8Array; userName: string; request: Uint8Array },
  ): Promise<Bytes> {
    checkSuite(input.suiteId);
    checkBytes("RegistrationRequest", input.request, OPAQUE_BYTES.registrationRequest);
    const { setup, userName, request } = input;
    const [response] = await this.#do({ kind: "registrationResponse", setup, userName, request });
    return expectBytes(response, OPAQUE_BYTES.registrationResponse);
  }

  /** Throws `malformedRequest` unless `record` is one that logins can use: to be stored only then. */
  async checkRecord(input: { suiteId: number; setup: Uint8Array; record: Uint8Array }): Promise<void> {
    checkSuite(input.suiteId);
    checkBytes("registration record", input.record, OPAQUE_BYTES.registrationRecord);
    await this.#do({ kind: "checkRecord", setup: input.setup, record: input.record });
  }

  /**
   * Answers KE1 with KE2 and the state for {@link loginFinish}. `record` null: an unknown user; the answer has
   * the same size and takes the same time. Throws `malformedRequest` when KE1 does not decode.
   */
  async loginStart(input: {
    suiteId: number;
    setup: Uint8Array;
    userName: string;
    record: Uint8Array | null;
    ke1: Uint8Array;
    realmId: string;
  }): Promise<{ state: Bytes; ke2: Bytes }> {
    checkSuite(input.suiteId);
    checkBytes("KE1", input.ke1, OPAQUE_BYTES.ke1);
    const { setup, userName, record, ke1, realmId } = input;
    assert(record === null || record.length === OPAQUE_BYTES.registrationRecord, "Stored record: wrong size");
    const [state, ke2] = await this.#do({ kind: "loginStart", setup, userName, record, ke1, realmId });
    assert(state, "No login state");
    return { state, ke2: expectBytes(ke2, OPAQUE_BYTES.ke2) };
  }

  /** The 64-byte session key; null when KE3 does not verify. */
  async loginFinish(
    input: { suiteId: number; state: Uint8Array; ke3: Uint8Array; realmId: string },
  ): Promise<Bytes | null> {
    checkSuite(input.suiteId);
    checkBytes("KE3", input.ke3, OPAQUE_BYTES.ke3);
    const { state, ke3, realmId } = input;
    const answer = await this.#submit({ kind: "loginFinish", state, ke3, realmId });
    if (answer.status === "rejected") return null;
    return expectBytes(outputOf(answer)[0], OPAQUE_BYTES.sessionKey);
  }

  /** Ends the workers; what waits is rejected. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const seat of [...this.#seats]) this.#dismiss(seat, "the pool was closed");
    this.#rejectQueue("the pool was closed");
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #do(job: OpaqueJob): Promise<readonly Bytes[]> {
    return outputOf(await this.#submit(job));
  }

  #submit(job: OpaqueJob): Promise<OpaqueAnswer> {
    if (this.#closed) return Promise.reject(failure("the pool was closed"));
    // A login's second half always gets in: there is at most one for each first half that did.
    if (job.kind !== "loginFinish" && this.#queue.length >= this.#options.pendingMax) {
      const message = `Cannot queue an OPAQUE job as waiting must be < ${this.#options.pendingMax}`;
      return Promise.reject(new QpqError("overloaded", message, { retryAfterMs: RETRY_AFTER_MS }));
    }
    const { promise, resolve, reject } = Promise.withResolvers<OpaqueAnswer>();
    this.#queue.push({ job, resolve, reject });
    this.#assign();
    return promise;
  }

  /** Gives waiting jobs to free workers. */
  #assign(): void {
    // Replacements that failed to start are tried again when there is work, not in a loop.
    while (!this.#closed && this.#seats.size < this.#options.workers && this.#queue.length > 0) {
      this.#hire().catch((error) => {
        if (this.#seats.size === 0) this.#rejectQueue(String(error));
      });
    }
    for (const seat of this.#seats) {
      if (!seat.ready || seat.task) continue;
      const task = this.#queue.shift();
      if (!task) return;
      seat.task = task;
      seat.worker.postMessage(task.job);
    }
  }

  /** Starts a worker; resolves when it is ready. */
  #hire(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const custom = this.#options.workerUrl;
    // Written out, so that `deno compile` finds the module.
    const url = custom ?? new URL("./opaque_worker.ts", import.meta.url).href;
    const seat: Seat = { worker: new Worker(url, { type: "module" }), ready: false, task: null };
    this.#seats.add(seat);
    seat.worker.onmessage = (event: MessageEvent<OpaqueAnswer | "ready">) => {
      if (event.data === "ready") {
        seat.ready = true;
        resolve();
      } else {
        const task = seat.task;
        seat.task = null;
        task?.resolve(event.data);
      }
      this.#assign();
    };
    const died = (event: Event) => {
      event.preventDefault();
      const reason = event instanceof ErrorEvent ? event.message : "it cannot read its messages";
      const wasReady = seat.ready;
      this.#dismiss(seat, reason);
      reject(failure(reason));
      if (wasReady && !this.#closed) this.#hire().catch(() => this.#assign());
    };
    seat.worker.onerror = died;
    seat.worker.onmessageerror = died;
    return promise;
  }

  #dismiss(seat: Seat, reason: string): void {
    this.#seats.delete(seat);
    seat.worker.terminate();
    seat.task?.reject(failure(reason));
    seat.task = null;
  }

  #rejectQueue(reason: string): void {
    for (const task of this.#queue.splice(0)) task.reject(failure(reason));
  }
}

function failure(reason: string): QpqError {
  return new QpqError("internal", `OPAQUE worker failed: ${reason}`);
}

function outputOf(answer: OpaqueAnswer): readonly Bytes[] {
  if (answer.status === "ok") return answer.output;
  if (answer.status === "failed") throw failure(answer.message);
  throw new QpqError("malformedRequest", `Cannot decode an OPAQUE message: ${answer.status}`);
}

function checkSuite(suiteId: number): void {
  if (suiteId !== SUITE_RISTRETTO255) {
    throw new QpqError("malformedRequest", `Cannot use OPAQUE suite ${suiteId}: not known`);
  }
}

function checkBytes(what: string, bytes: Uint8Array, length: number): void {
  if (bytes.length !== length) {
    throw new QpqError(
      "malformedRequest",
      `Cannot read ${what} as it must have ${length} bytes: ${bytes.length}`,
    );
  }
}

function expectBytes(bytes: Bytes | undefined, length: number): Bytes {
  assert(bytes?.length === length, `An OPAQUE worker answered ${bytes?.length} bytes instead of ${length}`);
  return bytes;
}

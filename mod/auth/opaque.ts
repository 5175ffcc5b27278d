/**
 * OPAQUE's server side in a pool of workers, so that its elliptic curves never stop the network thread. Sizes are
 * checked before any worker sees a message. Each worker has one job at a time; the others wait in a bounded queue.
 * The jobs of an expensive suite wait in a much shorter one of their own, begin only when no other waits, and leave
 * one worker free of them where there are several. A worker that dies is replaced and its job is rejected.
 */
import { assert } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { QpqError } from "../base/errors.ts";
import { OPAQUE_SIZES, OPAQUE_SUITE_NAMES, type OpaqueSizes } from "../base/opaque_suite.ts";
import { SUITE_P256, SUITE_RISTRETTO255 } from "../base/opaque_suite.ts";
import type { OpaqueAnswer, OpaqueJob } from "./opaque_job.ts";

/** Settings of the pool. */
export interface OpaquePoolOptions {
  /** Worker threads. */
  readonly workers: number;
  /** Jobs that may wait for a worker; more are refused with `overloaded`. */
  readonly pendingMax: number;
  /** Suites that are answered. Default: ristretto255 alone. */
  readonly suites?: readonly number[];
  /** Called with the suite of each job that was refused with `overloaded`. */
  readonly onRefused?: (suiteId: number) => void;
  /** Another worker module, for tests of what happens when one fails. */
  readonly workerUrl?: string;
}

/** What a refused caller is told to wait: about what a full queue of 256 takes two workers. */
const RETRY_AFTER_MS = 500;

/**
 * Jobs of P-256 that may wait: at 0.1 s each on one worker, the last one's client waits for 1.6 s. More of them would
 * only wait longer, and a client gives up after some seconds.
 */
export const COSTLY_PENDING_MAX = 16;
/** About what such a queue takes. */
const COSTLY_RETRY_AFTER_MS = 2_000;

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
  readonly #costly: Task[] = [];
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
    const sizes = this.#sizes(suiteId);
    const [setup] = await this.#do({ suiteId, kind: "createSetup" });
    return expectBytes(setup, sizes.serverSetup);
  }

  /** Answers a RegistrationRequest. Throws `malformedRequest` when it does not decode. */
  async registrationResponse(
    input: { suiteId: number; setup: Uint8Array; userName: string; request: Uint8Array },
  ): Promise<Bytes> {
    const sizes = this.#sizes(input.suiteId);
    checkBytes("RegistrationRequest", input.request, sizes.registrationRequest);
    const { suiteId, setup, userName, request } = input;
    const [response] = await this.#do({ suiteId, kind: "registrationResponse", setup, userName, request });
    return expectBytes(response, sizes.registrationResponse);
  }

  /** Throws `malformedRequest` unless `record` is one that logins can use: to be stored only then. */
  async checkRecord(input: { suiteId: number; setup: Uint8Array; record: Uint8Array }): Promise<void> {
    const { suiteId, setup, record } = input;
    checkBytes("registration record", record, this.#sizes(suiteId).registrationRecord);
    await this.#do({ suiteId, kind: "checkRecord", setup, record });
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
    const sizes = this.#sizes(input.suiteId);
    checkBytes("KE1", input.ke1, sizes.ke1);
    const { suiteId, setup, userName, record, ke1, realmId } = input;
    assert(record === null || record.length === sizes.registrationRecord, "Stored record: wrong size");
    const [state, ke2] = await this.#do({
      suiteId,
      kind: "loginStart",
      setup,
      userName,
      record,
      ke1,
      realmId,
    });
    assert(state, "No login state");
    return { state, ke2: expectBytes(ke2, sizes.ke2) };
  }

  /** The session key; null when KE3 does not verify. */
  async loginFinish(
    input: { suiteId: number; state: Uint8Array; ke3: Uint8Array; realmId: string },
  ): Promise<Bytes | null> {
    const sizes = this.#sizes(input.suiteId);
    checkBytes("KE3", input.ke3, sizes.ke3);
    const { suiteId, state, ke3, realmId } = input;
    const answer = await this.#submit({ suiteId, kind: "loginFinish", state, ke3, realmId });
    if (answer.status === "rejected") return null;
    return expectBytes(outputOf(answer)[0], sizes.sessionKey);
  }

  /** Throws `overloaded` when no job of this suite could wait: to be asked before any other work is done for it. */
  requireRoom(suiteId: number): void {
    const costly = isCostly(suiteId);
    const max = costly ? Math.min(COSTLY_PENDING_MAX, this.#options.pendingMax) : this.#options.pendingMax;
    if ((costly ? this.#costly : this.#queue).length < max) return;
    this.#options.onRefused?.(suiteId);
    const name = OPAQUE_SUITE_NAMES.get(suiteId) ?? suiteId;
    throw new QpqError("overloaded", `Cannot queue an OPAQUE job of ${name} as waiting must be < ${max}`, {
      retryAfterMs: costly ? COSTLY_RETRY_AFTER_MS : RETRY_AFTER_MS,
    });
  }

  /** Whether this suite is answered. */
  answers(suiteId: number): boolean {
    return (this.#options.suites ?? [SUITE_RISTRETTO255]).includes(suiteId);
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

  async #submit(job: OpaqueJob): Promise<OpaqueAnswer> {
    if (this.#closed) throw failure("the pool was closed");
    // Second halves always get in, and cost nothing in any suite: there is at most one for each first half that did.
    const second = job.kind === "loginFinish" || (job.kind === "checkRecord" && isCostly(job.suiteId));
    if (!second) this.requireRoom(job.suiteId ?? SUITE_RISTRETTO255);
    const { promise, resolve, reject } = Promise.withResolvers<OpaqueAnswer>();
    (isCostly(job.suiteId) && !second ? this.#costly : this.#queue).push({ job, resolve, reject });
    this.#assign();
    return await promise;
  }

  #sizes(suiteId: number): OpaqueSizes {
    const sizes = OPAQUE_SIZES.get(suiteId);
    if (sizes && this.answers(suiteId)) return sizes;
    throw new QpqError("malformedRequest", `Cannot use OPAQUE suite ${suiteId}: not known or not enabled`);
  }

  /** Gives waiting jobs to free workers. */
  #assign(): void {
    // Replacements that failed to start are tried again when there is work, not in a loop.
    while (!this.#closed && this.#seats.size < this.#options.workers && this.#waiting > 0) {
      this.#hire().catch((error) => {
        if (this.#seats.size === 0) this.#rejectQueue(String(error));
      });
    }
    for (const seat of this.#seats) {
      if (!seat.ready || seat.task) continue;
      const task = this.#queue.shift() ?? this.#nextCostly();
      if (!task) return;
      seat.task = task;
      seat.worker.postMessage(task.job);
    }
  }

  get #waiting(): number {
    return this.#queue.length + this.#costly.length;
  }

  /** A job of an expensive suite, unless that would leave no worker for the others. */
  #nextCostly(): Task | undefined {
    const busy = [...this.#seats].filter(({ task }) => task && isCostly(task.job.suiteId)).length;
    return busy < Math.max(1, this.#options.workers - 1) ? this.#costly.shift() : undefined;
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
    for (const task of [...this.#queue.splice(0), ...this.#costly.splice(0)]) task.reject(failure(reason));
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

function isCostly(suiteId: number | undefined): boolean {
  return suiteId === SUITE_P256;
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

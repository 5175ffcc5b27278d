/**
 * Runs the verbs, one after another, and makes what they changed durable: all verbs that wait while one batch is
 * being written are the next batch. A verb runs on the state at once, so it sees the verbs before it; its promise
 * resolves when the batch is on disk. When the batch cannot be written it is undone: verbs that changed something
 * reject, the others run again on the state as it was. So nobody is told of anything that is not on disk.
 */
import { QpqError } from "../../base/errors.ts";
import type { DeviceId } from "../../base/ids.ts";
import { encodeBatch } from "./batch.ts";
import { isDiskFull } from "./disk.ts";
import type { Journal } from "./journal.ts";
import type { State } from "./state.ts";

interface Job {
  /** A verb; or, alone, something that needs the state to be what is on disk. */
  readonly work: () => unknown;
  readonly alone: boolean;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** A verb that has run. */
interface Ran {
  readonly job: Job;
  readonly changed: boolean;
  readonly settle: () => void;
}

/** What is told of the batches that were written. */
export interface CommitterEvents {
  /** The devices that got entries, and the domains whose outboxes got messages. */
  readonly onCommitted: (devices: readonly DeviceId[], relaying: readonly string[]) => void;
  /** How many verbs, and how long it took. */
  readonly onBatch: (verbs: number, seconds: number) => void;
}

/** Bounds of one batch. */
const BATCH_JOBS_MAX = 1024;
const BATCH_BYTES_MAX = 8 * 2 ** 20;

/** The queue of verbs. */
export class Committer {
  readonly #state: State;
  readonly #journal: Journal;
  readonly #events: CommitterEvents;
  #jobs: Job[] = [];
  #running: Promise<void> | undefined;

  constructor(state: State, journal: Journal, events: CommitterEvents) {
    this.#state = state;
    this.#journal = journal;
    this.#events = events;
  }

  /** Runs a verb; resolves with its result when everything it saw and did is on disk. */
  run<Result>(verb: () => Result): Promise<Result> {
    return this.#add(verb, { alone: false });
  }

  /** Runs `action` between two batches: until it resolves no verb runs, and the state is what is on disk. */
  alone<Result>(action: () => Promise<Result> | Result): Promise<Result> {
    return this.#add(action, { alone: true }) as Promise<Result>;
  }

  /** Resolves when no verb waits. */
  async idle(): Promise<void> {
    while (this.#running) await this.#running;
  }

  #add<Result>(work: () => Result, { alone }: { alone: boolean }): Promise<Result> {
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    this.#jobs.push({ work, alone, resolve: resolve as Job["resolve"], reject });
    // A microtask later, so that verbs called one after another without awaiting share a batch.
    this.#running ??= Promise.resolve().then(() => this.#work());
    return promise;
  }

  async #work(): Promise<void> {
    try {
      while (this.#jobs.length > 0) {
        const jobs = this.#jobs;
        this.#jobs = [];
        for (let next = 0; next < jobs.length;) {
          if (!jobs[next]!.alone) next = await this.#batch(jobs, next);
          else await this.#runAlone(jobs[next++]!);
        }
      }
    } finally {
      // In the same turn as the last look at the jobs: one that comes later must begin a new run.
      this.#running = undefined;
    }
  }

  async #runAlone(job: Job): Promise<void> {
    try {
      job.resolve(await job.work());
    } catch (error) {
      job.reject(error);
    }
  }

  /** Runs and writes jobs from `first` on; returns the first that is not in the batch. */
  async #batch(jobs: readonly Job[], first: number): Promise<number> {
    const ran: Ran[] = [];
    let next = first;
    while (next < jobs.length && !jobs[next]!.alone && ran.length < BATCH_JOBS_MAX) {
      ran.push(this.#run(jobs[next++]!));
      if (this.#state.stagedBytes > BATCH_BYTES_MAX) break;
    }
    if (this.#state.changeCount > 0) await this.#write(ran);
    else for (const { settle } of ran) settle();
    return next;
  }

  async #write(ran: readonly Ran[]): Promise<void> {
    const began = performance.now();
    try {
      await this.#journal.append(encodeBatch(this.#state, this.#journal));
    } catch (cause) {
      this.#state.rollback(0);
      this.#state.endBatch();
      this.#refuse(ran, cannotWrite(cause, this.#journal.active.path));
      return;
    }
    const devices = [...this.#state.enqueuedDevices()];
    const relaying = [...this.#state.relayingDomains()];
    this.#state.endBatch();
    for (const { settle } of ran) settle();
    this.#events.onBatch(ran.length, (performance.now() - began) / 1000);
    this.#events.onCommitted(devices, relaying);
  }

  /** Runs one verb; one that throws changes nothing. */
  #run(job: Job): Ran {
    const point = this.#state.changeCount;
    try {
      const value = job.work();
      return { job, changed: this.#state.changeCount > point, settle: () => job.resolve(value) };
    } catch (error) {
      this.#state.rollback(point);
      return { job, changed: false, settle: () => job.reject(error) };
    }
  }

  #refuse(ran: readonly Ran[], error: QpqError): void {
    for (const { job, changed } of ran) {
      const again = changed ? undefined : this.#run(job);
      if (again && !again.changed) {
        again.settle();
        continue;
      }
      this.#state.rollback(0);
      this.#state.endBatch();
      job.reject(error);
    }
  }
}

function cannotWrite(cause: unknown, path: string): QpqError {
  if (isDiskFull(cause)) {
    return new QpqError("storeFull", `Cannot write ${path} as the disk is full`, { cause });
  }
  return new QpqError("storeUnavailable", `Cannot write ${path}: ${String(cause)}`, { cause });
}

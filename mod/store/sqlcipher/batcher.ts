/**
 * Gathers verb calls while the worker is busy with the batch before, and settles their promises when it answers.
 * Calls run in the order they were made.
 */
import { assert } from "../../base/assert.ts";
import { QpqError } from "../../base/errors.ts";
import type { DeviceId } from "../../base/ids.ts";
import type { EnqueuedListener, NewMessage, RelayingListener } from "../store.ts";
import { FreshMessages } from "./fresh_messages.ts";
import { MessageWriter } from "./message_codec.ts";
import { READ_VERBS, type VerbName } from "./verb_names.ts";
import type { Call, Outcome, Request, Response } from "./wire.ts";

/** Calls in one transaction at most. */
const BATCH_CALLS_MAX = 512;
/** A batch that holds so many bytes of messages takes no further call. */
const BATCH_BYTES_MAX = 4 * 1024 * 1024;

const readVerbs: ReadonlySet<string> = new Set(READ_VERBS);

type Done = Extract<Response, { type: "done" }>;

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  /** For an enqueue: what its plain answer is made of. */
  readonly message: NewMessage | undefined;
}

interface Batch {
  readonly calls: Call[];
  readonly waiting: Waiting[];
  readonly messages: MessageWriter;
  /** Called when it is settled. */
  readonly whenSettled: (() => void)[];
}

/** Calls on their way to and from the worker. */
export class Batcher {
  readonly #send: (request: Request, transfer: ArrayBuffer[]) => void;
  readonly #onEnqueued: EnqueuedListener;
  readonly #onRelaying: RelayingListener;
  readonly #onBatch: (verbs: number, seconds: number) => void;
  readonly #queue: Batch[] = [];
  /** Batches with calls that may write, while these are held back. */
  #held: Batch[] | undefined;
  #inFlight: Batch | undefined;
  #sentAt = 0;
  #scheduled = false;
  #spare: ArrayBuffer | undefined;
  #failure: QpqError | undefined;
  #idle: (() => void)[] = [];

  constructor(
    send: (request: Request, transfer: ArrayBuffer[]) => void,
    events: {
      onEnqueued: EnqueuedListener;
      onRelaying: RelayingListener;
      onBatch?: ((verbs: number, seconds: number) => void) | undefined;
    },
  ) {
    this.#send = send;
    this.#onEnqueued = events.onEnqueued;
    this.#onRelaying = events.onRelaying;
    this.#onBatch = events.onBatch ?? (() => {});
  }

  /** Runs a verb in one of the next batches. */
  call(verb: VerbName, args: readonly unknown[]): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#failure) throw this.#failure;
      const batch = this.#gathering(this.#held && !readVerbs.has(verb) ? this.#held : this.#queue);
      if (verb === "enqueue") {
        const message = args[0] as NewMessage;
        batch.calls.push({ verb, args: batch.messages.write(message) });
        batch.waiting.push({ resolve, reject, message });
      } else {
        batch.calls.push({ verb, args: args.map(tight) });
        batch.waiting.push({ resolve, reject, message: undefined });
      }
      this.#schedule();
    });
  }

  #gathering(queue: Batch[]): Batch {
    const last = queue.at(-1);
    if (last && last.calls.length < BATCH_CALLS_MAX && last.messages.length < BATCH_BYTES_MAX) return last;
    const batch = { calls: [], waiting: [], messages: new MessageWriter(this.#spare), whenSettled: [] };
    this.#spare = undefined;
    queue.push(batch);
    return batch;
  }

  /** After the current task, so that calls of one network read share the transaction. */
  #schedule(): void {
    if (this.#scheduled || this.#inFlight) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#sendNext();
    });
  }

  #sendNext(): void {
    if (this.#inFlight) return;
    const batch = this.#queue.shift();
    if (!batch || batch.calls.length === 0) {
      for (const resolve of this.#idle.splice(0)) resolve();
      return;
    }
    this.#inFlight = batch;
    this.#sentAt = performance.now();
    const messages = batch.messages.buffer;
    this.#send({ type: "batch", calls: batch.calls, messages }, [messages]);
  }

  /** The worker has answered the batch in flight. */
  settle(done: Done): void {
    const batch = this.#inFlight;
    assert(batch, "An answer without a batch");
    this.#inFlight = undefined;
    this.#onBatch(batch.calls.length, (performance.now() - this.#sentAt) / 1000);
    if (done.messages.byteLength <= BATCH_BYTES_MAX) this.#spare = done.messages;
    this.#sendNext();
    for (const [index, waiting] of batch.waiting.entries()) settleOne(waiting, done.outcomes[index]!);
    for (const resolve of batch.whenSettled) resolve();
    this.#tellEnqueued(batch, done);
    if (done.relaying.length > 0) this.#onRelaying(done.relaying);
  }

  #tellEnqueued({ waiting }: Batch, { outcomes, enqueued }: Done): void {
    const messages = waiting.flatMap(({ message }, index) =>
      message && isPlain(outcomes[index]!) ? message : []
    );
    for (const touched of enqueued) {
      // A batch that took several transactions does not say which message was in which.
      const fresh = new FreshMessages(touched, enqueued.length === 1 ? messages : []);
      this.#onEnqueued(touched.devices as readonly DeviceId[], (deviceId) => fresh.of(deviceId));
    }
  }

  /** From now on calls that may write wait; resolves when those made before are settled. */
  async holdWrites(): Promise<void> {
    this.#held = [];
    const last = this.#queue.at(-1) ?? this.#inFlight;
    if (last) await new Promise<void>((resolve) => last.whenSettled.push(resolve));
  }

  /** The calls that were held back go on, in their order. */
  releaseWrites(): void {
    this.#queue.push(...this.#held ?? []);
    this.#held = undefined;
    this.#schedule();
  }

  /** Rejects everything now and from now on. */
  fail(failure: QpqError): void {
    this.#failure = failure;
    const batches = [...this.#inFlight ? [this.#inFlight] : [], ...this.#queue, ...this.#held ?? []];
    this.#inFlight = undefined;
    this.#queue.length = 0;
    if (this.#held) this.#held.length = 0;
    for (const { waiting, whenSettled } of batches) {
      for (const { reject } of waiting) reject(failure);
      for (const resolve of whenSettled) resolve();
    }
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** Takes no further calls. */
  refuse(failure: QpqError): void {
    this.#failure ??= failure;
  }

  /** Takes no further calls; resolves when those accepted are settled. */
  async finish(failure: QpqError): Promise<void> {
    this.refuse(failure);
    if (!this.#inFlight && this.#queue.every((batch) => batch.calls.length === 0)) return;
    await new Promise<void>((resolve) => this.#idle.push(resolve));
  }
}

function settleOne({ resolve, reject, message }: Waiting, outcome: Outcome): void {
  if ("failure" in outcome) return reject(new QpqError(outcome.failure.code, outcome.failure.message));
  if ("value" in outcome) return resolve(outcome.value);
  assert(message && isPlain(outcome), "Only an enqueue has a plain answer");
  const recipients = message.parts.flatMap((part) => part.recipients.map(() => "ok"));
  const { now: acceptedAt, expiresAt } = message;
  const remote = message.remote.map(() => "relaying");
  resolve({ status: "accepted", replayed: false, recipients, remote, acceptedAt, expiresAt });
}

/** Accepted anew, with every recipient ok and every remote message in its outbox. */
function isPlain(outcome: Outcome): boolean {
  return !("value" in outcome) && !("failure" in outcome);
}

/** A copy whose byte strings own their buffers: cloning a view would send the whole buffer behind it. */
function tight(value: unknown): unknown {
  if (value instanceof Uint8Array) return new Uint8Array(value);
  if (Array.isArray(value)) return value.map(tight);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, tight(field)]));
}

/**
 * Getting what waits in the queue: once (catch up), or as it comes (follow). Entries go through the inbox,
 * which saves them before they are acknowledged; what is yielded stays saved until the next is asked for.
 */
import { unlessAborted } from "../base/abort.ts";
import { messageOf } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { backoff } from "../base/retry.ts";
import type { Entry } from "../protocol/qpq_pb.ts";
import type { Inbox } from "./inbox.ts";
import type { Chores } from "./messenger_chores.ts";
import { type ClientEvent, eventOf } from "./messenger_events.ts";
import { isConnectionTrouble, retryDelayMs, type Uplink } from "./messenger_uplink.ts";
import type { ServerLink } from "./identity.ts";
import type { ClientState } from "./state.ts";

const log = logger("client");

const CREDIT_BYTES = 1 << 20;
/** Between chores when nothing calls for them: KeyPackages are looked at now and then. */
const IDLE_MS = 3_600_000;
const RECONNECT = { initialMs: 250, maxMs: 30_000 };

/** How {@link Receiver.receive} goes on. */
export interface ReceiveOptions {
  /** Wait for more instead of ending when the queue is empty. */
  readonly follow?: boolean;
  /** Ends the iteration. */
  readonly signal?: AbortSignal;
  /** Told when a followed connection is lost (with the reason) and when it works again. */
  readonly onConnection?: (state: "connected" | "lost", error?: unknown) => void;
}

/** Receives. */
export class Receiver {
  readonly #state: ClientState;
  readonly #uplink: Uplink;
  readonly #inbox: Inbox;
  readonly #chores: () => Chores;
  #following = 0;

  constructor(deps: { state: ClientState; uplink: Uplink; inbox: Inbox; chores: () => Chores }) {
    this.#state = deps.state;
    this.#uplink = deps.uplink;
    this.#inbox = deps.inbox;
    this.#chores = deps.chores;
  }

  /** Is a subscription bringing entries as they come? Then there is no need to catch up before sending. */
  get isFollowing(): boolean {
    return this.#following > 0 && this.#uplink.current !== null;
  }

  /** Fetches, processes and acknowledges everything that waits. */
  async catchUp(): Promise<void> {
    while (true) {
      const fetched = await this.#uplink.call("fetch", { after: BigInt(this.#inbox.after) });
      if (!await this.#inbox.observe(fetched.cursor!)) continue;
      await this.#takeAndAck(fetched.entries);
      if (fetched.empty) return;
    }
  }

  /** Events in order. Only one iteration at a time. */
  async *receive(options: ReceiveOptions = {}): AsyncGenerator<ClientEvent, void, void> {
    const stop = new AbortController();
    const { closing } = this.#uplink;
    const signal = AbortSignal.any([stop.signal, closing, ...(options.signal ? [options.signal] : [])]);
    if (!options.follow) {
      await this.catchUp();
      yield* this.#shown(signal);
      if (signal.aborted) return;
      await this.#chores().run();
      return yield* this.#shown(signal); // what the chores met on their way
    }
    let failure: { error: unknown } | undefined;
    const following = this.#follow({ ...options, signal })
      .catch((error) => failure = { error })
      .finally(() => stop.abort());
    try {
      while (!signal.aborted) {
        const changed = this.#inbox.changed(signal); // asked before the look, so that nothing slips through
        yield* this.#shown(signal);
        await changed;
      }
    } finally {
      stop.abort();
      await following;
    }
    if (failure) throw failure.error;
  }

  /** Yields what is saved; a row goes when the next one is asked for. */
  async *#shown(signal: AbortSignal): AsyncGenerator<ClientEvent, void, void> {
    for (let rows = this.#state.all("inbox"); rows.length > 0; rows = this.#state.all("inbox")) {
      for (const row of rows) {
        if (signal.aborted) return;
        yield eventOf(this.#state, row);
        await this.#state.transaction((tx) => tx.delete("inbox", row.entryId));
      }
    }
  }

  /** Keeps a subscription up until the signal aborts. Rejects with what makes going on useless. */
  async #follow(options: ReceiveOptions & { signal: AbortSignal }): Promise<void> {
    const { signal, onConnection } = options;
    const waits = backoff(RECONNECT);
    let wasConnected = false;
    while (!signal.aborted) {
      try {
        // Nobody waits for a server that does not answer when the reader has had enough.
        const link = await unlessAborted(this.#uplink.link(), signal);
        await this.#subscribe(link, {
          signal,
          onReady: () => {
            waits.reset();
            wasConnected = true;
            onConnection?.("connected");
          },
        });
      } catch (error) {
        const delayMs = retryDelayMs(error);
        if (signal.aborted) return;
        if (delayMs === undefined || (!wasConnected && waits.attempts > 0)) throw error;
        if (wasConnected) onConnection?.("lost", error);
        await this.#uplink.pause(Math.max(delayMs, waits.nextMs()), signal);
      }
    }
  }

  async #subscribe(
    link: ServerLink,
    { signal, onReady }: { signal: AbortSignal; onReady: () => void },
  ): Promise<void> {
    const lost = new AbortController();
    const either = AbortSignal.any([signal, lost.signal]);
    const request = { after: BigInt(this.#inbox.after), creditBytes: CREDIT_BYTES };
    const wakeChores = this.#runChores(either);
    this.#following++;
    try {
      let isFirst = true;
      for await (const batch of link.connection.subscribe(request, { signal })) {
        // After a restore the numbers begin anew: subscribe again from the beginning.
        if (!await this.#inbox.observe(batch.cursor!)) return;
        if (isFirst) onReady();
        isFirst = false;
        await this.#inbox.take(batch.entries);
        // On this connection or not at all: the loss of it is told at once, and the next one begins with this Ack.
        const through = BigInt(this.#inbox.after);
        if (through > batch.cursor!.ackedThrough) await link.connection.call("ack", { through });
        wakeChores.wake();
      }
    } finally {
      this.#following--;
      lost.abort();
      await wakeChores.ended;
    }
  }

  async #takeAndAck(entries: readonly Entry[]): Promise<void> {
    const last = entries.at(-1);
    if (!last) return;
    await this.#inbox.take(entries);
    await this.#uplink.call("ack", { through: last.seq });
  }

  /** Runs chores beside a subscription: now, when entries came, and when one wants to be tried again. */
  #runChores(signal: AbortSignal): { wake: () => void; ended: Promise<void> } {
    let round = new AbortController();
    const loop = async () => {
      while (!signal.aborted) {
        const thisRound = round = new AbortController();
        const waitMs = await this.#tryChores();
        await this.#uplink.pause(waitMs ?? IDLE_MS, AbortSignal.any([signal, thisRound.signal]));
      }
    };
    return { wake: () => round.abort(), ended: loop() };
  }

  async #tryChores(): Promise<number | undefined> {
    try {
      return await this.#chores().run();
    } catch (error) {
      // A lost connection is met, and reported, by the subscription as well.
      if (!isConnectionTrouble(error)) log.warn("chores failed: {reason}", { reason: messageOf(error) });
      return undefined;
    }
  }
}

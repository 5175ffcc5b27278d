/**
 * Sends what waits for one peer: in order, at most two batches in flight, again after a failure with growing waits or
 * when the peer has said. It ends when nothing waits. Everything is kept in the store: to stop in the middle loses
 * nothing, and what the peer had accepted already it answers as a replay.
 */
import type { Clock } from "../base/clock.ts";
import { type ErrorCode, messageOf, QpqError } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { type Backoff, backoff } from "../base/retry.ts";
import type { RelayedMessage, RelayResponse } from "../protocol/federation_pb.ts";
import { RELAY_BYTES_MAX, RELAY_MESSAGES_MAX } from "../protocol/peer_methods.ts";
import type { OutboxEntry, PeerStore, ServerNotice } from "../store/store.ts";
import type { PeerLink } from "./link.ts";
import {
  allOf,
  type DeliveryFailedInit,
  failedNotice,
  type FailedRecipients,
  failuresOf,
  readBody,
  temporaryCode,
} from "./outbox_failures.ts";
import type { PeerMetrics } from "./peer_metrics.ts";

const log = logger("federation");

const BATCHES_IN_FLIGHT = 2;
const UINT32_MAX = 2 ** 32 - 1;
/** A peer that does not answer for so long gets a new link. */
const REPLY_MS = 30_000;
const RETRY_MS = { initialMs: 1_000, maxMs: 60_000 };
/** A peer may put us off for so long at once. */
const RETRY_AFTER_MS_MAX = 3_600_000;
/** While nothing can be sent, what has expired is looked for at least once in the first, at most once in the second. */
const SWEEP_MS_MAX = 3_600_000;
const SWEEP_MS_MIN = 60_000;
/** With new messages in the outbox, whose end is not known yet, it is looked for within this. */
const SWEEP_NEW_MS = 600_000;
/** How often a message that breaks the peer (`internal`) is tried before it is given up. */
const INTERNAL_TRIES = 5;
/** What is heard of a peer ends a wait for it, if that has lasted so long. */
const SEEN_MS_MIN = 1_000;

/** May messages go to a domain? `held`: blocked, or no peer any more. */
export type Standing = "peer" | "held";

/** What is used of a link. */
export type CallingLink = Pick<PeerLink, "call" | "close">;

/** What a sender works with. */
export interface SenderDeps {
  readonly store: Pick<PeerStore, "outboxAfter" | "settleOutbox">;
  readonly clock: Clock;
  readonly metrics: PeerMetrics;
  /** The link to a peer; rejects when there is none to be had. */
  readonly linkTo: (domain: string) => Promise<CallingLink>;
  readonly standing: (domain: string) => Standing;
  readonly notice: (failed: DeliveryFailedInit) => ServerNotice;
  /** How long a message may wait, in ms. */
  readonly ttlMs: () => number;
  /** For the jitter of waits; Math.random by default. */
  readonly random?: () => number;
}

/** Why a round ended before the outbox was empty. */
interface PutOff {
  readonly reason: "unreachable" | "refused" | "held";
  readonly retryAfterMs: number;
}

const HELD: PutOff = { reason: "held", retryAfterMs: SWEEP_NEW_MS };

/** What an operator sees of a sender. */
export interface SenderState {
  readonly attempts: number;
  /** Unix ms; null while it is sending. */
  readonly nextAttemptAt: number | null;
  readonly lastProblem: string | null;
}

/** The loop of one peer. */
export class PeerSender {
  readonly #domain: string;
  readonly #deps: SenderDeps;
  readonly #backoff: Backoff;
  readonly #onEmpty: () => void;
  /** Something came into the outbox since it was last read. */
  #dirty = true;
  #stopping = false;
  #ring = Promise.withResolvers<void>();
  #link: CallingLink | null = null;
  /** Of all senders: one domain's never says the same number of two rounds on one link. */
  static #rounds = 0;
  #roundNumber = 0;
  /** Something of the round was put off. */
  #troubled = false;
  #endPause: (() => void) | null = null;
  #pause: { readonly at: number; readonly reason: PutOff["reason"] } | null = null;
  #nextAttemptAt: number | null = null;
  #lastProblem: string | null = null;
  #sweepAt: number;
  /** How often the peer failed at a message, by row. */
  readonly #internal = new Map<number, number>();
  /** Resolves when it has ended. */
  readonly ended: Promise<void>;

  /** Begins at once. `onEmpty` is called in the moment in which it has nothing more to do. */
  constructor(domain: string, deps: SenderDeps, onEmpty: () => void) {
    this.#domain = domain;
    this.#deps = deps;
    this.#onEmpty = onEmpty;
    this.#sweepAt = deps.clock.now() + SWEEP_NEW_MS;
    this.#backoff = backoff({ ...RETRY_MS, ...(deps.random ? { random: deps.random } : {}) });
    this.ended = this.#run();
  }

  get state(): SenderState {
    return {
      attempts: this.#backoff.attempts,
      nextAttemptAt: this.#nextAttemptAt,
      lastProblem: this.#lastProblem,
    };
  }

  /** Something came into the outbox. Does not end a wait after a failure. */
  wake(): void {
    this.#dirty = true;
    this.#sweepAt = Math.min(this.#sweepAt, this.#deps.clock.now() + SWEEP_NEW_MS);
    this.#ring.resolve();
  }

  /** Ends a wait; `anew`: also one for answers on a link that may be dead, and makes a new one. */
  retry(how: "now" | "anew" = "now"): void {
    this.#backoff.reset();
    if (how === "anew") this.#link?.close("an operator wants to try again");
    this.#endPause?.();
  }

  /** The peer is there: ends a wait for it that has lasted a moment, but not one that it asked for. */
  seen(): void {
    const { reason, at } = this.#pause ?? {};
    if (reason === "unreachable" && this.#deps.clock.monotonic() - at! >= SEEN_MS_MIN) this.retry();
  }

  /** Who is a peer, or where, may have changed: ends a wait, but not one that the peer asked for. */
  recheck(): void {
    if (this.#pause && this.#pause.reason !== "refused") this.retry();
  }

  /** Begins nothing more. {@link ended} resolves when what is in flight has been answered. */
  stop(): void {
    this.#stopping = true;
    this.#ring.resolve();
    this.#endPause?.();
  }

  async #run(): Promise<void> {
    while (!this.#stopping) {
      const putOff = await this.#round().catch((error): PutOff => this.#failed(error));
      if (putOff) await this.#wait(putOff);
      else if (!this.#dirty) break;
    }
    this.#onEmpty();
  }

  /** Sends until the outbox is empty (null) or something is in the way. */
  async #round(): Promise<PutOff | null> {
    this.#troubled = false;
    await this.#sweepIfDue();
    let entries = await this.#read(0);
    if (entries.length === 0) return null;
    if (this.#deps.standing(this.#domain) !== "peer") return HELD;
    const link = this.#link = await this.#deps.linkTo(this.#domain);
    PeerSender.#rounds = PeerSender.#rounds % UINT32_MAX + 1;
    this.#roundNumber = PeerSender.#rounds;
    const inFlight: Promise<PutOff | null>[] = [];
    const send = () => {
      inFlight.push(this.#send(link, entries).catch((error) => this.#failed(error)));
      return entries.at(-1)!.id;
    };
    let after = 0;
    try {
      while (true) {
        this.#ring = Promise.withResolvers();
        if (inFlight.length < BATCHES_IN_FLIGHT && this.#maySend()) {
          if (after > 0) entries = await this.#read(after);
          if (entries.length > 0) {
            after = send();
            continue;
          }
        }
        if (inFlight.length === 0) return this.#stopping || this.#maySend() ? null : HELD;
        // One answer, or something new that can go before it.
        const first = inFlight[0]!.then((putOff) => ({ putOff }));
        const news = inFlight.length < BATCHES_IN_FLIGHT ? [this.#ring.promise] : [];
        const answered = await Promise.race([first, ...news]);
        if (!answered) continue;
        inFlight.shift();
        if (answered.putOff) return answered.putOff;
      }
    } finally {
      await Promise.allSettled(inFlight);
      this.#link = null;
    }
  }

  #maySend(): boolean {
    return !this.#stopping && this.#deps.standing(this.#domain) === "peer";
  }

  #read(after: number): Promise<OutboxEntry[]> {
    this.#dirty = false;
    const bounds = { entriesMax: RELAY_MESSAGES_MAX, bytesMax: RELAY_BYTES_MAX };
    return this.#deps.store.outboxAfter({ domain: this.#domain, after, ...bounds });
  }

  /** Sends a batch; what has become of its messages is in the store when this resolves. */
  async #send(link: CallingLink, entries: readonly OutboxEntry[]): Promise<PutOff | null> {
    const { clock } = this.#deps;
    const now = clock.now();
    const late = entries.filter((entry) => this.#endOf(entry) <= now);
    const sent = entries.filter((entry) => this.#endOf(entry) > now);
    const messages = sent.map((entry) => withTimes(entry, now));
    // It leaves before anything is waited for: the next batch must not.
    const asked = sent.length > 0 ? this.#ask(link, messages) : null;
    asked?.catch(() => {});
    await this.#giveUp(late);
    if (!asked) return null;
    let response: RelayResponse;
    try {
      response = await asked;
    } catch (error) {
      // A link that does not answer in time is of no use; what was sent on it is answered as a replay.
      if (!(error instanceof QpqError) || error.code === "peerUnavailable") link.close(messageOf(error));
      return this.#failed(error);
    }
    return await this.#settle(sent, messages, response);
  }

  async #ask(link: CallingLink, messages: RelayedMessage[]): Promise<RelayResponse> {
    const round = this.#roundNumber;
    const response = await link.call("relay", { messages, round }, { timeoutMs: REPLY_MS });
    const answered = response.results.length;
    if (answered === messages.length) return response;
    throw new QpqError("peerUnavailable", `The peer answered ${answered} of ${messages.length}`);
  }

  async #settle(
    sent: readonly OutboxEntry[],
    messages: readonly RelayedMessage[],
    { results }: RelayResponse,
  ): Promise<PutOff | null> {
    let putOff: PutOff | null = null;
    const settled: { entry: OutboxEntry; failed: FailedRecipients[] }[] = [];
    results.forEach((result, i) => {
      const entry = sent[i]!;
      const code = temporaryCode(result);
      if (code && !this.#breaksPeer(entry, code)) {
        putOff ??= this.#refused(code, result.error?.retryAfterMs ?? 0);
        return;
      }
      this.#internal.delete(entry.id);
      settled.push({ entry, failed: failuresOf(messages[i]!, result) });
      if (result.code === 0) this.#delivered(entry);
    });
    await this.#write(settled);
    // One recipient's trouble at the peer must not make the others wait ever longer.
    if (!putOff || settled.length > 0) this.#backoff.reset();
    if (!putOff && !this.#troubled) this.#lastProblem = null;
    return putOff;
  }

  #delivered({ acceptedAt }: OutboxEntry): void {
    const { metrics, clock } = this.#deps;
    metrics.relayed(this.#domain, "out");
    metrics.relaySeconds(this.#domain, (clock.now() - acceptedAt) / 1000);
  }

  /** A message that fails at the peer again and again must not keep back what is behind it. */
  #breaksPeer({ id }: OutboxEntry, code: ErrorCode): boolean {
    if (code !== "internal") return false;
    const count = (this.#internal.get(id) ?? 0) + 1;
    this.#internal.set(id, count);
    return count >= INTERNAL_TRIES;
  }

  #refused(code: ErrorCode, retryAfterMs: number): PutOff {
    this.#troubled = true;
    this.#lastProblem = `the peer answered ${code}`;
    log.debug("{peer} asks to send later: {code}", { peer: this.#domain, code });
    return { reason: "refused", retryAfterMs: Math.min(retryAfterMs, RETRY_AFTER_MS_MAX) };
  }

  #failed(error: unknown): PutOff {
    const retryAfterMs = error instanceof QpqError ? error.details.retryAfterMs ?? 0 : 0;
    this.#troubled = true;
    this.#lastProblem = messageOf(error);
    log.debug("cannot send to {peer}: {reason}", { peer: this.#domain, reason: messageOf(error) });
    return { reason: "unreachable", retryAfterMs: Math.min(retryAfterMs, RETRY_AFTER_MS_MAX) };
  }

  async #wait({ reason, retryAfterMs }: PutOff): Promise<void> {
    if (this.#stopping) return;
    const { clock, metrics } = this.#deps;
    if (reason !== "held") metrics.putOff(this.#domain, reason);
    const waitMs = reason === "held" ? retryAfterMs : Math.max(this.#backoff.nextMs(), retryAfterMs);
    this.#pause = { at: clock.monotonic(), reason };
    this.#nextAttemptAt = clock.now() + waitMs;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#endPause = resolve;
    const cancel = clock.after(waitMs, resolve);
    await promise;
    cancel();
    this.#endPause = null;
    this.#pause = null;
    this.#nextAttemptAt = null;
  }

  /** Gives up what has expired, wherever in the outbox it is. */
  async #sweepIfDue(): Promise<void> {
    const now = this.#deps.clock.now();
    if (now < this.#sweepAt) return;
    let nextEnd = now + SWEEP_MS_MAX;
    let after = 0;
    for (
      let entries = await this.#read(after);
      entries.length > 0 && !this.#stopping;
      entries = await this.#read(after)
    ) {
      after = entries.at(-1)!.id;
      await this.#giveUp(entries.filter((entry) => this.#endOf(entry) <= now));
      for (const entry of entries) {
        const end = this.#endOf(entry);
        if (end > now) nextEnd = Math.min(nextEnd, end);
      }
    }
    this.#sweepAt = Math.max(nextEnd, now + SWEEP_MS_MIN);
  }

  #endOf({ acceptedAt, expiresAt }: OutboxEntry): number {
    return Math.min(expiresAt, acceptedAt + this.#deps.ttlMs());
  }

  async #giveUp(entries: readonly OutboxEntry[]): Promise<void> {
    if (entries.length === 0) return;
    const reason = this.#deps.standing(this.#domain) === "peer" ? "expired" : "peer_removed";
    for (const { id } of entries) this.#internal.delete(id);
    await this.#write(entries.map((entry) => ({ entry, failed: [allOf(readBody(entry), reason)] })));
  }

  async #write(
    settled: readonly { entry: OutboxEntry; failed: readonly FailedRecipients[] }[],
  ): Promise<void> {
    await settle(this.#domain, { ...this.#deps, settled });
  }
}

/** Takes messages out of a domain's outbox and tells their senders what failed. */
export async function settle(
  domain: string,
  { store, clock, metrics, notice, settled }: Pick<SenderDeps, "store" | "clock" | "metrics" | "notice"> & {
    settled: readonly { entry: OutboxEntry; failed: readonly FailedRecipients[] }[];
  },
): Promise<void> {
  if (settled.length === 0) return;
  await store.settleOutbox({
    domain,
    settled: settled.map(({ entry, failed }) => ({
      id: entry.id,
      failures: failed.map((each) => notice(failedNotice(entry, { domain, failed: each }))),
    })),
    now: clock.now(),
  });
  for (const { failed } of settled) {
    for (const { reason, deviceIds } of failed) metrics.failed(domain, reason, deviceIds.length);
  }
}

function withTimes(entry: OutboxEntry, now: number): RelayedMessage {
  const message = readBody(entry);
  message.ttlS = Math.max(1, Math.ceil((entry.expiresAt - now) / 1000));
  message.acceptedAtMs = BigInt(entry.acceptedAt);
  return message;
}

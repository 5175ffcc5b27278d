/**
 * The promises of the server as a small model: it is told what clients asked and what they were answered, and
 * throws {@link BrokenPromise} as soon as no server that keeps its promises could have answered so. What a client
 * does not know (an answer that was lost) may have happened or not.
 */
import { touchIntervalMs } from "../../mod/auth/logins.ts";
import { equal, hex } from "../../mod/base/bytes.ts";
import type { Clock } from "../../mod/base/clock.ts";
import { SETTINGS } from "./sim_server.ts";

/** The server has answered what it must not, or not what it must. */
export class BrokenPromise extends Error {
  override name = "BrokenPromise";
}

/** A message of a simulation; its number stands in its payload. */
export interface SimMessage {
  readonly number: number;
  readonly sender: string;
  /** Devices by id. */
  readonly recipients: readonly string[];
  readonly payload: Uint8Array;
  readonly commit: { readonly group: string; readonly epoch: number } | null;
}

/** What is known of a message. */
interface Sent extends SimMessage {
  /** Places in the order of events; `accepted` is null while no answer has said so. */
  readonly begun: number;
  accepted: number | null;
  acceptedAt: number;
  /** Unix ms after which it need not be delivered. */
  expiresAt: number;
  /** Recipients that the answer called ok. */
  readonly ok: Set<string>;
  /** Refused for good: it must never arrive. */
  refused: boolean;
}

/** What one device has seen of its queue. */
interface Queue {
  readonly seen: Map<number, { number: number; entryId: string }>;
  readonly seqOf: Map<number, number>;
  highest: number;
  /** Notices by seq. */
  readonly notices: Map<number, string>;
  /** A revocation was asked for; and the place of the answer that said it is done. */
  revoking: boolean;
  revoked: number | null;
}

/** What is known of a KeyPackage. */
interface Package {
  readonly device: string;
  readonly lastResort: boolean;
  claimed: boolean;
}

/** A session: what may have ended it. */
interface Session {
  readonly device: string;
  readonly account: string;
  /** An end was asked for: it may have ended. */
  ending: boolean;
  /** Place of the answer that it has ended. */
  ended: number | null;
  usedAt: number;
}

/** An end of sessions that was asked for. */
export interface SessionEnd {
  readonly which: (session: { id: string; device: string; account: string }) => boolean;
  /** Those that were there. */
  readonly ids: readonly string[];
  /** Unix ms until which it may still take effect when there was no answer. */
  readonly until: number;
  /** Place of the answer that it is done. */
  done: number | null;
}

/** A request without an answer takes effect within this time, or never. */
export const LATEST_MS = 120_000;
/** A wait may find out so much later that something came: what a slow disk and network take. */
const WAKE_MS_MAX = 30_000;

/** See the head of this file. */
export class Model {
  readonly #clock: Clock;
  #place = 0;
  readonly #messages = new Map<number, Sent>();
  readonly #queues = new Map<string, Queue>();
  readonly #packages = new Map<string, Package>();
  readonly #commits = new Map<string, number>();
  readonly #sessions = new Map<string, Session>();
  readonly #ends: SessionEnd[] = [];
  /** The highest epoch of each group that somebody tried to leave. */
  readonly #epochsTried = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A place in the order of events. */
  place(): number {
    return ++this.#place;
  }

  /** Messages that were accepted, and deliveries of them. */
  get figures(): { accepted: number; delivered: number; claimed: number; commits: number } {
    const accepted = [...this.#messages.values()].filter((sent) => sent.accepted !== null).length;
    const delivered = [...this.#queues.values()].reduce((sum, queue) => sum + queue.seen.size, 0);
    const claimed = [...this.#packages.values()].filter((one) => one.claimed).length;
    return { accepted, delivered, claimed, commits: this.#commits.size };
  }

  // --- messages ---------------------------------------------------------------------------------------------

  /** A message is about to be sent for the first time. */
  sending(message: SimMessage): void {
    const { commit } = message;
    if (commit) {
      this.#epochsTried.set(commit.group, Math.max(commit.epoch, this.#epochsTried.get(commit.group) ?? 0));
    }
    this.#messages.set(message.number, {
      ...message,
      begun: this.place(),
      accepted: null,
      acceptedAt: 0,
      expiresAt: 0,
      ok: new Set(),
      refused: false,
    });
  }

  /** The server said that it has the message. */
  accepted(
    number: number,
    answer: { statuses: readonly string[]; acceptedAt: number; ttlMs: number; replayed: boolean },
  ): void {
    const sent = this.#messages.get(number)!;
    if (sent.refused) this.#broken(`message ${number} was refused for good, and then accepted`);
    if (sent.accepted !== null) {
      if (!answer.replayed) this.#broken(`message ${number} was accepted twice within the window`);
      if (answer.acceptedAt !== sent.acceptedAt) this.#broken(`the replay of ${number} has another time`);
    }
    sent.accepted ??= this.place();
    sent.acceptedAt = answer.acceptedAt;
    sent.expiresAt = answer.acceptedAt + answer.ttlMs;
    answer.statuses.forEach((status, index) => {
      const device = sent.recipients[index]!;
      const { revoked } = this.#queue(device);
      if (status === "ok" && revoked !== null && revoked < sent.begun) {
        this.#broken(`message ${number} was accepted for ${device}, which was revoked before`);
      }
      if (status === "ok") sent.ok.add(device);
      else if (sent.ok.has(device)) this.#broken(`the replay of ${number} has another status for ${device}`);
    });
    if (sent.commit) this.#committed(sent.commit, number);
  }

  /** The server said that it will never take this message. */
  refused(number: number): void {
    const sent = this.#messages.get(number)!;
    if (sent.accepted !== null) this.#broken(`message ${number} was accepted, and then refused`);
    sent.refused = true;
    for (const queue of this.#queues.values()) {
      if (queue.seqOf.has(number)) this.#broken(`message ${number} was delivered, and then refused`);
    }
  }

  /** Other content under the id of `number`, which was accepted a short time ago, must be refused. */
  conflictingIdAccepted(number: number): void {
    this.#broken(`other content under the id of message ${number} was accepted`);
  }

  /** An entry came to a device. `asked` is what it asked for: only entries above. */
  delivered(
    device: string,
    entry: { seq: number; entryId: string; sender: string; payload: Uint8Array; number: number | null },
    asked: { after: number },
  ): void {
    const queue = this.#queue(device);
    if (entry.seq <= asked.after) this.#broken(`${device} asked for more than ${asked.after}: ${entry.seq}`);
    if (entry.number === null) return this.#noticed(device, entry);
    const sent = this.#messages.get(entry.number);
    if (!sent) return this.#broken(`${device} got message ${entry.number}, which nobody sent`);
    const what = `message ${entry.number} at ${entry.seq} of ${device}`;
    if (!sent.recipients.includes(device)) this.#broken(`${what} was not for it`);
    if (!equal(entry.payload, sent.payload)) this.#broken(`${what} has another content`);
    if (entry.sender !== sent.sender) this.#broken(`${what} comes from ${entry.sender}, not ${sent.sender}`);
    if (sent.refused) this.#broken(`${what} was refused for good`);
    const before = queue.seen.get(entry.seq);
    if (before && before.entryId !== entry.entryId) this.#broken(`${what} was message ${before.number}`);
    if (before) return;
    const otherSeq = queue.seqOf.get(entry.number);
    if (otherSeq !== undefined) this.#broken(`${what} is there twice: also at ${otherSeq}`);
    if (entry.seq < queue.highest) this.#broken(`${what} came after ${queue.highest}`);
    this.#checkOrder(device, queue, sent);
    queue.seen.set(entry.seq, { number: entry.number, entryId: entry.entryId });
    queue.seqOf.set(entry.number, entry.seq);
    queue.highest = entry.seq;
    if (sent.commit) this.#committed(sent.commit, entry.number);
  }

  /**
   * A device was told that nothing waits behind what it has seen; it asked at `begun`. `quietMs`: so long it had been
   * waiting (FetchWait), so that what was accepted well within this time must have come.
   */
  sawAll(device: string, begun: number, quietMs = 0): void {
    const queue = this.#queue(device);
    const now = this.#clock.now();
    for (const sent of this.#messages.values()) {
      if (sent.accepted === null || !sent.ok.has(device) || queue.seqOf.has(sent.number)) continue;
      const known = sent.accepted < begun ||
        (quietMs > WAKE_MS_MAX && sent.acceptedAt < now - WAKE_MS_MAX);
      if (known && sent.expiresAt > now && !queue.revoking) {
        const since = sent.accepted < begun ? "" : ` although it waited for ${quietMs} ms`;
        this.#broken(`message ${sent.number} was accepted and did not come to ${device}${since}`);
      }
    }
  }

  /**
   * A device asked again for what is above `after`, which it never acknowledged, and was told that this is all:
   * `seqs`. What was not acknowledged comes again.
   */
  sawAgain(device: string, { after, seqs }: { after: number; seqs: ReadonlySet<number> }): void {
    const queue = this.#queue(device);
    if (queue.revoking) return;
    for (const [seq, { number }] of queue.seen) {
      const sent = this.#messages.get(number)!;
      // Without an answer it is not known when it expires.
      if (seq <= after || sent.accepted === null || sent.expiresAt <= this.#clock.now()) continue;
      if (!seqs.has(seq)) this.#broken(`message ${number} at ${seq} of ${device} is gone without an Ack`);
    }
  }

  /** So many messages are in the device's queue. */
  held(device: string, count: number): void {
    const { queueDepthMax } = SETTINGS.limits;
    if (count > queueDepthMax) {
      this.#broken(`${count} messages are in the queue of ${device}: ${queueDepthMax} may`);
    }
  }

  /** The server says that it never gave out a number which the device has seen. */
  forgot(device: string, through: number): void {
    this.#broken(`${device} cannot acknowledge ${through}, which it has seen`);
  }

  /** The device is about to be revoked: its queue may be gone. */
  revoking(device: string): void {
    this.#queue(device).revoking = true;
  }

  /** The server said that the device is revoked. */
  revoked(device: string): void {
    this.#queue(device).revoked ??= this.place();
  }

  /** Messages of `sender` that were accepted less than `ageMs` ago: their ids are remembered. */
  remembered(sender: string, ageMs: number): SimMessage[] {
    const now = this.#clock.now();
    return [...this.#messages.values()].filter((sent) => {
      return sent.sender === sender && sent.accepted !== null && sent.acceptedAt > now - ageMs;
    });
  }

  /** Whoever was accepted before another was begun comes before it in each queue. */
  #checkOrder(device: string, queue: Queue, next: Sent): void {
    if (next.accepted === null) return;
    for (const { number } of queue.seen.values()) {
      const before = this.#messages.get(number)!;
      if (next.accepted < before.begun) {
        this.#broken(`message ${next.number} was accepted before ${number}, and came to ${device} after it`);
      }
    }
  }

  #noticed(device: string, entry: { seq: number; entryId: string }): void {
    const { notices, seen } = this.#queue(device);
    const before = notices.get(entry.seq);
    if ((before && before !== entry.entryId) || seen.has(entry.seq)) {
      this.#broken(`the notice at ${entry.seq} of ${device} was something else`);
    }
    notices.set(entry.seq, entry.entryId);
  }

  #queue(device: string): Queue {
    let queue = this.#queues.get(device);
    if (!queue) {
      queue = {
        seen: new Map(),
        seqOf: new Map(),
        highest: 0,
        notices: new Map(),
        revoking: false,
        revoked: null,
      };
      this.#queues.set(device, queue);
    }
    return queue;
  }

  // --- commits ----------------------------------------------------------------------------------------------

  #committed({ group, epoch }: { group: string; epoch: number }, number: number): void {
    const other = this.#commits.get(`${group} ${epoch}`);
    if (other !== undefined && other !== number) {
      this.#broken(`epoch ${epoch} of ${group} has two commits: messages ${other} and ${number}`);
    }
    this.#commits.set(`${group} ${epoch}`, number);
  }

  /** A commit that no member can have made was accepted. */
  forgedCommitAccepted(what: string): void {
    this.#broken(`a commit ${what} was accepted`);
  }

  /** The epoch that a group is in at least. */
  epochOf(group: string): number {
    let epoch = 0;
    while (this.#commits.has(`${group} ${epoch}`)) epoch++;
    return epoch;
  }

  /** The server named the group's epoch to somebody who committed in `epoch`. */
  toldEpoch(group: string, told: { epoch: number; current: number }): void {
    if (told.current === told.epoch) {
      this.#broken(`${group} is in epoch ${told.epoch}, and yet it was refused`);
    }
    if (told.current > this.#epochsTried.get(group)! + 1) {
      this.#broken(`${group} is said to be in epoch ${told.current}, which nobody committed to`);
    }
  }

  // --- KeyPackages ------------------------------------------------------------------------------------------

  /** Packages are about to be uploaded. */
  uploading(device: string, packages: readonly { bytes: Uint8Array; lastResort: boolean }[]): void {
    for (const { bytes, lastResort } of packages) {
      const key = hex(bytes);
      if (!this.#packages.has(key)) this.#packages.set(key, { device, lastResort, claimed: false });
    }
  }

  /** A device was told its supply. */
  counted(device: string, count: number): void {
    const { keyPackagesMax } = SETTINGS.limits;
    if (count > keyPackagesMax) {
      this.#broken(`${device} has ${count} KeyPackages, more than ${keyPackagesMax}`);
    }
  }

  /** A claim was answered with this package. */
  claimed(answer: { device: string; bytes: Uint8Array; lastResort: boolean; begun: number }): void {
    const revoked = this.#queue(answer.device).revoked;
    if (revoked !== null && revoked < answer.begun) {
      this.#broken(`a KeyPackage of revoked ${answer.device} came`);
    }
    const known = this.#packages.get(hex(answer.bytes));
    if (!known) return this.#broken(`a KeyPackage of ${answer.device} was given out that nobody uploaded`);
    if (known.device !== answer.device) {
      this.#broken(`a KeyPackage of ${known.device} goes as ${answer.device}'s`);
    }
    if (known.lastResort !== answer.lastResort) this.#broken(`a last-resort KeyPackage is not called one`);
    if (known.claimed && !known.lastResort) {
      this.#broken(`a KeyPackage of ${answer.device} was given out twice`);
    }
    known.claimed = true;
  }

  // --- sessions ---------------------------------------------------------------------------------------------

  /** A login that was begun at `begun` was answered with this session; `others` is what it ended itself. */
  loggedIn(
    session: string,
    of: { device: string; account: string; begun: number; others: SessionEnd | null },
  ): void {
    const now = this.#clock.now();
    // Another request to end it that was on its way meanwhile may have come after it.
    const ending = this.#ends.some((end) => {
      const { which, until, done } = end;
      const meanwhile = done === null ? now < until : done > of.begun;
      return end !== of.others && meanwhile && which({ id: session, ...of });
    });
    this.#sessions.set(session, { ...of, ending, ended: null, usedAt: now });
  }

  /** Something is about to be asked for that ends the sessions that `which` names. */
  ending(which: SessionEnd["which"]): SessionEnd {
    const ids = [...this.#sessions].filter(([id, session]) => which({ id, ...session })).map(([id]) => id);
    for (const id of ids) this.#sessions.get(id)!.ending = true;
    const end = { which, ids, until: this.#clock.now() + LATEST_MS, done: null };
    this.#ends.push(end);
    return end;
  }

  /** The server said that it is done. */
  ended(end: SessionEnd): void {
    end.done = this.place();
    for (const id of end.ids) this.#sessions.get(id)!.ended ??= end.done;
  }

  /** A Resume that was begun at `begun` worked. */
  resumed(id: string, begun: number): void {
    const session = this.#sessions.get(id)!;
    if (session.ended !== null && session.ended < begun) {
      this.#broken(`a session of ${session.device} was resumed after its end`);
    }
    session.usedAt = this.#clock.now();
  }

  /** A Resume was refused for good. */
  resumeRefused(id: string, why: string): void {
    const session = this.#sessions.get(id)!;
    // The store hears of its use a little later than it happens.
    const { sessionIdleTtlMs } = SETTINGS;
    const idle = this.#clock.now() - session.usedAt >= sessionIdleTtlMs - touchIntervalMs(sessionIdleTtlMs);
    if (!session.ending && !idle) {
      this.#broken(`a session of ${session.device} cannot be resumed although nothing ended it: ${why}`);
    }
  }

  // --- who may what -----------------------------------------------------------------------------------------

  /** Somebody did what he may not. */
  trespassed(what: string): void {
    this.#broken(`somebody could ${what}`);
  }

  /** Somebody could not do what he may. */
  lockedOut(what: string): void {
    this.#broken(`somebody could not ${what}`);
  }

  /** The server refuses its own store. */
  cannotStart(why: string): void {
    this.#broken(`a server that lost its power does not start again: ${why}`);
  }

  /** Something is held that nobody needs any more, or grows beyond its bound. */
  unbounded(what: string): void {
    this.#broken(`with all clients gone the server still holds ${what}`);
  }

  #broken(what: string): never {
    throw new BrokenPromise(what);
  }
}

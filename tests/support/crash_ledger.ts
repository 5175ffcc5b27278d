/**
 * What the clients of a server that may die at any moment were told, and what therefore has to be true: the promises
 * as a small model. Each claim that does not hold throws at once.
 */
import assert from "node:assert/strict";
import { concat, hex, randomBytes } from "../../mod/base/bytes.ts";

/** A message on its way; sent again under the same id after a crash, until it is acknowledged. */
export interface Message {
  readonly messageId: Uint8Array;
  readonly payload: Uint8Array;
}

/** What a run has had to do. */
export interface CrashTotals {
  readonly messages: number;
  readonly keyPackages: number;
  /** Of the KeyPackages. */
  readonly claimed: number;
}

/** Sender and number of a message come before bytes that make it another than all others. */
const NUMBERS_BYTES = 8;
const MESSAGE_BYTES = NUMBERS_BYTES + 200;
/** Blobs that are read again after each crash: the last ones. */
const BLOBS_KEPT = 40;

/** The books of one run. */
export class CrashLedger {
  /** Replies of any kind. */
  replies = 0;
  /** For each sender: messages that were acknowledged, and the one whose fate is not known. */
  readonly #sent: number[];
  readonly #pending: (Message | undefined)[];
  /** For each sender: messages that the recipient has got. */
  readonly #got: number[];
  /** What the recipient has got and not yet acknowledged, by sequence number. */
  readonly #unacked = new Map<bigint, string>();
  #seen = 0n;
  #acked = 0n;
  #acking = 0n;
  readonly #uploaded = new Set<string>();
  readonly #claimed = new Set<string>();
  /** KeyPackages that are there: at least (what was acknowledged), at most (what was sent). */
  #supplyMin = 0;
  #supplyMax = 0;
  readonly #blobs: string[] = [];

  constructor(senders: number) {
    this.#sent = Array(senders).fill(0);
    this.#got = Array(senders).fill(0);
    this.#pending = Array(senders).fill(undefined);
  }

  get senders(): number {
    return this.#sent.length;
  }

  /** The sender's message that is not acknowledged, or its next. */
  message(sender: number): Message {
    return this.#pending[sender] ??= {
      messageId: randomBytes(16),
      payload: concat(
        new Uint8Array(Uint32Array.of(sender, this.#sent[sender]!).buffer),
        randomBytes(MESSAGE_BYTES - NUMBERS_BYTES),
      ),
    };
  }

  /** Senders whose last message may or may not be there. */
  get undecided(): number[] {
    return this.#pending.flatMap((message, sender) => message ? [sender] : []);
  }

  sent(sender: number): void {
    this.replies++;
    this.#sent[sender]!++;
    this.#pending[sender] = undefined;
  }

  /** An entry of the recipient's queue: the next one, or one of before that is as it was. */
  got({ seq, payload }: { seq: bigint; payload: Uint8Array }): void {
    assert.ok(seq > this.#acked, `entry ${seq} is back though it was acknowledged`);
    if (seq <= this.#seen) {
      const before = this.#unacked.get(seq);
      if (seq > this.#acking) assert.ok(before !== undefined, `entry ${seq} was not there before`);
      if (before !== undefined) assert.equal(hex(payload), before, `entry ${seq} is another than before`);
      return;
    }
    assert.equal(seq, this.#seen + 1n, "sequence numbers have no hole");
    this.#seen = seq;
    this.#unacked.set(seq, hex(payload));
    if (payload.length !== MESSAGE_BYTES) return; // a notice of the server
    const [sender, number] = new Uint32Array(payload.slice(0, NUMBERS_BYTES).buffer) as unknown as [
      number,
      number,
    ];
    assert.equal(
      number,
      this.#got[sender],
      `message of sender ${sender}: in order, none twice, none missing`,
    );
    this.#got[sender]!++;
  }

  /** Through which sequence number everything was got. */
  get seen(): bigint {
    return this.#seen;
  }

  acking(through: bigint): void {
    this.#acking = through;
  }

  acked(through: bigint): void {
    this.replies++;
    this.#acked = through;
    for (const seq of this.#unacked.keys()) if (seq <= through) this.#unacked.delete(seq);
  }

  /** The server's cursor agrees with what was told. */
  assertCursor(ackedThrough: bigint): void {
    assert.ok(
      ackedThrough >= this.#acked,
      `acknowledged through ${this.#acked}, the server has ${ackedThrough}`,
    );
    assert.ok(ackedThrough <= this.#acking, `nobody acknowledged through ${ackedThrough}`);
  }

  /** The queue is empty and no sender waits: everything has come. */
  assertAllCame(): void {
    assert.deepEqual(this.undecided, []);
    assert.deepEqual(this.#got, this.#sent, "every acknowledged message is there");
  }

  uploading(keyPackages: readonly Uint8Array[]): void {
    for (const bytes of keyPackages) this.#uploaded.add(hex(bytes));
    this.#supplyMax += keyPackages.length;
  }

  uploaded(count: number): void {
    this.replies++;
    this.#supplyMin += count;
  }

  /** At least so many KeyPackages have been uploaded and not claimed. */
  get supply(): number {
    return this.#supplyMin;
  }

  claimed(keyPackage: Uint8Array): void {
    this.replies++;
    const name = hex(keyPackage);
    assert.ok(this.#uploaded.has(name), "a KeyPackage that nobody uploaded");
    assert.ok(!this.#claimed.has(name), "a KeyPackage was handed out twice");
    this.#claimed.add(name);
    this.#supplyMin--;
    this.#supplyMax--;
  }

  /** A claim that died with the server may have taken a package with it. */
  claimLost(): void {
    this.#supplyMin--;
  }

  /** The server's count agrees with what was told. */
  assertSupply(count: number): void {
    const [least, most] = [this.#supplyMin, this.#supplyMax];
    assert.ok(count >= least && count <= most, `${count} KeyPackages, not ${least} to ${most}`);
    this.#supplyMin = this.#supplyMax = count;
  }

  put(sha256: string): void {
    this.replies++;
    this.#blobs.push(sha256);
    if (this.#blobs.length > BLOBS_KEPT) this.#blobs.shift();
  }

  /** Hashes of blobs that have to be there. */
  get blobs(): readonly string[] {
    return this.#blobs;
  }

  /** What there was. */
  get totals(): CrashTotals {
    const messages = this.#sent.reduce((sum, count) => sum + count, 0);
    return { messages, keyPackages: this.#uploaded.size, claimed: this.#claimed.size };
  }
}

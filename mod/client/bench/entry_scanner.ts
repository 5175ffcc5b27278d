/**
 * The entries of a PushBatch (or FetchResponse: the field is the same) without decoding what a load generator does not
 * look at: four numbers and a view of the payload instead of eight fields and a BigInt for each.
 */

/** Field numbers and wire types of qpq.proto. */
const ENTRIES = 1 << 3 | 2;
const SEQ = 1 << 3;
const KIND = 2 << 3;
const PAYLOAD = 6 << 3 | 2;
const WIRE_VARINT = 0;
const WIRE_BYTES = 2;
const KIND_MESSAGE = 1;

/** Told of an entry; the payload is a view. */
export type OnEntry = (seq: number, payload: Uint8Array) => void;

/** Reads one body after another. */
export class EntryScanner {
  readonly #onMessage: OnEntry;
  #body: Uint8Array = new Uint8Array(0);
  #at = 0;

  /** `onMessage` hears of messages. */
  constructor(onMessage: OnEntry) {
    this.#onMessage = onMessage;
  }

  /** Tells of the messages in `body`; returns the sequence number of its last entry of any kind, 0 without one. */
  scan(body: Uint8Array): number {
    this.#body = body;
    this.#at = 0;
    let last = 0;
    while (this.#at < body.length) {
      const tag = this.#varint();
      if (tag === ENTRIES) last = this.#entry(this.#varint());
      else this.#skip(tag);
    }
    return last;
  }

  #entry(length: number): number {
    const end = this.#at + length;
    let [seq, kind, begin, payloadEnd] = [0, 0, end, end];
    while (this.#at < end) {
      const tag = this.#varint();
      if (tag === SEQ) seq = this.#varint();
      else if (tag === KIND) kind = this.#varint();
      else if (tag === PAYLOAD) {
        const bytes = this.#varint();
        begin = this.#at;
        payloadEnd = this.#at += bytes;
      } else this.#skip(tag);
    }
    if (kind === KIND_MESSAGE) this.#onMessage(seq, this.#body.subarray(begin, payloadEnd));
    return seq;
  }

  #skip(tag: number): void {
    const type = tag & 7;
    if (type === WIRE_VARINT) this.#varint();
    else if (type === WIRE_BYTES) {
      const length = this.#varint();
      this.#at += length;
    } else throw new RangeError(`Cannot skip a field of wire type ${type}`);
  }

  /** Up to 2^53. */
  #varint(): number {
    let value = 0;
    for (let factor = 1;; factor *= 128) {
      const byte = this.#body[this.#at++];
      if (byte === undefined) throw new RangeError("The body of a push ends inside of a number");
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
  }
}

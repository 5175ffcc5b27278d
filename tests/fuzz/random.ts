/** Random choices from a seed, and changes to bytes that parsers are known to stumble over. */
import { concat } from "../../mod/base/bytes.ts";
import { prng } from "../support/prng.ts";

/** Numbers at the edges of what lengths, counts and signs can be. */
const EDGES = [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xbf, 0xc0, 0xff];
const EDGES_32 = [0, 5, 6, 0x3fff, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff];

/** A seeded source of choices. */
export class Random {
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = prng(seed);
  }

  /** A whole number in [0, below). */
  below(below: number): number {
    return Math.floor(this.#next() * below);
  }

  /** True once in `times`. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)]!;
  }

  bytes(length: number): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length }, () => this.below(256));
  }

  /** Mostly short, seldom long. */
  length(max = 300): number {
    return this.oneIn(8) ? this.below(max) : this.below(Math.min(40, max));
  }

  list<Item>(max: number, make: () => Item): Item[] {
    return Array.from({ length: this.below(max + 1) }, make);
  }
}

/** Changes `input` in up to four places; `other` is what it may be crossed with. */
export function mutate(random: Random, input: Uint8Array, other: Uint8Array): Uint8Array<ArrayBuffer> {
  let bytes = new Uint8Array(input);
  for (let left = random.below(5); left > 0; left--) bytes = mutateOnce(random, bytes, other);
  return bytes;
}

function mutateOnce(random: Random, bytes: Uint8Array, other: Uint8Array): Uint8Array<ArrayBuffer> {
  const at = random.below(bytes.length + 1);
  const to = Math.min(bytes.length, at + random.length());
  const [head, middle, tail] = [bytes.subarray(0, at), bytes.subarray(at, to), bytes.subarray(to)];
  switch (random.below(9)) {
    case 0: {
      const changed = new Uint8Array(bytes);
      if (at < bytes.length) changed[at]! ^= 1 << random.below(8);
      return changed;
    }
    case 1: {
      const changed = new Uint8Array(bytes);
      if (at < bytes.length) changed[at] = random.pick(EDGES);
      return changed;
    }
    case 2: {
      const changed = new Uint8Array(bytes);
      if (at + 4 <= bytes.length) new DataView(changed.buffer).setUint32(at, random.pick(EDGES_32));
      return changed;
    }
    case 3:
      return concat(head, tail);
    case 4:
      return concat(head, middle, middle, tail);
    case 5:
      return concat(head, random.bytes(random.length()), middle, tail);
    case 6:
      return concat(head);
    case 7:
      return concat(head, other.subarray(random.below(other.length + 1)));
    default:
      return random.bytes(random.length(2000));
  }
}

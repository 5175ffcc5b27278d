/**
 * The encoding of everything the journal writes: self-describing values, each a tag byte and its content.
 * null 0 · false 1 · true 2 · whole number 3 (LEB128, at most 2^53 - 1) · text 4 · lower-case hex text 5 (as the
 * bytes it stands for: ids are most of what is stored) · bytes 6 · list 7. Lengths are LEB128. The reader trusts
 * nothing: every length is held against what is left, and whatever does not decode is a {@link ValueError}.
 */
import { type Bytes, fromHex, hex, utf8, utf8Text } from "../../base/bytes.ts";

/** What can be written. */
export type Value = null | boolean | number | string | Uint8Array | readonly Value[];

/** The bytes are not a value. */
export class ValueError extends Error {
  override name = "ValueError";
}

const LIST_DEPTH_MAX = 8;
const HEX_TEXT = /^(?:[0-9a-f]{2})+$/;
const TAG = { null: 0, false: 1, true: 2, number: 3, text: 4, hex: 5, bytes: 6, list: 7 } as const;

/** Writes values one after another into a buffer that grows. */
export class ValueWriter {
  #buffer: Bytes = new Uint8Array(512);
  #length = 0;

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** Appends one value; throws TypeError for a number that is not whole, safe and ≥ 0. */
  write(value: Value): void {
    if (value === null) this.#byte(TAG.null);
    else if (value === false) this.#byte(TAG.false);
    else if (value === true) this.#byte(TAG.true);
    else if (typeof value === "number") this.#tagged(TAG.number, value);
    else if (typeof value === "string") this.#text(value);
    else if (value instanceof Uint8Array) this.#block(TAG.bytes, value);
    else {
      this.#tagged(TAG.list, value.length);
      for (const item of value) this.write(item);
    }
  }

  /** What was written; the writer is empty afterwards. */
  take(): Bytes {
    const bytes = this.#buffer.slice(0, this.#length);
    this.#length = 0;
    return bytes;
  }

  #text(text: string): void {
    if (HEX_TEXT.test(text)) this.#block(TAG.hex, fromHex(text));
    else this.#block(TAG.text, utf8(text));
  }

  #block(tag: number, bytes: Uint8Array): void {
    this.#tagged(tag, bytes.length);
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  #tagged(tag: number, number: number): void {
    if (!Number.isSafeInteger(number) || number < 0) {
      throw new TypeError(`Cannot encode a number that is not whole and ≥ 0: ${number}`);
    }
    this.#byte(tag);
    let rest = number;
    while (rest >= 128) {
      this.#byte(rest % 128 + 128);
      rest = Math.floor(rest / 128);
    }
    this.#byte(rest);
  }

  #byte(byte: number): void {
    this.#reserve(1);
    this.#buffer[this.#length++] = byte;
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes;
    if (needed <= this.#buffer.length) return;
    const larger = new Uint8Array(Math.max(needed, this.#buffer.length * 2));
    larger.set(this.#buffer.subarray(0, this.#length));
    this.#buffer = larger;
  }
}

/** Reads values from bytes that may be anything. */
export class ValueReader {
  readonly #bytes: Uint8Array;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Has everything been read? */
  get done(): boolean {
    return this.#offset === this.#bytes.length;
  }

  /** The next value; byte strings are copies. */
  read(): Value {
    return this.#value(0);
  }

  #value(depth: number): Value {
    const tag = this.#byte();
    switch (tag) {
      case TAG.null:
        return null;
      case TAG.false:
        return false;
      case TAG.true:
        return true;
      case TAG.number:
        return this.#number();
      case TAG.text:
        return this.#text();
      case TAG.hex:
        return this.#hex();
      case TAG.bytes:
        return this.#block().slice();
      case TAG.list:
        return this.#list(depth);
      default:
        throw new ValueError(`Cannot decode a value as its tag is unknown: ${tag}`);
    }
  }

  #list(depth: number): Value[] {
    const count = this.#number();
    // Each item takes a byte at least, so a count beyond what is left is a lie that must not allocate.
    if (count > this.#bytes.length - this.#offset) throw new ValueError(`List of ${count} is cut short`);
    if (depth >= LIST_DEPTH_MAX) throw new ValueError(`Lists are nested deeper than ${LIST_DEPTH_MAX}`);
    const items: Value[] = [];
    for (let i = 0; i < count; i++) items.push(this.#value(depth + 1));
    return items;
  }

  #text(): string {
    const block = this.#block();
    try {
      return utf8Text(block);
    } catch (cause) {
      throw new ValueError("Text is not UTF-8", { cause });
    }
  }

  #hex(): string {
    const block = this.#block();
    if (block.length === 0) throw new ValueError("Hex text is empty");
    return hex(block);
  }

  #block(): Uint8Array {
    const length = this.#number();
    const end = this.#offset + length;
    if (end > this.#bytes.length) throw new ValueError(`Block of ${length} bytes is cut short`);
    const block = this.#bytes.subarray(this.#offset, end);
    this.#offset = end;
    return block;
  }

  #number(): number {
    let number = 0;
    let scale = 1;
    for (let i = 0; i < 8; i++) {
      const byte = this.#byte();
      number += (byte & 127) * scale;
      if (number > Number.MAX_SAFE_INTEGER) break;
      if (byte < 128) return number;
      scale *= 128;
    }
    throw new ValueError("Number is larger than 2^53 - 1");
  }

  #byte(): number {
    const byte = this.#bytes[this.#offset];
    if (byte === undefined) throw new ValueError("Value is cut short");
    this.#offset++;
    return byte;
  }
}

/**
 * NewMessage as bytes, for the way to the worker: all messages of a batch lie in one buffer that is handed over,
 * so payloads are copied once and their own buffers are left to the caller. Both ends are this program, so there
 * is no version; numbers are little-endian, byte strings carry their length.
 */
import { utf8, utf8Text } from "../../base/bytes.ts";
import type { NewMessage } from "../store.ts";
import type { Guard } from "./guards.ts";
import type { IncomingMessage } from "./queues.ts";

const START_BYTES = 64 * 1024;
/** Room for everything of a message or a part that has a fixed size. */
const FIXED_BYTES = 512;

/** Writes messages one after another. */
export class MessageWriter {
  #bytes: Uint8Array<ArrayBuffer>;
  #view: DataView<ArrayBuffer>;
  #end = 0;

  constructor(buffer = new ArrayBuffer(START_BYTES)) {
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#end;
  }

  /** The buffer, to be transferred; the writer is of no use after. */
  get buffer(): ArrayBuffer {
    return this.#bytes.buffer;
  }

  /** Appends a message; returns where it begins. Throws on an id that is not hexadecimal, and then appends nothing. */
  write(message: NewMessage): number {
    const start = this.#end;
    this.#reserve(sizeBound(message));
    try {
      this.#writeHead(message);
      this.#writeGuard(message.guard);
      this.#uint(message.parts.length);
      for (const { payload, recipients } of message.parts) {
        this.#uint(recipients.length);
        for (const recipient of recipients) this.#hex(recipient);
        this.#data(payload);
      }
      this.#writeRemote(message);
      return start;
    } catch (error) {
      this.#end = start;
      throw error;
    }
  }

  #writeHead(message: NewMessage): void {
    const { limits } = message;
    this.#hex(message.senderAccount);
    this.#hex(message.senderDevice);
    this.#hex(message.messageId);
    this.#data(message.requestSha256);
    this.#hex(message.entryId);
    this.#number(message.expiresAt);
    this.#number(message.now);
    this.#number(limits.queueDepthMax);
    this.#number(limits.queueBytesMax);
    this.#number(limits.senderShare);
    this.#number(limits.senderBytesPerDay);
    this.#number(limits.idempotencyMs);
    this.#number(limits.idempotencyCountMax);
    this.#number(limits.guardsPerDay);
    this.#number(limits.outboxDepthMax);
    this.#number(limits.outboxBytesMax);
    this.#uint(message.commitsTo.length);
    for (const groupId of message.commitsTo) this.#hex(groupId);
    this.#uint(message.behind.length);
    for (const messageId of message.behind) this.#hex(messageId);
  }

  #writeGuard(guard: NewMessage["guard"]): void {
    this.#uint(guard ? 1 : 0);
    if (!guard) return;
    this.#hex(guard.groupId);
    this.#number(guard.epoch);
    this.#data(guard.tokenSha256);
    this.#data(guard.nextTokenSha256);
  }

  #writeRemote({ origin, remote }: NewMessage): void {
    this.#text(origin ?? "");
    this.#uint(remote.length);
    for (const { domain, body, recipients } of remote) {
      this.#text(domain);
      this.#uint(recipients);
      this.#data(body);
    }
  }

  #text(text: string): void {
    if (text === "") this.#uint(0);
    else this.#data(utf8(text));
  }

  #reserve(length: number): void {
    const needed = this.#end + length;
    if (needed <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
    grown.set(this.#bytes.subarray(0, this.#end));
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }

  #uint(value: number): void {
    this.#view.setUint32(this.#end, value, true);
    this.#end += 4;
  }

  #number(value: number): void {
    this.#view.setFloat64(this.#end, value, true);
    this.#end += 8;
  }

  #data(bytes: Uint8Array): void {
    this.#uint(bytes.length);
    this.#bytes.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  #hex(text: string): void {
    const length = text.length / 2;
    this.#uint(length);
    this.#bytes.subarray(this.#end, this.#end + length).setFromHex(text);
    this.#end += length;
  }
}

function sizeBound(message: NewMessage): number {
  let size = FIXED_BYTES + message.requestSha256.length;
  for (const id of [...message.commitsTo, ...message.behind]) size += 4 + id.length;
  if (message.guard) {
    const { groupId, tokenSha256, nextTokenSha256 } = message.guard;
    size += groupId.length + tokenSha256.length + nextTokenSha256.length;
  }
  for (const { payload, recipients } of message.parts) {
    size += 8 + payload.length;
    for (const recipient of recipients) size += 4 + recipient.length;
  }
  // A character of a string takes three bytes at most.
  size += 3 * (message.origin?.length ?? 0);
  for (const { domain, body } of message.remote) size += 12 + 3 * domain.length + body.length;
  return size;
}

/** Reads the message at `start`; its byte strings are views of `buffer`. */
export function readMessage(buffer: ArrayBuffer, start: number): IncomingMessage {
  return new MessageReader(buffer, start).read();
}

class MessageReader {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView<ArrayBuffer>;
  #at: number;

  constructor(buffer: ArrayBuffer, start: number) {
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
    this.#at = start;
  }

  read(): IncomingMessage {
    return {
      senderAccount: this.#data().toHex(),
      senderDevice: this.#data().toHex(),
      messageId: this.#data(),
      requestSha256: this.#data(),
      entryId: this.#data(),
      expiresAt: this.#number(),
      now: this.#number(),
      limits: {
        queueDepthMax: this.#number(),
        queueBytesMax: this.#number(),
        senderShare: this.#number(),
        senderBytesPerDay: this.#number(),
        idempotencyMs: this.#number(),
        idempotencyCountMax: this.#number(),
        guardsPerDay: this.#number(),
        outboxDepthMax: this.#number(),
        outboxBytesMax: this.#number(),
      },
      commitsTo: this.#list(() => this.#data()),
      behind: this.#list(() => this.#data()),
      guard: this.#uint() === 1 ? this.#guard() : null,
      parts: this.#list(() => ({
        recipients: this.#list(() => this.#data().toHex()),
        payload: this.#data(),
      })),
      origin: this.#text() || null,
      remote: this.#list(() => ({
        domain: this.#text(),
        recipients: this.#uint(),
        body: this.#data(),
      })),
    };
  }

  #guard(): Guard {
    return {
      groupId: this.#data(),
      epoch: this.#number(),
      tokenSha256: this.#data(),
      nextTokenSha256: this.#data(),
    };
  }

  #text(): string {
    const bytes = this.#data();
    return bytes.length === 0 ? "" : utf8Text(bytes);
  }

  #list<Item>(read: () => Item): Item[] {
    return Array.from({ length: this.#uint() }, read);
  }

  #uint(): number {
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4, true);
  }

  #number(): number {
    this.#at += 8;
    return this.#view.getFloat64(this.#at - 8, true);
  }

  #data(): Uint8Array<ArrayBuffer> {
    const length = this.#uint();
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
}

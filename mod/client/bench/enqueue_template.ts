/**
 * An Enqueue frame that is encoded once; each message is a copy of it with a few bytes changed in place. The message
 * id is also the first 16 bytes of the payload, so that whoever fetches a message knows which one it is.
 *
 *   message id: run (10 bytes: Unix ms in 6, then 4 random ones) ‖ number of the message (6), so in order of time
 */
import { Buffer } from "node:buffer";
import { create, toBinary } from "@bufbuild/protobuf";
import { assert } from "../../base/assert.ts";
import { type Bytes, hex, randomBytes } from "../../base/bytes.ts";
import { ID_BYTES } from "../../base/ids.ts";
import { encodeFrame, FRAME_HEADER_BYTES } from "../../protocol/frame.ts";
import { METHODS } from "../../protocol/methods.ts";
import { EnqueueRequestSchema, RecipientStatus } from "../../protocol/qpq_pb.ts";

/** Bytes of a message id that all messages of one run share. */
export const RUN_BYTES = 10;

/** The first bytes of the message ids of a run that begins at `now` (Unix ms). */
export function newRun(now: number): Bytes {
  const run = randomBytes(RUN_BYTES);
  Buffer.from(run.buffer).writeUIntBE(now, 0, 6);
  return run;
}

/** The number of a message of this run, by what its payload begins with; undefined when it is of another run. */
export function messageNumber(payload: Uint8Array, run: Uint8Array): number | undefined {
  if (payload.length < ID_BYTES) return undefined;
  for (let at = 0; at < RUN_BYTES; at++) if (payload[at] !== run[at]) return undefined;
  let number = 0;
  for (let at = RUN_BYTES; at < ID_BYTES; at++) number = number * 256 + payload[at]!;
  return number;
}

/** Message ids of a run as text. */
export function messageIdText(run: Uint8Array, number: number): string {
  return hex(run) + number.toString(16).padStart(2 * (ID_BYTES - RUN_BYTES), "0");
}

/** Enqueue frames of one size. */
export class EnqueueTemplate {
  readonly #frame: Bytes;
  readonly #payloadAt: number;
  readonly #recipientAt: number;
  static readonly #idAt = FRAME_HEADER_BYTES + 2;

  constructor(options: { run: Uint8Array; payloadBytes: number; recipients: readonly Uint8Array[] }) {
    const { run, payloadBytes, recipients } = options;
    if (payloadBytes < ID_BYTES) {
      throw new RangeError(`A payload has at least ${ID_BYTES} bytes: ${payloadBytes}`);
    }
    const messageId = randomBytes(ID_BYTES);
    messageId.set(run);
    const payload = randomBytes(payloadBytes);
    payload.set(messageId);
    const request = create(EnqueueRequestSchema, {
      messageId,
      parts: [{ payload, recipients: [...recipients] }],
    });
    this.#frame = encodeFrame(0, METHODS.enqueue.number, toBinary(EnqueueRequestSchema, request));
    const frame = Buffer.from(this.#frame.buffer);
    assert(frame.indexOf(messageId) === EnqueueTemplate.#idAt, "a message id is an Enqueue's first field");
    this.#payloadAt = frame.indexOf(messageId, EnqueueTemplate.#idAt + 1);
    this.#recipientAt = frame.indexOf(recipients[0]!, this.#payloadAt + payloadBytes);
  }

  /** Bytes of a frame. */
  get frameBytes(): number {
    return this.#frame.length;
  }

  /** Writes the frame of message `number` at `at`. */
  write(into: Uint8Array, at: number, message: { requestId: number; number: number }): void {
    into.set(this.#frame, at);
    writeUint32(into, at + 4, message.requestId);
    writeNumber(into, at + EnqueueTemplate.#idAt + RUN_BYTES, message.number);
    writeNumber(into, at + this.#payloadAt + RUN_BYTES, message.number);
  }

  /** Changes the first recipient of a frame that was written at `at`. */
  writeRecipient(into: Uint8Array, at: number, recipient: Uint8Array): void {
    into.set(recipient, at + this.#recipientAt);
  }
}

const REFUSALS: Readonly<Record<number, string>> = {
  [RecipientStatus.UNKNOWN_DEVICE]: "unknownDevice",
  [RecipientStatus.QUEUE_FULL]: "queueFull",
  [RecipientStatus.BLOCKED]: "blocked",
};

/** What an EnqueueResponse says of the first recipient that was refused; null when all are served. */
export function refusalOf(body: Uint8Array): string | null {
  // Field 1, packed: a tag, a length of one or two bytes, then a byte for each recipient.
  if (body[0] !== 0x0a) return "malformedResponse";
  const long = body[1]! > 0x7f;
  const count = long ? (body[1]! & 0x7f) | body[2]! << 7 : body[1]!;
  const begin = long ? 3 : 2;
  for (let at = begin; at < begin + count; at++) {
    if (body[at] !== RecipientStatus.OK) return REFUSALS[body[at]!] ?? "malformedResponse";
  }
  return null;
}

function writeUint32(into: Uint8Array, at: number, value: number): void {
  into[at] = value >>> 24;
  into[at + 1] = value >>> 16;
  into[at + 2] = value >>> 8;
  into[at + 3] = value;
}

/** 48 bits, big endian. */
function writeNumber(into: Uint8Array, at: number, value: number): void {
  const high = Math.floor(value / 2 ** 32);
  into[at] = high >>> 8;
  into[at + 1] = high;
  writeUint32(into, at + 2, value >>> 0);
}

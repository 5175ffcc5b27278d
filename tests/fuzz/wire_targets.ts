/** What clients send: frames, messages, MLS headers, OPAQUE. */
import assert from "node:assert/strict";
import { equals, fromBinary, toBinary } from "@bufbuild/protobuf";
import * as opaque from "@serenity-kit/opaque";
import { decodeMlsMessage } from "ts-mls";
import { concat, fromBase64url } from "../../mod/base/bytes.ts";
import { OPAQUE_BYTES } from "../../mod/base/opaque_suite.ts";
import type { OpaqueJob } from "../../mod/auth/opaque_job.ts";
import { answer } from "../../mod/auth/opaque_ristretto255.ts";
import { type Decoded, encodeFrame, FRAME_BODY_BYTES_MAX, FrameDecoder } from "../../mod/protocol/frame.ts";
import { methodOf } from "../../mod/protocol/methods.ts";
import { parseMlsMessage } from "../../mod/protocol/mls_header.ts";
import { MESSAGES, METHOD_ROWS, randomMessage } from "./messages.ts";
import type { Random } from "./random.ts";
import { refusing, type Target } from "./target.ts";

const bodyBytesMax = (code: number) => Math.min(methodOf(code)?.bytesMax ?? 100, FRAME_BODY_BYTES_MAX);

/** Frames of random messages, one after another. */
export function randomFrames(random: Random, methods = METHOD_ROWS): Uint8Array {
  const frames = random.list(4, () => {
    const method = random.pick(methods);
    const code = random.oneIn(10) ? random.below(65_536) : method.number;
    return encodeFrame(random.below(4), code, randomMessage(random, method.request));
  });
  return concat(...frames);
}

function decodeAll(chunks: readonly Uint8Array[]): { frames: Decoded[]; held: number; refused: boolean } {
  const decoder = new FrameDecoder(bodyBytesMax);
  const frames: Decoded[] = [];
  let refused = false;
  refusing(["FrameError"], () => {
    refused = true;
    for (const chunk of chunks) {
      for (const decoded of decoder.push(new Uint8Array(chunk))) {
        const { frame } = decoded;
        frames.push(
          "body" in frame ? { kind: "frame", frame: { ...frame, body: frame.body.slice() } } : decoded,
        );
      }
    }
    refused = false;
  });
  return { frames, held: decoder.bufferedBytes, refused };
}

/** The same frames however the bytes are cut up, and never more held than came. */
const frames: Target = {
  name: "frames",
  generate: (random) => randomFrames(random),
  run(input) {
    const whole = decodeAll([input]);
    const step = 1 + (input[0] ?? 0) % 9;
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < input.length; at += step) chunks.push(input.subarray(at, at + step));
    const cut = decodeAll(chunks);
    assert.deepEqual(cut.frames, whole.frames);
    assert.equal(cut.refused, whole.refused);
    assert.ok(whole.held <= input.length);
  },
};

/** The first byte says which message. */
const messages: Target = {
  name: "messages",
  generate(random) {
    const index = random.below(MESSAGES.length);
    return concat(Uint8Array.of(index), randomMessage(random, MESSAGES[index]!));
  },
  run(input) {
    const schema = MESSAGES[(input[0] ?? 0) % MESSAGES.length]!;
    let message;
    try {
      message = fromBinary(schema, input.subarray(1), { readUnknownFields: false });
    } catch (error) {
      assert.ok(error instanceof Error); // the dispatcher answers any as malformedRequest
      return;
    }
    const again = fromBinary(schema, toBinary(schema, message));
    assert.ok(equals(schema, message, again), `${schema.name} is another after a round trip`);
  },
};

const uint = (value: number, length: number) =>
  Uint8Array.from({ length }, (_, i) => Math.floor(value / 256 ** (length - 1 - i)) % 256);

/** A vector (RFC 9420 §2.1.2), sometimes with a length that is not minimal, or not true. */
function vector(random: Random, content: Uint8Array): Uint8Array {
  const length = random.oneIn(12) ? random.below(70_000) : content.length;
  const size = length < 64 && !random.oneIn(6) ? 0 : length < 16_384 && !random.oneIn(6) ? 1 : 2;
  const head = uint(length, 1 << size);
  head[0]! |= size << 6;
  return concat(head, content);
}

function randomMlsMessage(random: Random): Uint8Array {
  const some = () => vector(random, random.bytes(random.length(100)));
  const format = random.below(7);
  const start = concat(uint(random.oneIn(10) ? 2 : 1, 2), uint(format, 2));
  const epoch = concat(random.oneIn(6) ? random.bytes(4) : uint(0, 4), uint(random.below(100), 4));
  if (format === 1) {
    const sender = 1 + random.below(5);
    const index = sender < 3 ? uint(random.below(9), 4) : new Uint8Array(0);
    return concat(
      start,
      some(),
      epoch,
      uint(sender, 1),
      index,
      some(),
      uint(random.below(5), 1),
      some(),
      some(),
    );
  }
  if (format === 3) {
    const secrets = random.list(3, () => concat(some(), some(), some()));
    return concat(start, uint(1, 2), vector(random, concat(...secrets)), some());
  }
  return concat(start, some(), epoch, uint(random.below(5), 1), some(), some(), some());
}

/** Never throws, points into the message only, and sees every commit that a client would read. */
const mlsHeader: Target = {
  name: "mls_header",
  generate: randomMlsMessage,
  run(input) {
    const header = parseMlsMessage(input);
    if (header && "groupId" in header) {
      assert.equal(header.groupId.buffer, input.buffer);
      assert.ok(Number.isSafeInteger(header.epoch) || header.epoch === 2 ** 53, `${header.epoch}`);
    }
    let read;
    try {
      read = decodeMlsMessage(input, 0)?.[0];
    } catch {
      return; // no client reads it
    }
    if (read?.wireformat === "mls_private_message") {
      const { groupId, epoch, contentType } = read.privateMessage;
      if (epoch > BigInt(Number.MAX_SAFE_INTEGER)) return;
      assert.ok(header?.kind === "privateMessage", "a client reads a PrivateMessage that is none here");
      assert.deepEqual([header.groupId.toHex(), BigInt(header.epoch)], [groupId.toHex(), epoch]);
      assert.equal(header.contentType, contentType);
    }
    if (read?.wireformat === "mls_public_message") {
      const { groupId, epoch, contentType } = read.publicMessage.content;
      if (epoch > BigInt(Number.MAX_SAFE_INTEGER)) return;
      assert.ok(header?.kind === "publicMessage", "a client reads a PublicMessage that is none here");
      assert.deepEqual([header.groupId.toHex(), BigInt(header.epoch)], [groupId.toHex(), epoch]);
      assert.equal(header.contentType, contentType);
    }
  },
};

await opaque.ready;
const setup = fromBase64url(opaque.server.createSetup());
const client = () => opaque.client.startLogin({ password: "password" });

/** `bytes` in the size that the pool lets through to a worker. */
function sized(bytes: Uint8Array, length: number): Uint8Array {
  const fitted = new Uint8Array(length);
  fitted.set(bytes.subarray(0, length));
  return fitted;
}

/** What a worker makes of four kinds of bytes: it answers, or says that they are the peer's fault. */
const opaqueInputs: Target = {
  name: "opaque",
  generate(random) {
    const { startLoginRequest } = client();
    const { registrationRequest } = opaque.client.startRegistration({ password: "password" });
    const right = [startLoginRequest, registrationRequest].map(fromBase64url);
    return concat(random.bytes(1), random.oneIn(4) ? random.bytes(192) : random.pick(right));
  },
  run(input) {
    const bytes = input.subarray(1);
    const common = { setup, userName: "alice", realmId: "realm" };
    const jobs: OpaqueJob[] = [
      { kind: "loginStart", ...common, record: null, ke1: sized(bytes, OPAQUE_BYTES.ke1) },
      { kind: "registrationResponse", ...common, request: sized(bytes, OPAQUE_BYTES.registrationRequest) },
      { kind: "checkRecord", setup, record: sized(bytes, OPAQUE_BYTES.registrationRecord) },
    ];
    const job = jobs[(input[0] ?? 0) % 4];
    const answered = job ? answer(job) : finish(sized(bytes, OPAQUE_BYTES.ke3));
    assert.notEqual(answered.status, "failed", JSON.stringify(answered));
    if (!job) assert.equal(answered.status, "rejected", "KE3 verifies without the password");
  },
};

function finish(ke3: Uint8Array) {
  const ke1 = fromBase64url(client().startLoginRequest);
  const started = answer({
    kind: "loginStart",
    setup,
    userName: "alice",
    record: null,
    ke1,
    realmId: "realm",
  });
  assert.ok(started.status === "ok");
  return answer({ kind: "loginFinish", state: started.output[0]!, ke3, realmId: "realm" });
}

/** All of them. */
export const WIRE_TARGETS: readonly Target[] = [frames, messages, mlsHeader, opaqueInputs];

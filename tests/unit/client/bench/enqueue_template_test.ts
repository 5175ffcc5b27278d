import assert from "node:assert/strict";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { hex, randomBytes } from "../../../../mod/base/bytes.ts";
import {
  EnqueueTemplate,
  messageIdText,
  messageNumber,
  newRun,
  refusalOf,
} from "../../../../mod/client/bench/enqueue_template.ts";
import { type Frame, FrameDecoder } from "../../../../mod/protocol/frame.ts";
import { METHODS } from "../../../../mod/protocol/methods.ts";
import {
  EnqueueRequestSchema,
  EnqueueResponseSchema,
  RecipientStatus,
} from "../../../../mod/protocol/qpq_pb.ts";

const RUN = newRun(1_800_000_000_000);
const NUMBER = 0x1234_5678_9abc;

function decode(bytes: Uint8Array): Frame[] {
  return [...new FrameDecoder(() => 1 << 20).push(bytes)].map((decoded) => {
    assert.equal(decoded.kind, "frame");
    return decoded.frame as Frame;
  });
}

Deno.test("a patched frame is what encoding the message would give", () => {
  const recipients = [randomBytes(16), randomBytes(16), randomBytes(16)];
  const template = new EnqueueTemplate({ run: RUN, payloadBytes: 512, recipients });
  const bytes = new Uint8Array(2 * template.frameBytes);
  template.write(bytes, 0, { requestId: 77, number: NUMBER });
  template.write(bytes, template.frameBytes, { requestId: 78, number: 0 });
  const other = randomBytes(16);
  template.writeRecipient(bytes, template.frameBytes, other);
  const [first, second] = decode(bytes);
  assert.deepEqual([first!.requestId, first!.code, second!.requestId], [77, METHODS.enqueue.number, 78]);

  const request = fromBinary(EnqueueRequestSchema, first!.body);
  assert.deepEqual(Buffer.from(toBinary(EnqueueRequestSchema, request)), Buffer.from(first!.body));
  assert.equal(hex(request.messageId), messageIdText(RUN, NUMBER));
  const [part] = request.parts;
  assert.equal(part!.payload.length, 512);
  assert.equal(hex(part!.payload.subarray(0, 16)), hex(request.messageId));
  assert.deepEqual(part!.recipients.map(hex), recipients.map(hex));

  const moved = fromBinary(EnqueueRequestSchema, second!.body);
  assert.deepEqual(moved.parts[0]!.recipients.map(hex), [other, ...recipients.slice(1)].map(hex));
});

Deno.test("a payload tells its message's number, of its own run only", () => {
  const template = new EnqueueTemplate({ run: RUN, payloadBytes: 16, recipients: [randomBytes(16)] });
  const bytes = new Uint8Array(template.frameBytes);
  template.write(bytes, 0, { requestId: 1, number: NUMBER });
  const { payload } = fromBinary(EnqueueRequestSchema, decode(bytes)[0]!.body).parts[0]!;
  assert.equal(messageNumber(payload, RUN), NUMBER);
  assert.equal(messageNumber(payload, newRun(1_800_000_000_000)), undefined);
  assert.equal(messageNumber(payload.subarray(1), RUN), undefined);
});

Deno.test("ids are in order of time and number", () => {
  const later = newRun(1_800_000_000_001);
  assert.ok(messageIdText(RUN, 9) < messageIdText(RUN, 10));
  assert.ok(messageIdText(RUN, 2 ** 48 - 1) < messageIdText(later, 0));
});

Deno.test("a payload has room for an id", () => {
  assert.throws(
    () => new EnqueueTemplate({ run: RUN, payloadBytes: 15, recipients: [randomBytes(16)] }),
    RangeError,
  );
});

Deno.test("refusalOf() finds the first recipient that was refused, among few and among many", () => {
  const { OK, QUEUE_FULL, BLOCKED } = RecipientStatus;
  const body = (statuses: RecipientStatus[]) =>
    toBinary(EnqueueResponseSchema, create(EnqueueResponseSchema, { statuses, acceptedAtMs: 1n, ttlS: 9 }));
  const many = new Array<RecipientStatus>(1000).fill(OK);
  assert.equal(refusalOf(body([OK])), null);
  assert.equal(refusalOf(body(many)), null);
  assert.equal(refusalOf(body([OK, BLOCKED, QUEUE_FULL])), "blocked");
  assert.equal(refusalOf(body([...many, QUEUE_FULL])), "queueFull");
  assert.equal(refusalOf(new Uint8Array(0)), "malformedResponse");
});

import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import { hex, randomBytes } from "../../../../mod/base/bytes.ts";
import { EntryScanner } from "../../../../mod/client/bench/entry_scanner.ts";
import { EntryKind, PushBatchSchema } from "../../../../mod/protocol/qpq_pb.ts";

const entry = (seq: bigint, kind: EntryKind, payload: Uint8Array) => ({
  seq,
  kind,
  payload,
  entryId: randomBytes(16),
  senderAccountId: randomBytes(16),
  senderDeviceId: randomBytes(16),
  acceptedAtMs: 1_800_000_000_000n,
  expiresAtMs: 1_900_000_000_000n,
});

function scan(body: Uint8Array): { last: number; payloads: string[] } {
  const payloads: string[] = [];
  const last = new EntryScanner((seq, payload) => payloads.push(`${seq} ${hex(payload)}`)).scan(body);
  return { last, payloads };
}

Deno.test("messages of a push are found with number and payload; a notice only moves the number", () => {
  const [one, two] = [randomBytes(16), randomBytes(200)];
  const batch = create(PushBatchSchema, {
    entries: [
      entry(1n, EntryKind.MESSAGE, one),
      entry(2n ** 53n - 2n, EntryKind.MESSAGE, two),
      entry(2n ** 53n - 1n, EntryKind.NOTICE, randomBytes(5)),
    ],
    cursor: { incarnation: randomBytes(16), ackedThrough: 7n, nextSeq: 2n ** 40n },
  });
  const { last, payloads } = scan(toBinary(PushBatchSchema, batch));
  assert.equal(last, 2 ** 53 - 1);
  assert.deepEqual(payloads, [`1 ${hex(one)}`, `${2 ** 53 - 2} ${hex(two)}`]);
});

Deno.test("the first reply of a subscription has no entries", () => {
  const batch = create(PushBatchSchema, { cursor: { incarnation: randomBytes(16), nextSeq: 1n } });
  assert.deepEqual(scan(toBinary(PushBatchSchema, batch)), { last: 0, payloads: [] });
});

Deno.test("a body that is cut inside of a number is refused", () => {
  assert.throws(() => scan(Uint8Array.of(0x0a, 0x02, 0x08, 0x80)), RangeError);
});

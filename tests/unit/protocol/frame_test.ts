/** frame.ts: fixed vectors, round trips, every way of cutting a stream into chunks, and lengths nobody may send. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { concat, fromHex, hex, utf8 } from "../../../mod/base/bytes.ts";
import {
  type Decoded,
  encodeFrame,
  type Frame,
  FRAME_BODY_BYTES_MAX,
  FRAME_HEADER_BYTES,
  FrameDecoder,
  FrameError,
} from "../../../mod/protocol/frame.ts";

/** By the layout in the head of frame.ts: length, request id, code, body. */
const VECTORS = [
  { requestId: 1, code: 0, body: "", bytes: "00000006 00000001 0000" },
  { requestId: 2, code: 2, body: "abc", bytes: "00000009 00000002 0002 616263" },
  { requestId: 0xfffffffe, code: 0x1234, body: "\u0000", bytes: "00000007 fffffffe 1234 00" },
  { requestId: 0, code: 0xffff, body: "", bytes: "00000006 00000000 ffff" },
].map((vector) => ({ ...vector, body: utf8(vector.body), bytes: fromHex(vector.bytes.replaceAll(" ", "")) }));

const anyBody = () => FRAME_BODY_BYTES_MAX;

/** A decoded frame in a form that compares and prints well. */
type Plain = { requestId: number; code: number; body: string } | {
  requestId: number;
  code: number;
  skipped: number;
};

function plain(decoded: Decoded): Plain {
  const { requestId, code } = decoded.frame;
  if (decoded.kind === "oversized") return { requestId, code, skipped: decoded.frame.bodyBytes };
  return { requestId, code, body: hex(decoded.frame.body) };
}

function decodeAll(decoder: FrameDecoder, ...chunks: readonly Uint8Array[]): Plain[] {
  return chunks.flatMap((chunk) => [...decoder.push(chunk)].map(plain));
}

function frame(requestId: number, code: number, body: Uint8Array): Plain {
  return { requestId, code, body: hex(body) };
}

/** A header alone. */
function header(length: number, requestId: number, code: number): Uint8Array {
  const bytes = encodeFrame(requestId, code, new Uint8Array(0));
  new DataView(bytes.buffer).setUint32(0, length);
  return bytes;
}

function byteByByte(bytes: Uint8Array): Uint8Array[] {
  return [...bytes].map((byte) => Uint8Array.of(byte));
}

Deno.test("encodeFrame() writes the fixed vectors", () => {
  for (const { requestId, code, body, bytes } of VECTORS) {
    assert.equal(hex(encodeFrame(requestId, code, body)), hex(bytes));
  }
});

Deno.test("FrameDecoder reads the fixed vectors, alone and all in one chunk", () => {
  const expected = VECTORS.map(({ requestId, code, body }) => frame(requestId, code, body));
  VECTORS.forEach(({ bytes }, index) => {
    assert.deepEqual(decodeAll(new FrameDecoder(anyBody), bytes), [expected[index]]);
  });
  const together = concat(...VECTORS.map(({ bytes }) => bytes));
  assert.deepEqual(decodeAll(new FrameDecoder(anyBody), together), expected);
});

Deno.test("FrameDecoder gives back what encodeFrame() was given", () => {
  const anyFrame = fc.tuple(
    fc.integer({ min: 0, max: 0xffffffff }),
    fc.integer({ min: 0, max: 0xffff }),
    fc.uint8Array({ maxLength: 2000 }),
  );
  fc.assert(fc.property(anyFrame, ([requestId, code, body]) => {
    const decoded = decodeAll(new FrameDecoder(anyBody), encodeFrame(requestId, code, body));
    assert.deepEqual(decoded, [frame(requestId, code, body)]);
  }));
});

Deno.test("FrameDecoder waits for the rest of a frame that is cut at any byte", () => {
  const bytes = encodeFrame(7, 40, utf8("forty-two bytes"));
  for (let cut = 0; cut < bytes.length; cut++) {
    const decoder = new FrameDecoder(anyBody);
    assert.deepEqual(decodeAll(decoder, bytes.slice(0, cut)), [], `cut at ${cut}`);
    assert.equal(decoder.bufferedBytes, cut);
    const rest = decodeAll(decoder, bytes.slice(cut));
    assert.deepEqual(rest, [frame(7, 40, utf8("forty-two bytes"))], `cut at ${cut}`);
    assert.equal(decoder.bufferedBytes, 0);
  }
});

Deno.test("FrameDecoder keeps the one byte behind a frame for the next", () => {
  const [first, second] = [encodeFrame(1, 2, utf8("one")), encodeFrame(2, 2, utf8("two"))];
  const decoder = new FrameDecoder(anyBody);
  assert.deepEqual(decodeAll(decoder, concat(first, second.slice(0, 1))), [frame(1, 2, utf8("one"))]);
  assert.equal(decoder.bufferedBytes, 1);
  assert.deepEqual(decodeAll(decoder, second.slice(1)), [frame(2, 2, utf8("two"))]);
});

Deno.test("FrameDecoder reads frames fed byte by byte", () => {
  const bytes = concat(...VECTORS.map((vector) => vector.bytes));
  const expected = VECTORS.map(({ requestId, code, body }) => frame(requestId, code, body));
  assert.deepEqual(decodeAll(new FrameDecoder(anyBody), ...byteByByte(bytes)), expected);
});

Deno.test("FrameDecoder takes empty chunks for nothing", () => {
  const empty = new Uint8Array(0);
  const bytes = encodeFrame(1, 2, utf8("x"));
  const decoder = new FrameDecoder(anyBody);
  const decoded = decodeAll(decoder, empty, bytes.slice(0, 4), empty, bytes.slice(4), empty);
  assert.deepEqual(decoded, [frame(1, 2, utf8("x"))]);
});

Deno.test("FrameDecoder reads the largest body and refuses one byte more", () => {
  const body = new Uint8Array(FRAME_BODY_BYTES_MAX).fill(7);
  const [decoded] = new FrameDecoder(anyBody).push(encodeFrame(1, 40, body));
  assert.ok(decoded?.kind === "frame" && decoded.frame.body.length === FRAME_BODY_BYTES_MAX);
  const oneMore = header(FRAME_HEADER_BYTES - 4 + FRAME_BODY_BYTES_MAX + 1, 1, 40);
  assert.throws(() => [...new FrameDecoder(anyBody).push(oneMore)], FrameError);
});

Deno.test("FrameDecoder throws FrameError for lengths that no frame has", () => {
  for (const length of [0, 1, 5, 0x80000000, 0xffffffff]) {
    const decoder = new FrameDecoder(anyBody);
    assert.throws(() => [...decoder.push(header(length, 1, 2))], FrameError, `length ${length}`);
  }
});

Deno.test("FrameDecoder hands out the frames before an impossible length", () => {
  const decoded: Plain[] = [];
  assert.throws(() => {
    for (
      const one of new FrameDecoder(anyBody).push(concat(encodeFrame(1, 2, utf8("ok")), header(5, 2, 2)))
    ) {
      decoded.push(plain(one));
    }
  }, FrameError);
  assert.deepEqual(decoded, [frame(1, 2, utf8("ok"))]);
});

Deno.test("FrameDecoder skips a body that its method does not allow, and goes on", () => {
  const bytes = concat(
    encodeFrame(1, 40, new Uint8Array(100)),
    encodeFrame(2, 2, new Uint8Array(11)),
    encodeFrame(3, 2, utf8("ten bytes!")),
  );
  const expected = [
    frame(1, 40, new Uint8Array(100)),
    { requestId: 2, code: 2, skipped: 11 },
    frame(3, 2, utf8("ten bytes!")),
  ];
  const limits = (code: number) => code === 40 ? 100 : 10;
  assert.deepEqual(decodeAll(new FrameDecoder(limits), bytes), expected);
  assert.deepEqual(decodeAll(new FrameDecoder(limits), ...byteByByte(bytes)), expected);
});

Deno.test("FrameDecoder reports an oversized body at its header and holds none of it", () => {
  const decoder = new FrameDecoder(() => 10);
  const bytes = encodeFrame(9, 2, new Uint8Array(1_000_000));
  const [reported] = decodeAll(decoder, bytes.slice(0, FRAME_HEADER_BYTES));
  assert.deepEqual(reported, { requestId: 9, code: 2, skipped: 1_000_000 });
  assert.deepEqual(decodeAll(decoder, bytes.slice(FRAME_HEADER_BYTES, -1)), []);
  assert.equal(decoder.bufferedBytes, 0);
  assert.deepEqual(decodeAll(decoder, bytes.slice(-1), encodeFrame(10, 2, utf8("next"))), [
    frame(10, 2, utf8("next")),
  ]);
});

Deno.test("FrameDecoder asks for the limit when the frame comes, not before", () => {
  let max = 10;
  const decoder = new FrameDecoder(() => max);
  const decoded: Plain[] = [];
  for (
    const one of decoder.push(concat(encodeFrame(1, 2, utf8("login")), encodeFrame(2, 2, new Uint8Array(50))))
  ) {
    decoded.push(plain(one));
    max = 50;
  }
  assert.deepEqual(decoded[1], frame(2, 2, new Uint8Array(50)));
});

Deno.test("takeRest() gives the bytes behind the frame at which the iteration stopped", () => {
  const decoder = new FrameDecoder(anyBody);
  // Looks like another frame, but is the first bytes of a blob.
  const blob = encodeFrame(5, 2, utf8("not a frame"));
  for (const decoded of decoder.push(concat(encodeFrame(1, 50, utf8("put")), blob))) {
    assert.deepEqual(plain(decoded), frame(1, 50, utf8("put")));
    break;
  }
  assert.equal(hex(decoder.takeRest()), hex(blob));
  assert.equal(decoder.bufferedBytes, 0);
  assert.equal(decoder.takeRest().length, 0);
});

Deno.test("FrameDecoder goes on with what an ended iteration left", () => {
  const decoder = new FrameDecoder(anyBody);
  const bytes = [1, 2, 3].map((id) => encodeFrame(id, 2, Uint8Array.of(id)));
  for (const _ of decoder.push(concat(bytes[0]!, bytes[1]!, bytes[2]!.slice(0, 3)))) break;
  assert.deepEqual(decodeAll(decoder, bytes[2]!.slice(3)), [
    frame(2, 2, Uint8Array.of(2)),
    frame(3, 2, Uint8Array.of(3)),
  ]);
});

Deno.test("FrameDecoder holds a copy of an incomplete frame, not the chunks it came in", () => {
  const body = new Uint8Array(300).map((_, index) => index);
  const bytes = encodeFrame(1, 40, body);
  const decoder = new FrameDecoder(anyBody);
  for (const byte of bytes.slice(0, -1)) {
    const chunk = new Uint8Array(2048).subarray(0, 1);
    chunk[0] = byte;
    assert.deepEqual(decodeAll(decoder, chunk), []);
    chunk.fill(0xff);
  }
  assert.deepEqual(decodeAll(decoder, bytes.slice(-1)), [frame(1, 40, body)]);
});

Deno.test("FrameDecoder leaves the bodies it handed out as they were", () => {
  const decoder = new FrameDecoder(anyBody);
  const bytes = concat(...[1, 2, 3, 4].map((id) => encodeFrame(id, 2, new Uint8Array(40).fill(id))));
  const frames: Frame[] = [];
  for (let offset = 0; offset < bytes.length; offset += 33) {
    for (const decoded of decoder.push(bytes.slice(offset, offset + 33))) {
      if (decoded.kind === "frame") frames.push(decoded.frame);
    }
  }
  assert.deepEqual(frames.map(({ body }) => hex(body)), ["01", "02", "03", "04"].map((id) => id.repeat(40)));
});

Deno.test("FrameDecoder reads the same frames however the bytes are cut", () => {
  const limits = (code: number) => code === 1 ? 20 : 5000;
  const anyFrame = fc.record({
    requestId: fc.integer({ min: 0, max: 0xffffffff }),
    code: fc.constantFrom(1, 40),
    body: fc.uint8Array({ maxLength: 60 }),
  });
  const cuts = fc.array(fc.integer({ min: 0, max: 90 }), { minLength: 1, maxLength: 80 });
  fc.assert(fc.property(fc.array(anyFrame, { maxLength: 8 }), cuts, (frames, lengths) => {
    const bytes = concat(...frames.map(({ requestId, code, body }) => encodeFrame(requestId, code, body)));
    const chunks: Uint8Array[] = [];
    let offset = 0;
    for (const length of lengths) {
      chunks.push(bytes.slice(offset, offset + length));
      offset += length;
    }
    chunks.push(bytes.slice(offset));
    const expected = frames.map(({ requestId, code, body }) =>
      body.length > limits(code) ? { requestId, code, skipped: body.length } : frame(requestId, code, body)
    );
    assert.deepEqual(decodeAll(new FrameDecoder(limits), ...chunks), expected);
  }));
});

Deno.test("FrameDecoder ends random bytes with frames, a wait or FrameError, nothing else", () => {
  fc.assert(fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 10 }), (chunks) => {
    const decoder = new FrameDecoder(() => 1000);
    const given = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    try {
      decodeAll(decoder, ...chunks);
    } catch (error) {
      assert.ok(error instanceof FrameError);
    }
    assert.ok(decoder.bufferedBytes <= given);
  }));
});

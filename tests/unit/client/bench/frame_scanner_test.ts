import assert from "node:assert/strict";
import { concat, hex, randomBytes } from "../../../../mod/base/bytes.ts";
import { FrameScanner } from "../../../../mod/client/bench/frame_scanner.ts";
import { encodeFrame } from "../../../../mod/protocol/frame.ts";

const FRAMES = [
  { id: 1, code: 0, body: new Uint8Array(0) },
  { id: 0xffff_ffff, code: 999, body: randomBytes(3) },
  { id: 70_000, code: 40, body: randomBytes(300) },
];
const BYTES = concat(...FRAMES.map(({ id, code, body }) => encodeFrame(id, code, body)));

/** The frames that come of these chunks. */
function scan(chunks: readonly Uint8Array[]) {
  const found: { id: number; code: number; body: string }[] = [];
  const scanner = new FrameScanner((id, code, body) => found.push({ id, code, body: hex(body) }));
  for (const chunk of chunks) scanner.push(chunk);
  return found;
}

const EXPECTED = FRAMES.map(({ id, code, body }) => ({ id, code, body: hex(body) }));

Deno.test("frames are found in one piece, byte by byte, and cut anywhere", () => {
  assert.deepEqual(scan([BYTES]), EXPECTED);
  assert.deepEqual(scan(Array.from(BYTES, (byte) => Uint8Array.of(byte))), EXPECTED);
  for (let cut = 0; cut <= BYTES.length; cut++) {
    assert.deepEqual(scan([BYTES.slice(0, cut), BYTES.slice(cut)]), EXPECTED, `cut at ${cut}`);
  }
});

Deno.test("a frame without its last byte is not one", () => {
  assert.deepEqual(scan([BYTES.subarray(0, BYTES.length - 1)]), EXPECTED.slice(0, 2));
});

import assert from "node:assert/strict";
import { fingerprintText, parseFingerprint } from "../../../mod/transport/fingerprint.ts";

const BYTES = Uint8Array.from({ length: 32 }, (_, index) => index * 7 & 255);
const TEXT = "00070e151c232a31383f464d545b626970777e858c939aa1a8afb6bdc4cbd2d9";

Deno.test("fingerprintText() is 64 lower-case hex digits", () => {
  assert.equal(fingerprintText(BYTES), TEXT);
});

Deno.test("parseFingerprint() takes what people paste", () => {
  const colons = TEXT.toUpperCase().match(/../g)!.join(":");
  for (
    const text of [TEXT, TEXT.toUpperCase(), colons, ` ${TEXT}\n`, `sha256:${TEXT}`, `SHA-256=${colons}`]
  ) {
    assert.deepEqual(parseFingerprint(text), BYTES, text);
  }
});

Deno.test("parseFingerprint() refuses anything else", () => {
  for (const text of ["", TEXT.slice(2), `${TEXT}00`, TEXT.replace("0", "g"), "sha256:"]) {
    assert.equal(parseFingerprint(text), null, text);
  }
});

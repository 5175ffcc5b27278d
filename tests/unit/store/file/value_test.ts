/** The encoding of the journal's contents. */
import { deepStrictEqual as equal, throws } from "node:assert/strict";
import fc from "fast-check";
import { fromHex, hex } from "../../../../mod/base/bytes.ts";
import { type Value, ValueError, ValueReader, ValueWriter } from "../../../../mod/store/file/value.ts";

function encode(value: Value) {
  const writer = new ValueWriter();
  writer.write(value);
  return writer.take();
}

function decode(bytes: Uint8Array): Value {
  const reader = new ValueReader(bytes);
  const value = reader.read();
  if (!reader.done) throw new ValueError("bytes are left");
  return value;
}

const SAMPLE: Value = [null, true, false, 0, 127, 128, 2 ** 53 - 1, "", "text é", "00ff", new Uint8Array(3), [
  [],
]];

const { value: anyValue } = fc.letrec<{ value: Value }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small", maxDepth: 5 },
    fc.constant(null),
    fc.boolean(),
    fc.maxSafeNat(),
    fc.string({ unit: "binary" }).filter((text) => text.isWellFormed()),
    fc.uint8Array().map(hex),
    fc.uint8Array(),
    fc.array(tie("value"), { maxLength: 5 }),
  ),
}));

Deno.test("a value comes back as it was written", () => {
  equal(decode(encode(SAMPLE)), SAMPLE);
  fc.assert(fc.property(anyValue, (value) => equal(decode(encode(value)), value)));
});

Deno.test("a value has fixed bytes", () => {
  equal(hex(encode([300, "ab", "zz", null, fromHex("01"), true])), "070603ac020501ab04027a7a0006010102");
});

Deno.test("a value cut short at any byte is refused", () => {
  const bytes = encode(SAMPLE);
  for (let length = 0; length < bytes.length; length++) {
    throws(() => decode(bytes.subarray(0, length)), ValueError, `at ${length}`);
  }
});

Deno.test("a value with one byte too many is noticed", () => {
  throws(() => decode(new Uint8Array([...encode(SAMPLE), 0])), ValueError);
});

Deno.test("random bytes decode to a value or a ValueError", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
    try {
      decode(bytes);
    } catch (error) {
      equal(error instanceof ValueError, true, String(error));
    }
  }));
});

for (
  const [what, bytes] of [
    ["an unknown tag", "08"],
    ["a number beyond 2^53 - 1", "03ffffffffffffff7f"],
    ["a number without end", "03ffffffffffffffffff01"],
    ["a list longer than what follows", "07ffffffff0f00"],
    ["text that is not UTF-8", "0401ff"],
    ["empty hex text", "0500"],
    ["lists nested too deep", "0701".repeat(9) + "00"],
  ] as const
) {
  Deno.test(`ValueReader refuses ${what}`, () => {
    throws(() => decode(fromHex(bytes)), ValueError);
  });
}

for (const number of [-1, 1.5, 2 ** 53, NaN]) {
  Deno.test(`ValueWriter refuses ${number}`, () => {
    throws(() => encode(number), TypeError);
  });
}

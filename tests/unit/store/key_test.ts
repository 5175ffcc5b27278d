import assert from "node:assert/strict";
import { parseStoreKey } from "../../../mod/store/key.ts";

Deno.test("parseStoreKey() takes 64 hex digits of either case for the raw key", () => {
  const text = "0123456789abcdefABCDEF0123456789".repeat(2);
  const key = parseStoreKey(text);
  assert.equal(key.kind === "raw" && key.key.toHex(), text.toLowerCase());
});

Deno.test("parseStoreKey() takes everything else for a passphrase, and nothing for none", () => {
  for (const text of ["a", "0".repeat(63), "0".repeat(65), "g".repeat(64), " ".repeat(64)]) {
    assert.deepEqual(parseStoreKey(text), { kind: "passphrase", passphrase: text });
  }
  assert.deepEqual(parseStoreKey(""), { kind: "none" });
});

Deno.test("parseStoreKey() refuses NUL without quoting the key", () => {
  assert.throws(() => parseStoreKey("secret\0key"), (error) => {
    return error instanceof RangeError && !error.message.includes("secret");
  });
});

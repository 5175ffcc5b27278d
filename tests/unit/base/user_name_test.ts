/** User names: one normal form. */
import assert from "node:assert/strict";
import { normaliseUserName, tryNormaliseUserName } from "../../../mod/base/user_name.ts";
import { QpqError } from "../../../mod/base/errors.ts";

Deno.test("normaliseUserName() folds ASCII upper case and keeps the rest", () => {
  for (const [typed, name] of [["alice", "alice"], ["ALICE", "alice"], ["0.a_b-C", "0.a_b-c"]] as const) {
    assert.equal(normaliseUserName(typed), name);
  }
  assert.equal(normaliseUserName("a".repeat(64)), "a".repeat(64));
});

Deno.test("tryNormaliseUserName() refuses everything else", () => {
  const bad = ["", ".a", "-a", "_a", " alice", "alice ", "alice\n", "al ice", "älice", "a/b", "a".repeat(65)];
  // The Kelvin sign and the long s fold to ASCII letters elsewhere.
  for (const typed of [...bad, "\u212Aate", "\u017Fam", "a\u0301", "a\0"]) {
    assert.equal(tryNormaliseUserName(typed), undefined, JSON.stringify(typed));
  }
});

Deno.test("normaliseUserName() throws userNameInvalid", () => {
  assert.throws(
    () => normaliseUserName("?"),
    (error) => error instanceof QpqError && error.code === "userNameInvalid",
  );
});

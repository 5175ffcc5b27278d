/** Addresses of users: `user@domain` in one normal form. */
import assert from "node:assert/strict";
import {
  foreignDomain,
  parseUserAddress,
  tryNormaliseDomain,
  tryParseUserAddress,
  userAddressText,
} from "../../../mod/base/user_address.ts";
import { QpqError } from "../../../mod/base/errors.ts";

Deno.test("tryNormaliseDomain() folds ASCII upper case and drops a dot at the end", () => {
  for (
    const [typed, domain] of [
      ["b.test", "b.test"],
      ["Chat.Example.ORG", "chat.example.org"],
      ["b.test.", "b.test"],
      ["localhost", "localhost"],
      ["xn--bcher-kva.example", "xn--bcher-kva.example"],
      ["1a.2b3", "1a.2b3"],
    ] as const
  ) assert.equal(tryNormaliseDomain(typed), domain);
  const longest = `${"a".repeat(63)}.${"b".repeat(63)}.${"c".repeat(63)}.${"d".repeat(61)}`;
  assert.equal(longest.length, 253);
  assert.equal(tryNormaliseDomain(longest), longest);
});

Deno.test("tryNormaliseDomain() refuses everything else", () => {
  const tooLong = `${"a".repeat(63)}.${"b".repeat(63)}.${"c".repeat(63)}.${"d".repeat(62)}`;
  const bad = [
    "",
    ".",
    "..",
    "a..b",
    ".a",
    "a.b..",
    "-a.b",
    "a-.b",
    "a_b.c",
    "a b.c",
    "a.b:7001",
    "a@b",
    "b/c",
  ];
  // The Kelvin sign and the long s fold to ASCII letters elsewhere.
  for (
    const typed of [...bad, "127.0.0.1", "bücher.example", "\u212A.test", "a.\0b", tooLong, "e".repeat(64)]
  ) {
    assert.equal(tryNormaliseDomain(typed), undefined, JSON.stringify(typed));
  }
});

Deno.test("parseUserAddress() splits at the @ and normalises both halves", () => {
  assert.deepEqual(parseUserAddress("Bob"), { userName: "bob", domain: "" });
  assert.deepEqual(parseUserAddress("Bob@B.test"), { userName: "bob", domain: "b.test" });
  for (const typed of ["", "@b.test", "bob@", "bob@b@c.test", "bob@-b", "b ob@b.test", "bob @b.test"]) {
    assert.equal(tryParseUserAddress(typed), undefined, typed);
  }
  assert.throws(
    () => parseUserAddress("bob@"),
    (error) => error instanceof QpqError && error.code === "userNameInvalid",
  );
});

Deno.test("userAddressText() undoes parseUserAddress(), and foreignDomain() empties the own domain", () => {
  for (const text of ["bob", "bob@b.test"]) assert.equal(userAddressText(parseUserAddress(text)), text);
  assert.equal(foreignDomain("a.test", "a.test"), "");
  assert.equal(foreignDomain("b.test", "a.test"), "b.test");
  assert.equal(foreignDomain("", ""), "");
});

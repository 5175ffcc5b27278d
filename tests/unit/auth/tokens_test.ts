/** Access tokens and invitation codes. */
import assert from "node:assert/strict";
import { AccessTokens, hashInvitation, makeInvitation } from "../../../mod/auth/tokens.ts";
import { hex } from "../../../mod/base/bytes.ts";

Deno.test("AccessTokens accepts each of several tokens, and nothing else", async () => {
  const tokens = await AccessTokens.of([{ token: "old", until: null }, { token: "new", until: null }]);
  for (const token of ["old", "new"]) assert.equal(await tokens.accepts(token, 0), true);
  for (const token of ["", "ol", "old ", "OLD", "oldnew"]) {
    assert.equal(await tokens.accepts(token, 0), false);
  }
});

Deno.test("AccessTokens accepts a token until its overlap ends", async () => {
  const tokens = await AccessTokens.of([{ token: "old", until: 100 }, { token: "new", until: null }]);
  assert.equal(await tokens.accepts("old", 99), true);
  assert.equal(await tokens.accepts("old", 100), false);
  assert.equal(await tokens.accepts("new", 100), true);
});

Deno.test("AccessTokens.replace() forgets the former tokens", async () => {
  const tokens = await AccessTokens.of([{ token: "old", until: null }]);
  await tokens.replace([{ token: "new", until: null }]);
  assert.equal(await tokens.accepts("old", 0), false);
  assert.equal(await tokens.accepts("new", 0), true);
  assert.equal(tokens.none, false);
  await tokens.replace([]);
  assert.equal(tokens.none, true);
  assert.equal(await tokens.accepts("", 0), false);
});

Deno.test("makeInvitation() makes seven groups of four that are easy to read", () => {
  const codes = Array.from({ length: 100 }, makeInvitation);
  for (const code of codes) assert.match(code, /^([0-9A-HJKMNP-TV-Z]{4}-){6}[0-9A-HJKMNP-TV-Z]{4}$/);
  assert.equal(new Set(codes).size, codes.length);
});

Deno.test("hashInvitation() forgives case, dashes, spaces, and letters read for digits", async () => {
  const hash = async (code: string) => hex(await hashInvitation(code));
  const expected = await hash("0123-1ABC");
  for (const same of ["01231ABC", "o123-1abc", " O123 iabc\n", "0l23-LABC"]) {
    assert.equal(await hash(same), expected, same);
  }
  assert.notEqual(await hash("0123-1ABD"), expected);
});

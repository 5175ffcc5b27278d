import assert from "node:assert/strict";
import { MIX_DEFAULT, partsOfMix } from "../../../../mod/client/bench/mixed.ts";

Deno.test("the first of a mix is run as it was asked for, the others keep it company", () => {
  const parts = partsOfMix("pingpong,login:4,fanout", { connections: 9, perSecond: 500 });
  assert.deepEqual(parts.map(({ workload }) => workload), ["pingpong", "login", "fanout"]);
  assert.deepEqual(parts.map(({ options }) => options.connections), [9, 4, 1]);
  assert.deepEqual(parts.map(({ options }) => options.perSecond), [500, null, null]);
  assert.equal(parts[2]!.options.recipients, 100);
});

Deno.test("what is no mix is refused", () => {
  for (const text of ["", "pingpong,", "mixed", "login:0", "login:x", "pingpong;login"]) {
    assert.throws(() => partsOfMix(text, {}), RangeError, text);
  }
  assert.equal(partsOfMix(MIX_DEFAULT, {}).length, 3);
});

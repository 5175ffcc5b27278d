import assert from "node:assert/strict";
import { InputReader } from "../../../mod/admin/operations_input.ts";

Deno.test("InputReader reads what is there and gives defaults for what is not", () => {
  const read = new InputReader({ dryRun: true, count: 3, name: "x" });
  assert.deepEqual([read.flag("dryRun"), read.flag("now")], [true, false]);
  assert.deepEqual([read.text("name"), read.text("other")], ["x", null]);
  const bounds = { min: 0, max: 9, otherwise: 5 };
  assert.deepEqual([read.number("count", bounds), read.number("rest", bounds)], [3, 5]);
  read.end();
});

Deno.test("InputReader refuses other types, numbers out of bounds, and what is missing", () => {
  const read = new InputReader({ dryRun: "yes", count: 10, half: 0.5, name: 1, blank: " " });
  const bounds = { min: 0, max: 9, otherwise: 5 };
  assert.throws(() => read.flag("dryRun"), /dryRun must be true or false/);
  assert.throws(() => read.number("count", bounds), /from 0 to 9/);
  assert.throws(() => read.number("half", bounds), /whole number/);
  assert.throws(() => read.text("name"), /name must be a text/);
  assert.throws(() => read.requiredText("blank"), /blank is missing/);
  assert.throws(() => read.requiredText("gone"), /gone is missing/);
});

Deno.test("InputReader.end() refuses keys that nobody read", () => {
  const read = new InputReader({ dryrun: true });
  read.flag("dryRun");
  assert.throws(() => read.end(), /does not know dryrun/);
});

Deno.test("InputReader does not take what every object has for input", () => {
  assert.equal(new InputReader({}).text("constructor"), null);
});

import assert from "node:assert/strict";
import fc from "fast-check";
import { FILTER_LEVELS, parseFilter } from "../../../mod/base/log_filter.ts";

/** Directives as text, the unnamed one first. */
function parsed(text: string): string[] {
  const result = parseFilter(text);
  assert.ok(result.ok, JSON.stringify(result));
  return result.directives.map(({ target, level }) => `${target.join("::")}=${level}`);
}

function problems(text: string): readonly string[] {
  const result = parseFilter(text);
  assert.ok(!result.ok, `${text} was accepted`);
  return result.problems;
}

Deno.test("parseFilter() reads a level for everything", () => {
  assert.deepEqual(parsed("info"), ["=info"]);
  assert.deepEqual(parsed(" OFF "), ["=off"]);
  assert.deepEqual(parsed("Warning"), ["=warn"]);
});

Deno.test("parseFilter() reads targets beside the level for everything", () => {
  assert.deepEqual(parsed("info,qpq::delivery=debug"), ["=info", "qpq::delivery=debug"]);
  assert.deepEqual(parsed("warn, qpq = info ,"), ["=warn", "qpq=info"]);
});

Deno.test("parseFilter() shows errors only where no directive applies", () => {
  assert.deepEqual(parsed("qpq::store=trace"), ["=error", "qpq::store=trace"]);
});

Deno.test("parseFilter() takes a target without a level as all of it", () => {
  assert.deepEqual(parsed("qpq"), ["=error", "qpq=trace"]);
  assert.deepEqual(parsed("qpq::store"), ["=error", "qpq::store=trace"]);
});

Deno.test("parseFilter() lets the last directive for a target win", () => {
  assert.deepEqual(parsed("info,qpq=debug,qpq=warn,error"), ["=error", "qpq=warn"]);
});

Deno.test("parseFilter() tells every problem", () => {
  assert.equal(problems("loud,qpq::x=quiet,=info,info").length, 3);
  assert.match(problems("inof")[0]!, /"inof" is no level: use trace, debug/);
  assert.match(problems("qpq=")[0]!, /"" is no level for qpq/);
  assert.match(problems("qpq:x=info")[0]!, /"qpq:x" is no target/);
  assert.match(problems(" , ")[0]!, /empty/);
});

Deno.test("parseFilter() accepts every list of well-formed directives and throws for no text", () => {
  const word = fc.stringMatching(/^[a-z][a-z0-9_]{0,8}$/);
  const target = fc.array(word, { minLength: 1, maxLength: 3 }).map((parts) => parts.join("::"));
  const directive = fc.tuple(target, fc.constantFrom(...FILTER_LEVELS)).map(([t, level]) => `${t}=${level}`);
  fc.assert(fc.property(fc.array(directive, { minLength: 1 }), (list) => parseFilter(list.join(",")).ok));
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => typeof parseFilter(text).ok === "boolean"));
});

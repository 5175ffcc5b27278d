import assert from "node:assert/strict";
import fc from "fast-check";
import { parseToml } from "../../../mod/config/toml.ts";

function lines(text: string): Record<string, number> {
  const parsed = parseToml(text);
  assert.ok(parsed.ok, JSON.stringify(parsed));
  return Object.fromEntries([...parsed.values].map(([key, { line }]) => [key, line]));
}

Deno.test("parseToml() tells the line of each key", () => {
  const text = [
    "\ufeff# comment",
    'listen = "a:1"',
    'log="info"\r',
    "",
    "  [limits]  # x",
    "ttl_max = 5",
    '"quoted_key" = 1',
    "dotted . key = 2",
  ].join("\n");
  assert.deepEqual(lines(text), {
    listen: 2,
    log: 3,
    "limits.ttl_max": 6,
    "limits.quoted_key": 7,
    "limits.dotted": 5,
  });
});

Deno.test("parseToml() is not led astray by multi-line strings", () => {
  assert.deepEqual(lines('a = """\nlisten = 1\n[limits]\n"""\nlisten = 2\nb = """x"""\nlog = 3'), {
    a: 1,
    listen: 5,
    b: 6,
    log: 7,
  });
});

Deno.test("parseToml() reads dotted and inline tables like ordinary ones", () => {
  assert.deepEqual(lines("limits.ttl_max = 1"), { "limits.ttl_max": 1 });
  assert.deepEqual(Object.keys(lines("limits = { ttl_max = 1 }")), ["limits.ttl_max"]);
});

Deno.test("parseToml() tells the line of a mistake, and nothing of what stands there", () => {
  const parsed = parseToml('listen = "a:1"\nauth_token = "planted-secret\n');
  assert.ok(!parsed.ok);
  assert.equal(parsed.line, 2);
  assert.match(parsed.text, /^is no valid TOML: ./);
  assert.doesNotMatch(parsed.text, /planted/);
});

Deno.test("parseToml() throws for no text", () => {
  const token = fc.constantFrom(
    "a",
    "=",
    "[",
    "]",
    "\n",
    '"',
    "'",
    '"""',
    ".",
    "1",
    "{",
    "}",
    ",",
    " ",
    "#",
    "1979-05-27",
  );
  fc.assert(fc.property(fc.array(token, { maxLength: 30 }), (tokens) => {
    parseToml(tokens.join(""));
  }));
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
    parseToml(text);
  }));
});

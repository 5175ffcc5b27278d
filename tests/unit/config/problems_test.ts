import assert from "node:assert/strict";
import { ConfigError, editDistance, nearestName, unknownText } from "../../../mod/config/problems.ts";

Deno.test("editDistance() counts inserted, deleted, changed and swapped letters", () => {
  const cases: [string, string, number][] = [
    ["", "", 0],
    ["abc", "", 3],
    ["abc", "abc", 0],
    ["abc", "axc", 1],
    ["abc", "abxc", 1],
    ["listen", "lisetn", 1],
    ["kitten", "sitting", 3],
  ];
  for (const [a, b, distance] of cases) {
    assert.equal(editDistance(a, b), distance);
    assert.equal(editDistance(b, a), distance);
  }
});

Deno.test("nearestName() finds what was meant, and nothing when nothing is near", () => {
  const known = ["listen", "log", "log_format", "data_dir"];
  assert.equal(nearestName("lisen", known), "listen");
  assert.equal(nearestName("LOG_FORMT", known), "log_format");
  assert.equal(nearestName("datadir", known), "data_dir");
  assert.equal(nearestName("entirely_other_thing", known), undefined);
  assert.match(unknownText("option", "lisen", known), /did you mean listen\?/);
  assert.equal(unknownText("option", "zzzzzz", known), "unknown option");
});

Deno.test("ConfigError has a line for each problem", () => {
  const error = new ConfigError([
    { key: "listen", from: "QPQ_LISTEN", text: "must be host:port" },
    { key: "db_key", from: "", text: "is not set" },
  ]);
  assert.deepEqual(error.message.split("\n"), [
    "Cannot use the configuration: 2 problems",
    "  listen (QPQ_LISTEN): must be host:port",
    "  db_key: is not set",
  ]);
  assert.equal(error.problems.length, 2);
});

import assert from "node:assert/strict";
import {
  indented,
  oneLine,
  sizeText,
  table,
  textWidth,
  timeText,
} from "../../../../mod/cli/client/output.ts";

Deno.test("what others wrote cannot act on the terminal or look like a line of ours", () => {
  assert.equal(oneLine("a\x1b[31mb\nc\u202ed"), "a\ufffd[31mb c\ufffdd");
  assert.equal(indented("one\n12:00 bob: two\x07\r\n", 4), "one\n    12:00 bob: two\ufffd\n    ");
});

Deno.test("table() aligns wide characters", () => {
  assert.equal(table(["name", "n"], [["日本", "1"], ["é", "2"]]), "name  n\n日本  1\né     2");
});

Deno.test("textWidth() counts columns", () => {
  assert.equal(textWidth("abc"), 3);
  assert.equal(textWidth("日本"), 4);
  assert.equal(textWidth("👍🏽"), 2);
  assert.equal(textWidth("e\u0301"), 1);
});

Deno.test("sizeText() is as people write it", () => {
  const sizes = [0, 1023, 1024, 1_048_575, 1_048_576, 5 * 2 ** 40];
  assert.deepEqual(sizes.map(sizeText), ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 MiB", "5.0 TiB"]);
});

Deno.test("timeText() leaves the date out today", () => {
  const now = new Date(2026, 4, 9, 23, 30).getTime();
  assert.equal(timeText(new Date(2026, 4, 9, 8, 5).getTime(), now), "08:05");
  assert.equal(timeText(new Date(2026, 4, 8, 8, 5).getTime(), now), "2026-05-08 08:05");
});

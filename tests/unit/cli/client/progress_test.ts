import assert from "node:assert/strict";
import { ProgressBar, progressLine } from "../../../../mod/cli/client/progress.ts";
import { textWidth } from "../../../../mod/cli/client/output.ts";
import { FakeTerminal } from "../../../support/fake_terminal.ts";

Deno.test("progressLine() shows name, bar, per cent and sizes", () => {
  assert.equal(
    progressLine({ label: "photo.jpg", bytes: 1 << 20, total: 2 << 20, columns: 80 }),
    "photo.jpg  [###############---------------]   50 %  1.0 MiB of 2.0 MiB",
  );
  assert.match(progressLine({ label: "empty", bytes: 0, total: 0, columns: 80 }), /100 %/);
});

Deno.test("progressLine() never fills the line of a terminal", () => {
  for (const label of ["x", "a-name-that-is-much-longer-than-the-line".repeat(3), "日本語".repeat(20)]) {
    for (let columns = 40; columns <= 120; columns++) {
      const line = progressLine({ label, bytes: 5e8, total: 1e9, columns });
      assert.ok(textWidth(line) < columns, `${columns}: ${line}`);
    }
  }
});

Deno.test("a bar is drawn not too often, always at the end, and goes without a trace", () => {
  const terminal = new FakeTerminal();
  let now = 0;
  {
    using bar = new ProgressBar(terminal, { label: "f", now: () => now });
    bar.update(1, 100);
    bar.update(50, 100);
    now += 1000;
    bar.update(70, 100);
    bar.update(100, 100);
  }
  assert.deepEqual([...terminal.said.matchAll(/(\d+) %/g)].map(([, percent]) => percent), ["1", "70", "100"]);
  assert.ok(terminal.said.endsWith("\r\x1b[K"));
});

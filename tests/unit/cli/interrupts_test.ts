import assert from "node:assert/strict";
import { interrupts } from "../../../mod/cli/interrupts.ts";
import { FakeClock } from "../../support/fake_clock.ts";

Deno.test("interrupts() takes what arrives together as one, and a later signal as another", async () => {
  const clock = new FakeClock();
  const seen: string[] = [];
  const listener = interrupts(
    { first: (signal) => seen.push(signal), again: () => seen.push("again") },
    clock,
  );
  listener("SIGINT");
  listener("SIGINT");
  await clock.advance(900);
  listener("SIGTERM");
  assert.deepEqual(seen, ["SIGINT"]);
  await clock.advance(100);
  listener("SIGTERM");
  assert.deepEqual(seen, ["SIGINT", "again"]);
});

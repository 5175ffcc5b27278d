/** Work on many items by a few at a time. */
import assert from "node:assert/strict";
import { inParallel } from "../../../../mod/client/bench/bench_server.ts";

Deno.test("inParallel() fails when nobody works any more, and begins nothing after a failure", async () => {
  const slow = Promise.withResolvers<void>();
  const begun: string[] = [];
  let ended = false;
  const running = inParallel(["fails", "slow", "late"], 2, async (item) => {
    begun.push(item);
    if (item === "fails") throw new Error("no");
    await slow.promise;
    ended = true;
  });
  setTimeout(slow.resolve); // after the failure has gone all of its way
  await assert.rejects(running, /^Error: no$/);
  assert.ok(ended, "what was at work goes on behind the caller's back");
  assert.deepEqual(begun, ["fails", "slow"]);
});

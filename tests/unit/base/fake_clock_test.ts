import assert from "node:assert/strict";
import { delay } from "../../../mod/base/clock.ts";
import { FakeClock } from "../../support/fake_clock.ts";

Deno.test("advance() runs due timers in order, each at its time", async () => {
  const clock = new FakeClock();
  const ran: string[] = [];
  clock.after(20, () => ran.push(`b ${clock.monotonic()}`));
  clock.after(10, () => ran.push(`a ${clock.monotonic()}`));
  clock.after(20, () => ran.push(`c ${clock.monotonic()}`));
  clock.after(31, () => ran.push("late"));
  await clock.advance(30);
  assert.deepEqual(ran, ["a 10", "b 20", "c 20"]);
  assert.equal(clock.monotonic(), 30);
  assert.equal(clock.pendingTimers, 1);
});

Deno.test("advance() follows what timers start, through promises", async () => {
  const clock = new FakeClock({ now: 1000 });
  const seen: number[] = [];
  const loop = (async () => {
    for (let i = 0; i < 3; i++) {
      await delay(clock, 10);
      await Promise.resolve();
      seen.push(clock.now());
    }
  })();
  await clock.advance(30);
  await loop;
  assert.deepEqual(seen, [1010, 1020, 1030]);
});

Deno.test("after() can be cancelled, also by an earlier timer", async () => {
  const clock = new FakeClock();
  let ran = 0;
  const cancel = clock.after(20, () => ran++);
  clock.after(10, cancel);
  await clock.advance(100);
  assert.equal(ran, 0);
});

Deno.test("jumpWall() moves the wall clock alone", () => {
  const clock = new FakeClock({ now: 5000 });
  clock.jumpWall(-2000);
  assert.deepEqual([clock.now(), clock.monotonic()], [3000, 0]);
});

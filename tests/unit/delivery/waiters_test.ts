import assert from "node:assert/strict";
import { FakeClock } from "../../support/fake_clock.ts";
import { type DeviceId, randomId } from "../../../mod/base/ids.ts";
import { Waiters } from "../../../mod/delivery/waiters.ts";

const alice = randomId<DeviceId>();
const bob = randomId<DeviceId>();

Deno.test("Waiters.wake() ends the waits of that device only", async () => {
  const waiters = new Waiters({ clock: new FakeClock(), max: 10 });
  const first = waiters.park(alice, 1000);
  const second = waiters.park(alice, 1000);
  const other = waiters.park(bob, 1000);
  waiters.wake([alice]);
  assert.deepEqual([await first.woken, await second.woken], ["entries", "entries"]);
  assert.equal(waiters.count, 1);
  other.end("cancelled");
  assert.deepEqual([await other.woken, waiters.count], ["cancelled", 0]);
});

Deno.test("Waiters.park() ends by itself after its time", async () => {
  const clock = new FakeClock();
  const waiters = new Waiters({ clock, max: 10 });
  const waiter = waiters.park(alice, 1000);
  await clock.advance(999);
  assert.equal(waiters.count, 1);
  await clock.advance(1);
  assert.deepEqual([await waiter.woken, waiters.count], ["timeout", 0]);
});

Deno.test("Waiters.park() refuses beyond the bound and takes again when one has ended", () => {
  const waiters = new Waiters({ clock: new FakeClock(), max: 1 });
  const waiter = waiters.park(alice, 1000);
  assert.throws(() => waiters.park(bob, 1000), { code: "overloaded" });
  waiter.end("cancelled");
  waiters.park(bob, 1000).end("cancelled");
});

Deno.test("Waiters.drain() ends present and later waits", async () => {
  const waiters = new Waiters({ clock: new FakeClock(), max: 10 });
  const before = waiters.park(alice, 1000);
  waiters.drain();
  const after = waiters.park(alice, 1000);
  assert.deepEqual([await before.woken, await after.woken], ["draining", "draining"]);
});

import assert from "node:assert/strict";
import { PendingCalls } from "../../../mod/protocol/pending_calls.ts";
import { FakeClock } from "../../support/fake_clock.ts";

const late = () => new Error("late");

function world(inFlightMax = 2) {
  const clock = new FakeClock();
  const written: number[] = [];
  const write = (bytes: Uint8Array) => void written.push(new DataView(bytes.buffer).getUint32(4));
  const calls = new PendingCalls({ clock, inFlightMax, write });
  const ask = () => calls.exchange(1, new Uint8Array(0), { timeoutMs: 1000, late });
  const reply = (requestId: number) => calls.settle({ requestId, code: 0, body: new Uint8Array(0) });
  return { clock, written, calls, ask, reply };
}

Deno.test("exchange() sends at most the bound, the rest as replies come", async () => {
  const { clock, written, ask, reply } = world();
  const all = [ask(), ask(), ask()];
  await clock.settle();
  assert.deepEqual(written, [1, 2]);
  reply(2);
  await clock.settle();
  assert.deepEqual(written, [1, 2, 3]);
  reply(1);
  reply(3);
  assert.deepEqual((await Promise.all(all)).map(({ requestId }) => requestId), [1, 2, 3]);
});

Deno.test("exchange() gives up after its time, and fail() ends all, those to come as well", async () => {
  const { clock, calls, ask } = world(1);
  const slow = assert.rejects(ask(), /late/);
  await clock.advance(1000);
  await slow;
  const [sent, waiting] = [assert.rejects(ask(), /gone/), assert.rejects(ask(), /gone/)];
  await clock.settle();
  calls.fail(new Error("gone"));
  await Promise.all([sent, waiting, assert.rejects(ask(), /gone/)]);
  assert.equal(calls.count, 0);
});

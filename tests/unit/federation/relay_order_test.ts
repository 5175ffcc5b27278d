/** What waits behind a message that was put off, and for how long. */
import assert from "node:assert/strict";
import { type ErrorCode, QpqError } from "../../../mod/base/errors.ts";
import type { DeviceId, MessageId } from "../../../mod/base/ids.ts";
import { HeldBackError } from "../../../mod/delivery/held_back.ts";
import { type Ordered, RelayOrder, takeInOrder } from "../../../mod/federation/relay_order.ts";
import { FakeClock } from "../../support/fake_clock.ts";

const message = (id: string, ...to: string[]): Ordered => ({
  messageId: id as MessageId,
  recipients: new Set(to as DeviceId[]),
});

/** What a store refuses before it looks at the order. */
const FINAL: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["guardRequired", "idConflict"]);

/** A store as far as `behind` goes; it fails at the messages of `failing`. */
class Taker {
  readonly order: RelayOrder;
  readonly clock = new FakeClock();
  readonly failing = new Map<string, ErrorCode>();
  readonly taken: string[] = [];
  tries = 0;

  constructor() {
    this.order = new RelayOrder(this.clock);
  }

  /** What became of each: its id, or the error's code. */
  async relay(round: number, messages: Ordered[]): Promise<string[]> {
    return await this.order.inRound(round, async () => {
      const take = ({ messageId }: Ordered, behind: readonly MessageId[]) => this.#take(messageId, behind);
      const results = await takeInOrder(messages, { order: this.order, take });
      return results.map((result) => result instanceof QpqError ? result.code : result);
    });
  }

  async #take(id: string, behind: readonly string[]): Promise<string | QpqError> {
    this.tries += 1;
    const code = this.failing.get(id);
    const waits = behind.some((each) => !this.taken.includes(each));
    if (waits && !(code && FINAL.has(code))) return new HeldBackError();
    if (code) return new QpqError(code, "It fails");
    this.taken.push(id);
    return id;
  }
}

Deno.test("takeInOrder() tries each message once while none fails", async () => {
  const taker = new Taker();
  await taker.relay(1, [message("1", "a", "b"), message("2", "b"), message("3", "a")]);
  assert.deepEqual([taker.taken, taker.tries], [["1", "2", "3"], 3]);
});

Deno.test("takeInOrder() puts off what shares a recipient with what was put off, through others too", async () => {
  const taker = new Taker();
  taker.failing.set("1", "storeFull");
  const messages = [message("1", "a"), message("2", "a", "b"), message("3", "c"), message("4", "b")];
  assert.deepEqual(await taker.relay(1, messages), ["storeFull", "overloaded", "3", "overloaded"]);
});

Deno.test("takeInOrder() holds nothing back for what is refused for good", async () => {
  const taker = new Taker();
  taker.failing.set("1", "guardRequired");
  taker.failing.set("3", "idConflict");
  const results = await taker.relay(1, ["1", "2", "3", "4"].map((id) => message(id, "a")));
  assert.deepEqual(results, ["guardRequired", "2", "idConflict", "4"]);
});

Deno.test("what was put off keeps its recipients' messages back for the round, not the next one", async () => {
  const taker = new Taker();
  taker.failing.set("1", "quotaExceeded");
  await taker.relay(7, [message("1", "a")]);
  taker.failing.clear();
  assert.deepEqual(await taker.relay(7, [message("2", "a"), message("3", "b")]), ["overloaded", "3"]);
  assert.deepEqual(await taker.relay(8, [message("1", "a"), message("2", "a")]), ["1", "2"]);
});

Deno.test("a Relay refused whole keeps everything of its round back", async () => {
  const taker = new Taker();
  const refusal = new QpqError("rateLimited", "Too much", { retryAfterMs: 100 });
  await assert.rejects(taker.order.inRound(1, () => Promise.reject(refusal)), refusal);
  await taker.clock.advance(1_000);
  await assert.rejects(taker.relay(1, [message("1", "a")]), { code: "rateLimited" });
  assert.deepEqual(await taker.relay(2, [message("1", "a")]), ["1"]);
});

Deno.test("for a peer that counts no rounds, what was put off is forgotten when it may come again", async () => {
  const taker = new Taker();
  const refusal = new QpqError("rateLimited", "Too much", { retryAfterMs: 100 });
  await assert.rejects(taker.order.inRound(0, () => Promise.reject(refusal)), refusal);
  await taker.clock.advance(99);
  await assert.rejects(taker.relay(0, [message("1", "a")]), { details: { retryAfterMs: 1 } });
  await taker.clock.advance(1);
  assert.deepEqual(await taker.relay(0, [message("1", "a")]), ["1"]);
});

Deno.test("what was put off for very many recipients keeps everything back", async () => {
  const taker = new Taker();
  taker.failing.set("1", "storeFull");
  await taker.relay(1, [message("1", ...Array.from({ length: 5_000 }, (_, i) => `${i}`))]);
  await assert.rejects(taker.relay(1, [message("2", "b")]), { code: "overloaded" });
});

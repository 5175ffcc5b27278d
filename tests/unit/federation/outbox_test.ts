/** The loop that sends to a peer: order, waits, what is given up. Links, store and clock are the test's. */
import assert from "node:assert/strict";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Registry } from "prom-client";
import { ERRORS, QpqError } from "../../../mod/base/errors.ts";
import {
  type AccountId,
  type DeviceId,
  type EntryId,
  type MessageId,
  randomId,
} from "../../../mod/base/ids.ts";
import { Outbox } from "../../../mod/federation/outbox.ts";
import type { CallingLink, Standing } from "../../../mod/federation/outbox_sender.ts";
import { PeerMetrics } from "../../../mod/federation/peer_metrics.ts";
import {
  type RelayedMessage,
  RelayedMessageSchema,
  RelayResponseSchema,
  type RelayResult,
} from "../../../mod/protocol/federation_pb.ts";
import { DeliveryFailedSchema, DeliveryFailure, RecipientStatus } from "../../../mod/protocol/qpq_pb.ts";
import type { OutboxEntry, PeerStore, RelayingListener } from "../../../mod/store/store.ts";
import { FakeClock } from "../../support/fake_clock.ts";

const DOMAIN = "b.example";
const HOUR = 3_600_000;
const OK: Partial<RelayResult> = { code: 0, statuses: [RecipientStatus.OK] };

const refused = (code: keyof typeof ERRORS, retryAfterMs = 0): Partial<RelayResult> =>
  ({ code: ERRORS[code].number, error: { text: "", retryAfterMs } }) as Partial<RelayResult>;

/** One outbox with all that surrounds it. */
class World {
  readonly clock = new FakeClock();
  readonly entries: OutboxEntry[] = [];
  /** Failures that senders were told of. */
  readonly failures: DeliveryFailure[] = [];
  /** Texts of the messages of each request, in order. */
  readonly requests: string[][] = [];
  /** Which round each of them said that it is of. */
  readonly rounds: number[] = [];
  standing: Standing = "peer";
  /** What the peer answers; by default it takes everything. */
  answer: (text: string) => Partial<RelayResult> = () => OK;
  /** Something is taken out of the outbox when this resolves. */
  settling: Promise<void> = Promise.resolve();
  /** Requests are answered when this resolves. */
  gate: Promise<void> = Promise.resolve();
  reachable = true;
  #listener: RelayingListener = () => {};
  #id = 0;
  readonly outbox: Outbox;

  constructor() {
    this.outbox = new Outbox({
      store: this.#store(),
      clock: this.clock,
      metrics: new PeerMetrics(new Registry(), [DOMAIN]),
      linkTo: () =>
        this.reachable
          ? Promise.resolve(this.#link())
          : Promise.reject(new QpqError("peerUnavailable", "It is down")),
      standing: () => this.standing,
      notice: (failed) => ({
        entryId: randomId<EntryId>(),
        payload: toBinary(DeliveryFailedSchema, create(DeliveryFailedSchema, failed)),
        expiresAt: 0,
      }),
      ttlMs: () => 72 * HOUR,
      random: () => 0.999,
    });
  }

  /** Texts of what still waits. */
  get waiting(): string[] {
    return this.entries.map(textOf);
  }

  add(text: string, ttlMs = 30 * 24 * HOUR): void {
    const message = create(RelayedMessageSchema, {
      parts: [{ payload: new TextEncoder().encode(text), recipients: [new Uint8Array(16)] }],
    });
    this.entries.push({
      id: ++this.#id,
      body: toBinary(RelayedMessageSchema, message),
      senderAccount: randomId<AccountId>(),
      senderDevice: randomId<DeviceId>(),
      messageId: randomId<MessageId>(),
      recipients: 1,
      acceptedAt: this.clock.now(),
      expiresAt: this.clock.now() + ttlMs,
    });
    this.#listener([DOMAIN]);
  }

  #link(): CallingLink {
    const call = async (_: string, { messages, round }: { messages: RelayedMessage[]; round: number }) => {
      this.rounds.push(round);
      this.requests.push(messages.map((message) => payloadText(message)));
      await this.gate;
      return create(RelayResponseSchema, {
        results: messages.map((message) => this.answer(payloadText(message)) as RelayResult),
      });
    };
    return { call, close: () => {} } as unknown as CallingLink;
  }

  #store(): PeerStore {
    return {
      outboxes: () =>
        Promise.resolve(
          this.entries.length === 0
            ? []
            : [{ domain: DOMAIN, depth: this.entries.length, bytes: 1, oldestAcceptedAt: 0 }],
        ),
      outboxAfter: ({ after, entriesMax }) =>
        Promise.resolve(this.entries.filter(({ id }) => id > after).slice(0, entriesMax)),
      settleOutbox: async ({ settled }) => {
        await this.settling;
        for (const { id, failures } of settled) {
          const at = this.entries.findIndex((entry) => entry.id === id);
          if (at < 0) continue;
          this.entries.splice(at, 1);
          this.failures.push(
            ...failures.map(({ payload }) => fromBinary(DeliveryFailedSchema, payload).reason),
          );
        }
      },
      onRelaying: (listener) => {
        this.#listener = listener;
        return () => {};
      },
      setPeerBlocked: () => Promise.resolve(),
      blockedPeers: () => Promise.resolve([]),
    };
  }
}

const payloadText = (message: RelayedMessage) => new TextDecoder().decode(message.parts[0]!.payload);
const textOf = ({ body }: OutboxEntry) => payloadText(fromBinary(RelayedMessageSchema, body));
const numbers = (count: number) => Array.from({ length: count }, (_, i) => `${i + 1}`);

Deno.test("Outbox sends in order, in batches of 256, two of them in flight", async () => {
  const world = new World();
  const { promise, resolve } = Promise.withResolvers<void>();
  world.gate = promise;
  for (const text of numbers(600)) world.add(text);
  await world.outbox.start();
  await world.clock.settle();
  assert.deepEqual(world.requests.map((request) => request.length), [256, 256]);
  resolve();
  await world.clock.settle();
  assert.deepEqual([world.requests.flat(), world.waiting], [numbers(600), []]);
  world.add("601");
  await world.clock.settle();
  assert.deepEqual(world.requests.at(-1), ["601"]);
  await world.outbox.stop();
});

Deno.test("Outbox honours retry-after, and goes on with the first message that was not taken", async () => {
  const world = new World();
  await world.outbox.start();
  world.answer = (text) => text === "1" ? OK : refused("rateLimited", 60_000);
  for (const text of numbers(3)) world.add(text);
  await world.clock.settle();
  assert.deepEqual(world.waiting, ["2", "3"]);
  world.answer = () => OK;
  const before = world.requests.length;
  await world.clock.advance(59_000);
  // It was heard of meanwhile, and the list was reloaded: it asked for a minute all the same.
  world.outbox.seen(DOMAIN);
  world.outbox.recheck();
  await world.clock.settle();
  assert.equal(world.requests.length, before);
  await world.clock.advance(1_000);
  assert.deepEqual([world.requests.at(-1), world.waiting], [["2", "3"], []]);
  await world.outbox.stop();
});

Deno.test("Outbox waits longer after each failure, and not at all when somebody asks", async () => {
  const world = new World();
  world.reachable = false;
  await world.outbox.start();
  world.add("1");
  await world.clock.settle();
  const waits: number[] = [];
  for (let i = 0; i < 12; i++) {
    const nextAttemptAt = (await world.outbox.reports())[0]!.nextAttemptAt!;
    waits.push(Math.round((nextAttemptAt - world.clock.now()) / 1000));
    await world.clock.advance(nextAttemptAt - world.clock.now());
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]);
  world.reachable = true;
  assert.deepEqual(await world.outbox.retry(null), [DOMAIN]);
  await world.clock.settle();
  assert.deepEqual(world.waiting, []);
  await world.outbox.stop();
});

Deno.test("Outbox tries again when it hears of a peer that could not be reached", async () => {
  const world = new World();
  world.reachable = false;
  await world.outbox.start();
  world.add("1");
  await world.clock.advance(10 * 60_000);
  world.reachable = true;
  await world.clock.advance(2_000);
  assert.deepEqual(world.waiting, ["1"]);
  world.outbox.seen(DOMAIN);
  await world.clock.settle();
  assert.deepEqual(world.waiting, []);
  await world.outbox.stop();
});

Deno.test("Outbox gives a message up that breaks the peer five times; what is behind it goes", async () => {
  const world = new World();
  await world.outbox.start();
  world.answer = (text) => text === "1" ? refused("internal") : OK;
  for (const text of numbers(2)) world.add(text);
  await world.clock.advance(HOUR);
  assert.deepEqual([world.waiting, world.failures], [[], [DeliveryFailure.REFUSED]]);
  assert.equal(world.requests.filter((request) => request.includes("1")).length, 5);
  await world.outbox.stop();
});

Deno.test("Outbox gives up what has expired while the peer is away, and keeps the rest", async () => {
  const world = new World();
  world.reachable = false;
  await world.outbox.start();
  world.add("long");
  world.add("short", 2 * HOUR);
  await world.clock.advance(3 * HOUR);
  assert.deepEqual([world.waiting, world.failures], [["long"], [DeliveryFailure.EXPIRED]]);
  await world.clock.advance(70 * HOUR);
  assert.deepEqual([world.waiting.length, world.failures.length], [0, 2]);
  await world.outbox.stop();
});

Deno.test("Outbox sends a domain nothing that is no peer: what expires says so, drop() gives up the rest", async () => {
  const world = new World();
  world.standing = "held";
  await world.outbox.start();
  world.add("short", HOUR);
  world.add("long");
  await world.clock.advance(2 * HOUR);
  assert.deepEqual([world.requests, world.waiting], [[], ["long"]]);
  assert.equal(await world.outbox.drop(DOMAIN), 1);
  assert.deepEqual(world.failures, [DeliveryFailure.PEER_REMOVED, DeliveryFailure.PEER_REMOVED]);
  world.add("kept");
  world.standing = "peer";
  world.outbox.recheck();
  await world.clock.settle();
  assert.deepEqual(world.waiting, []);
  await world.outbox.stop();
});

Deno.test("Outbox begins nothing more once stopped, and what was not answered stays", async () => {
  const world = new World();
  const { promise, resolve } = Promise.withResolvers<void>();
  world.gate = promise;
  await world.outbox.start();
  for (const text of numbers(600)) world.add(text);
  await world.clock.settle();
  const stopped = world.outbox.stop();
  resolve();
  await stopped;
  const sent = world.requests.flat().length;
  assert.equal(world.waiting.length, 600 - sent);
});

Deno.test("Outbox sends a batch before it gives up what has expired in it: the next does not overtake it", async () => {
  const world = new World();
  await world.outbox.start();
  world.reachable = false;
  world.add("expired", 1_000);
  for (const text of numbers(300)) world.add(text);
  await world.clock.settle();
  world.reachable = true;
  const { promise, resolve } = Promise.withResolvers<void>();
  world.settling = promise;
  await world.clock.advance(2_000);
  resolve();
  await world.clock.settle();
  assert.deepEqual([world.requests.flat(), world.waiting], [numbers(300), []]);
  await world.outbox.stop();
});

Deno.test("Outbox gives a message up that breaks the peer, whatever else goes in the meantime", async () => {
  const world = new World();
  world.answer = (text) => text === "1" ? refused("internal") : OK;
  await world.outbox.start();
  for (let round = 0; round < 5; round++) {
    // So many that another batch is taken whole.
    for (const text of round === 0 ? numbers(300) : numbers(300).slice(1)) world.add(text);
    await world.clock.advance(1_000);
  }
  assert.deepEqual([world.waiting, world.failures], [[], [DeliveryFailure.REFUSED]]);
  await world.outbox.stop();
});

Deno.test("Outbox says a new round when it begins anew, the same for what is in flight together", async () => {
  const world = new World();
  const { promise, resolve } = Promise.withResolvers<void>();
  world.gate = promise;
  world.answer = () => refused("storeFull");
  for (const text of numbers(300)) world.add(text);
  await world.outbox.start();
  await world.clock.settle();
  resolve();
  await world.clock.advance(1_000);
  const [first, second, third] = world.rounds;
  assert.ok(first === second && first !== third && first !== 0 && third !== 0, world.rounds.join());
  await world.outbox.stop();
});

Deno.test("Outbox does not wait ever longer while only some messages are put off, and tells why they are", async () => {
  const world = new World();
  world.answer = (text) => text === "1" ? refused("storeFull") : OK;
  await world.outbox.start();
  for (const text of numbers(300)) world.add(text);
  await world.clock.settle();
  for (const text of ["301", "302", "303", "304"]) {
    assert.deepEqual(world.waiting, ["1"]);
    assert.equal((await world.outbox.reports())[0]!.lastProblem, "the peer answered storeFull");
    world.add(text);
    await world.clock.advance(1_000);
  }
  assert.deepEqual(world.waiting, ["1"]);
  await world.outbox.stop();
});

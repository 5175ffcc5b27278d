/** Contract of PeerStore, and of what QueueStore.enqueue puts into outboxes. */
import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import type { NewMessage, OutboxEntry, RemoteMessage } from "../../../mod/store/store.ts";
import { type ContractTest, DAY_MS, type Person, plain, WIDE_LIMITS, type World } from "./world.ts";

const DOMAIN = "peer.example";

function remoteTo(domain: string, length = 100): RemoteMessage {
  return { domain, body: randomBytes(length), recipients: 2 };
}

async function relay(world: World, sender: Person, fields: Partial<NewMessage> = {}) {
  return await world.send(sender, [], { parts: [], remote: [remoteTo(DOMAIN)], ...fields });
}

async function outboxOf(world: World, fields: Partial<Parameters<World["store"]["outboxAfter"]>[0]> = {}) {
  const after = { domain: DOMAIN, after: 0, entriesMax: 1000, bytesMax: 1e9, ...fields };
  return await world.store.outboxAfter(after);
}

const idsOf = (entries: readonly OutboxEntry[]) => entries.map((entry) => entry.id);

async function settle(
  world: World,
  ids: readonly number[],
  failure: ReturnType<World["notice"]> | null = null,
) {
  const settled = ids.map((id) => ({ id, failures: failure ? [failure] : [] }));
  await world.store.settleOutbox({ domain: DOMAIN, settled, now: world.now });
}

/** Registers the tests. */
export function outboxContract(test: ContractTest): void {
  test("enqueue() puts remote messages into their outboxes with all that sending needs", async (world) => {
    const sender = await world.person();
    const message = world.message(sender, [sender], {
      remote: [remoteTo(DOMAIN), remoteTo("other.example", 0)],
    });
    const result = await world.store.enqueue(message);
    assert.ok(result.status === "accepted");
    assert.deepEqual([result.recipients, result.remote], [["ok"], ["relaying", "relaying"]]);
    const [entry] = await outboxOf(world);
    assert.deepEqual(plain({ ...entry, id: 0 }), {
      id: 0,
      body: message.remote[0]!.body,
      senderAccount: sender.accountId,
      senderDevice: sender.deviceId,
      messageId: message.messageId,
      recipients: 2,
      acceptedAt: world.now,
      expiresAt: message.expiresAt,
    });
    assert.deepEqual(await world.store.outboxes(), [
      { domain: "other.example", depth: 1, bytes: 0, oldestAcceptedAt: world.now },
      { domain: DOMAIN, depth: 1, bytes: 100, oldestAcceptedAt: world.now },
    ]);
  });

  test("outboxAfter() answers in order of acceptance, within its bounds, at least one", async (world) => {
    const sender = await world.person();
    const bodies: Uint8Array[] = [];
    for (let i = 0; i < 5; i++) {
      const remote = remoteTo(DOMAIN, 10 + i);
      bodies.push(remote.body);
      await relay(world, sender, { remote: [remote, remoteTo("other.example")] });
    }
    const all = await outboxOf(world);
    assert.deepEqual(all.map((entry) => plain(entry.body)), bodies);
    assert.deepEqual(idsOf(all), [...idsOf(all)].sort((a, b) => a - b));
    assert.deepEqual(idsOf(await outboxOf(world, { after: all[1]!.id })), idsOf(all).slice(2));
    assert.deepEqual(idsOf(await outboxOf(world, { entriesMax: 2 })), idsOf(all).slice(0, 2));
    assert.deepEqual(idsOf(await outboxOf(world, { bytesMax: 21 })), idsOf(all).slice(0, 2));
    assert.deepEqual(idsOf(await outboxOf(world, { bytesMax: 1 })), idsOf(all).slice(0, 1));
    assert.deepEqual(await outboxOf(world, { domain: "nobody.example" }), []);
  });

  test("an outbox has a depth and a size, of each domain on its own", async (world) => {
    const sender = await world.person();
    const remote = [remoteTo(DOMAIN)];
    const narrow = { ...WIDE_LIMITS, outboxDepthMax: 2 };
    for (const wanted of ["relaying", "relaying", "queueFull"]) {
      const parts = [{ payload: randomBytes(5), recipients: [sender.deviceId] }];
      const result = await relay(world, sender, { parts, remote, limits: narrow });
      assert.deepEqual([result.recipients, result.remote], [["ok"], [wanted]]);
    }
    const small = { ...WIDE_LIMITS, outboxBytesMax: 250 };
    const both = await relay(world, sender, {
      remote: [remoteTo("other.example"), ...remote],
      limits: small,
    });
    assert.deepEqual(both.remote, ["relaying", "queueFull"]);
    assert.deepEqual((await relay(world, sender, { remote: [remoteTo(DOMAIN, 50)], limits: small })).remote, [
      "relaying",
    ]);
    assert.equal((await outboxOf(world)).length, 3);
  });

  test("a replay answers with the first statuses and relays nothing again", async (world) => {
    const sender = await world.person();
    const limits = { ...WIDE_LIMITS, outboxBytesMax: 150 };
    const fields = { remote: [remoteTo(DOMAIN), remoteTo("other.example", 200)], limits };
    const message = world.message(sender, [sender], fields);
    const first = await world.store.enqueue(message);
    await world.reopen();
    const second = await world.store.enqueue(message);
    assert.ok(first.status === "accepted" && second.status === "accepted");
    assert.deepEqual(second, { ...first, replayed: true });
    assert.deepEqual(second.remote, ["relaying", "queueFull"]);
    assert.equal((await outboxOf(world)).length, 1);
  });

  test("what is refused leaves nothing in an outbox, and remote bytes count for the day", async (world) => {
    const sender = await world.person();
    const limits = { ...WIDE_LIMITS, senderBytesPerDay: 350 };
    await relay(world, sender, { limits });
    const refused = await world.store.enqueue(
      world.message(sender, [sender], { remote: [remoteTo(DOMAIN)], limits }),
    );
    assert.equal(refused.status, "quotaExceeded");
    assert.deepEqual([(await outboxOf(world)).length, await world.entries(sender)], [1, []]);
  });

  test("settleOutbox() deletes; failures go into the sender's queue, however full", async (world) => {
    const sender = await world.person();
    await world.send(sender, [sender], { limits: { ...WIDE_LIMITS, queueDepthMax: 1 } });
    for (let i = 0; i < 3; i++) await relay(world, sender);
    const [first, second, third] = idsOf(await outboxOf(world));
    const failure = world.notice();
    const settled = [{ id: first!, failures: [] }, { id: second!, failures: [failure] }];
    await world.store.settleOutbox({ domain: DOMAIN, settled, now: world.now });
    assert.deepEqual(idsOf(await outboxOf(world)), [third]);
    const notices = (await world.entries(sender)).filter((entry) => entry.kind === "notice");
    assert.deepEqual(notices.map((entry) => entry.entryId), [failure.entryId]);
    assert.deepEqual(plain(notices[0]!.payload), plain(failure.payload));
  });

  test("settleOutbox() is idempotent and passes over other domains' ids", async (world) => {
    const sender = await world.person();
    await relay(world, sender);
    const [id] = idsOf(await outboxOf(world));
    const foreign = {
      domain: "other.example",
      settled: [{ id: id!, failures: [world.notice()] }],
      now: world.now,
    };
    await world.store.settleOutbox(foreign);
    await relay(world, sender, { remote: [remoteTo("other.example")] });
    await world.store.settleOutbox(foreign);
    assert.deepEqual(idsOf(await outboxOf(world)), [id]);
    for (const _ of ["once", "again"]) await settle(world, [id!, id!], world.notice());
    assert.equal((await world.entries(sender)).length, 1);
    assert.deepEqual((await world.store.outboxes()).map((sums) => sums.domain), ["other.example"]);
    await relay(world, sender);
    assert.ok(idsOf(await outboxOf(world))[0]! > id!);
  });

  test("an outbox outlives reopening, expiry, a restore and its senders", async (world) => {
    const [revoked, deleted] = [await world.person(), await world.person()];
    const bystander = await world.device(revoked);
    await relay(world, revoked);
    await relay(world, deleted);
    await world.store.revokeDevice(revoked.accountId, revoked.deviceId, world.notice(), world.now);
    await world.store.deleteAccount(deleted.accountId, world.now);
    const before = plain(await outboxOf(world));
    world.now += 60 * DAY_MS;
    await world.store.expireEntries(world.now, 1000);
    await world.store.expireMessageIds(world.now, 1000);
    await world.store.markRestored();
    await world.reopen();
    assert.deepEqual(plain(await outboxOf(world)), before);
    await settle(world, idsOf(before), world.notice());
    assert.deepEqual(await outboxOf(world), []);
    assert.deepEqual(await world.entries(bystander), []);
    const { outboxEntries, outboxBytes } = await world.store.counts();
    assert.deepEqual([outboxEntries, outboxBytes], [0, 0]);
  });

  test("onRelaying() tells the domains of each transaction, until it is ended", async (world) => {
    const sender = await world.person();
    const told: string[] = [];
    const end = world.store.onRelaying((domains) => told.push(...domains));
    await world.send(sender, [sender]);
    const two = [remoteTo(DOMAIN), remoteTo("other.example")];
    await relay(world, sender, { remote: two });
    await relay(world, sender, { limits: { ...WIDE_LIMITS, outboxDepthMax: 1 } });
    await world.store.counts();
    assert.deepEqual(told.sort(), ["other.example", DOMAIN]);
    end();
    await relay(world, sender);
    await world.store.counts();
    assert.equal(told.length, 2);
  });

  test("blockedPeers() are remembered", async (world) => {
    await relay(world, await world.person());
    for (const domain of [DOMAIN, "b.example", "a.example", "a.example"]) {
      await world.store.setPeerBlocked(domain, true, world.now);
    }
    await world.store.setPeerBlocked("b.example", false, world.now);
    await world.store.setPeerBlocked("c.example", false, world.now);
    await world.reopen();
    assert.deepEqual(await world.store.blockedPeers(), ["a.example", DOMAIN]);
    assert.equal((await outboxOf(world)).length, 1);
  });

  test("checkIntegrity() counts outboxes and what came from peers", async (world) => {
    const sender = await world.person();
    await relay(world, sender, { remote: [remoteTo(DOMAIN), remoteTo("other.example")] });
    await world.send(await world.person(), [sender], { origin: DOMAIN });
    await settle(world, idsOf(await outboxOf(world)));
    assert.deepEqual(await world.store.checkIntegrity(() => {}), []);
  });
}

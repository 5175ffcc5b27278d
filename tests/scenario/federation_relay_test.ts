/** Messages between servers over real QUIC: relayed, retried, refused, given up. */
import assert from "node:assert/strict";
import { fromBinary } from "@bufbuild/protobuf";
import { hex, randomBytes, utf8, utf8Text } from "../../mod/base/bytes.ts";
import {
  DeliveryFailure,
  type Entry,
  EntryKind,
  NoticeSchema,
  RecipientStatus,
} from "../../mod/protocol/qpq_pb.ts";
import { FederationWorld } from "../support/federation_world.ts";
import { newAccount, type TestClient } from "../support/test_client.ts";

const { OK, RELAYING, UNKNOWN_DOMAIN } = RecipientStatus;

/** Enqueues one payload for devices of other servers, and maybe of one's own. */
async function send(
  from: TestClient,
  to: { domain: string; devices: readonly Uint8Array[] }[],
  message: { text: string; here?: Uint8Array[]; messageId?: Uint8Array; ttlS?: number },
) {
  return await from.connection.call("enqueue", {
    messageId: message.messageId ?? randomBytes(16),
    parts: [{
      payload: utf8(message.text),
      recipients: message.here ?? [],
      remote: to.map(({ domain, devices }) => ({ domain, recipients: [...devices] })),
    }],
    ttlS: message.ttlS ?? 0,
  });
}

/** Waits for `count` entries behind `after`. */
async function receive(client: TestClient, count: number, after = 0n): Promise<Entry[]> {
  const entries: Entry[] = [];
  while (entries.length < count) {
    const fetched = await client.connection.call("fetchWait", {
      fetch: { after: entries.at(-1)?.seq ?? after },
      timeoutMs: 20_000,
    });
    assert.ok(fetched.entries.length > 0, `only ${entries.length} of ${count} came`);
    entries.push(...fetched.entries);
  }
  return entries;
}

async function failureAt(client: TestClient) {
  const [entry] = await receive(client, 1);
  assert.equal(entry!.kind, EntryKind.NOTICE);
  const { notice } = fromBinary(NoticeSchema, entry!.payload);
  assert.equal(notice.case, "deliveryFailed");
  return notice.value as Extract<typeof notice, { case: "deliveryFailed" }>["value"];
}

const textsOf = (entries: readonly Entry[]) => entries.map(({ payload }) => utf8Text(payload));

Deno.test("a message is relayed, and its sender is vouched for by the sender's server", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const { statuses } = await send(alice, [{ domain: "b.example", devices: [bob.deviceId] }], {
    text: "hello",
    here: [alice.deviceId],
  });
  assert.deepEqual(statuses, [OK, RELAYING]);
  const [entry] = await receive(bob, 1);
  assert.deepEqual([utf8Text(entry!.payload), entry!.senderDomain], ["hello", "a.example"]);
  assert.deepEqual(entry!.senderAccountId, alice.accountId);
  const [own] = await receive(alice, 1);
  assert.equal(own!.senderDomain, "");
});

Deno.test("what is for an offline server waits on disk, and arrives once and in order", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const devices = [bob.deviceId];
  await send(alice, [{ domain: "b.example", devices }], { text: "0" });
  await receive(bob, 1);
  await world.stop("b.example");
  const texts = Array.from({ length: 300 }, (_, i) => `${i + 1}`);
  for (const text of texts) await send(alice, [{ domain: "b.example", devices }], { text });
  await world.stop("a.example");
  await world.restart("a.example");
  await world.restart("b.example");
  await using again = await bob.again(world.at("b.example"));
  await world.federationAt("a.example").retry(null, "now");
  const entries = await receive(again, 300, 1n);
  assert.deepEqual(textsOf(entries), texts);
  assert.deepEqual(await world.at("a.example").server.context.store.outboxes(), []);
});

Deno.test("a recipient that is unknown or blocks is told to the sender; an unknown domain at once", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  await bob.connection.call("block", { accountId: alice.accountId });
  const messageId = randomBytes(16);
  const { statuses } = await send(alice, [
    { domain: "b.example", devices: [bob.deviceId] },
    { domain: "c.example", devices: [randomBytes(16)] },
  ], { text: "x", messageId });
  assert.deepEqual(statuses, [RELAYING, UNKNOWN_DOMAIN]);
  const failed = await failureAt(alice);
  assert.deepEqual(
    [hex(failed.messageId), failed.domain, failed.deviceIds, failed.reason],
    [hex(messageId), "b.example", [bob.deviceId], DeliveryFailure.BLOCKED],
  );
});

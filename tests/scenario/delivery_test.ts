/** The delivery methods over real QUIC: what two devices see of each other through the server. */
import assert from "node:assert/strict";
import { randomBytes, utf8, utf8Text } from "../../mod/base/bytes.ts";
import { RecipientStatus } from "../../mod/protocol/qpq_pb.ts";
import { newAccount, newDevice } from "../support/test_client.ts";
import { startTestServer } from "../support/test_server.ts";

Deno.test("enqueue, fetch, ack: a message arrives once, in order, and goes", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  for (const text of ["one", "two", "three"]) {
    const { statuses } = await alice.enqueue([bob.deviceId], { payload: utf8(text) });
    assert.deepEqual(statuses, [RecipientStatus.OK]);
  }
  const fetched = await bob.connection.call("fetch", {});
  assert.deepEqual(fetched.entries.map((entry) => [entry.seq, utf8Text(entry.payload)]), [
    [1n, "one"],
    [2n, "two"],
    [3n, "three"],
  ]);
  assert.deepEqual(fetched.entries[0]!.senderAccountId, alice.accountId);
  assert.equal(fetched.empty, true);
  const { deleted, cursor } = await bob.connection.call("ack", { through: 2n });
  assert.deepEqual([deleted, cursor!.ackedThrough, cursor!.nextSeq], [2n, 2n, 4n]);
  const rest = await bob.connection.call("fetch", {});
  assert.deepEqual(rest.entries.map((entry) => entry.seq), [3n]);
  await assert.rejects(bob.connection.call("ack", { through: 4n }), { code: "ackBeyondEnd" });
});

Deno.test("enqueue with the same message id is accepted once", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  const messageId = randomBytes(16);
  const first = await alice.enqueue([alice.deviceId], { payload: utf8("x"), messageId });
  const again = await alice.enqueue([alice.deviceId], { payload: utf8("x"), messageId });
  assert.deepEqual([first.replayed, again.replayed], [false, true]);
  assert.equal(again.acceptedAtMs, first.acceptedAtMs);
  const other = alice.enqueue([alice.deviceId], { payload: utf8("y"), messageId });
  await assert.rejects(other, { code: "idConflict" });
  assert.equal((await alice.connection.call("fetch", {})).entries.length, 1);
});

Deno.test("fetchWait returns when a message arrives", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  const waiting = bob.connection.call("fetchWait", { timeoutMs: 20_000 });
  while (server.server.context.delivery.waiters.count === 0) await bob.connection.call("ping", {});
  await alice.enqueue([bob.deviceId], { payload: utf8("hello") });
  assert.equal(utf8Text((await waiting).entries[0]!.payload), "hello");
});

Deno.test("subscribe pushes what waits and what comes, within its credit, and a newer one takes over", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  await alice.enqueue([bob.deviceId], { payload: utf8("before") });
  const pushes = bob.connection.subscribe({ after: 0n, creditBytes: 1 });
  const next = async () => (await pushes.next()).value!.entries.map((entry) => utf8Text(entry.payload));
  assert.deepEqual(await next(), []);
  assert.deepEqual(await next(), ["before"]);
  await alice.enqueue([bob.deviceId], { payload: utf8("after") });
  await bob.connection.call("ack", { through: 1n });
  assert.deepEqual(await next(), ["after"]);
  const newer = bob.connection.subscribe({ after: 2n, creditBytes: 1000 });
  await newer.next();
  await assert.rejects(pushes.next(), { code: "replaced" });
  await newer.return();
});

Deno.test("a full queue is told to the sender and counted for the recipient", async () => {
  await using server = await startTestServer({ flags: { "limits-queue-depth-max": "8" } });
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  const statuses = [];
  for (let i = 0; i < 3; i++) {
    const reply = await alice.enqueue([bob.deviceId, randomBytes(16)], { payload: utf8(`${i}`) });
    statuses.push(reply.statuses);
  }
  const { OK, QUEUE_FULL, UNKNOWN_DEVICE } = RecipientStatus;
  // A stranger may hold a quarter of the queue.
  assert.deepEqual(statuses, [[OK, UNKNOWN_DEVICE], [OK, UNKNOWN_DEVICE], [QUEUE_FULL, UNKNOWN_DEVICE]]);
  const { cursor } = await bob.connection.call("fetch", {});
  assert.deepEqual([cursor!.droppedCount, cursor!.droppedThrough], [1n, 2n]);
});

Deno.test("a blocked account's messages are refused, and accepted again after unblock", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  await bob.connection.call("block", { accountId: alice.accountId });
  const blocked = await alice.enqueue([bob.deviceId], { payload: utf8("x") });
  assert.deepEqual(blocked.statuses, [RecipientStatus.BLOCKED]);
  assert.deepEqual((await bob.connection.call("listBlocks", {})).accountIds, [alice.accountId]);
  await bob.connection.call("unblock", { accountId: alice.accountId });
  const free = await alice.enqueue([bob.deviceId], { payload: utf8("x") });
  assert.deepEqual(free.statuses, [RecipientStatus.OK]);
});

Deno.test("a restart keeps queues, sessions and devices", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using phone = await newDevice(server, "alice");
  await alice.enqueue([phone.deviceId], { payload: utf8("kept") });
  await server.stop();
  await using again = await startTestServer({ dataDir: server.dataDir });
  await using resumed = await phone.again(again);
  const { entries } = await resumed.connection.call("fetch", {});
  assert.equal(utf8Text(entries.at(-1)!.payload), "kept");
});

Deno.test("stopping answers a parked wait and tells subscribers", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using phone = await newDevice(server, "alice");
  await alice.connection.call("ack", { through: 1n }); // the notice of the new device
  const waiting = alice.connection.call("fetchWait", { timeoutMs: 20_000 });
  const pushes = phone.connection.subscribe({ after: 0n });
  await pushes.next();
  while (server.server.context.delivery.waiters.count === 0) await alice.connection.call("ping", {});
  const ended = assert.rejects(pushes.next(), { code: "shuttingDown" });
  const stopped = server.stop();
  assert.deepEqual((await waiting).entries, []);
  await ended;
  await stopped;
});

Deno.test("blobs: put, ranged get, delete; another's reference keeps the bytes", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  const bytes = randomBytes(300_000);
  const sha256 = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const put = (client: typeof alice) =>
    client.connection.putBlob({ sha256, size: BigInt(bytes.length) }, chunks(bytes));
  await put(alice);
  const read = async (offset: number, length: number) => {
    const blob = await bob.connection.getBlob({ sha256, offset: BigInt(offset), length: BigInt(length) });
    const parts = await Array.fromAsync(blob.body);
    return { size: blob.size, bytes: new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer()) };
  };
  assert.deepEqual((await read(0, 0)).bytes, bytes);
  assert.deepEqual(await read(100_000, 5), { size: 300_000, bytes: bytes.slice(100_000, 100_005) });
  await assert.rejects(read(299_999, 2), { code: "rangeInvalid" });
  await assert.rejects(bob.connection.call("deleteBlob", { sha256 }), { code: "notFound" });
  await put(bob);
  await alice.connection.call("deleteBlob", { sha256 });
  assert.deepEqual((await read(0, 10)).bytes, bytes.slice(0, 10));
  await bob.connection.call("deleteBlob", { sha256 });
  await assert.rejects(read(0, 10), { code: "blobNotFound" });
});

Deno.test("a blob whose bytes are not what was announced is not kept", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  const bytes = randomBytes(1000);
  const sha256 = randomBytes(32);
  const put = alice.connection.putBlob({ sha256, size: 1000n }, chunks(bytes));
  await assert.rejects(put, { code: "blobHashMismatch" });
  await assert.rejects(alice.connection.getBlob({ sha256 }), { code: "blobNotFound" });
});

async function* chunks(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += 50_000) yield bytes.subarray(offset, offset + 50_000);
}

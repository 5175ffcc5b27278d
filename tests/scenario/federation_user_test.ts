/** Users of other servers: their KeyPackages, keys and files; what a hostile server cannot do. */
import assert from "node:assert/strict";
import { randomBytes, sha256, utf8 } from "../../mod/base/bytes.ts";
import { systemClock } from "../../mod/base/clock.ts";
import { MLS_SUITE_X25519 } from "../../mod/base/mls_suites.ts";
import { createKeyPackages } from "../../mod/client/mls_key_packages.ts";
import { signThisDevice } from "../../mod/client/session.ts";
import { RelayOrder } from "../../mod/federation/relay_order.ts";
import { receive } from "../support/federation_messages.ts";
import { FederationWorld } from "../support/federation_world.ts";
import { newAccount, type TestClient } from "../support/test_client.ts";

const SUITE = MLS_SUITE_X25519;

/** Uploads `count` KeyPackages that name the server's domain, and a last-resort one. */
async function supply(client: TestClient, count: number, domain: string): Promise<void> {
  const { account, device } = client.own;
  await signThisDevice(client.link, client.own);
  const identity = { accountId: account.accountId, deviceId: device.deviceId, domain, key: device.key };
  const context = { identity, isTrusted: () => Promise.resolve(true), clock: systemClock };
  const make = (count: number, lastResort: boolean) =>
    createKeyPackages(context, { count, suite: SUITE, lastResort });
  const made = [...await make(count, false), ...await make(1, true)];
  const keyPackages = made.map(({ publicBytes, lastResort }) => ({ keyPackage: publicBytes, lastResort }));
  await client.connection.call("uploadKeyPackages", { keyPackages });
}

Deno.test("KeyPackages of user@domain are claimed once each; then the last-resort one answers", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  assert.equal(alice.link.hello.domain, "a.example");
  await supply(bob, 2, "b.example");
  const claim = () =>
    alice.connection.call("fetchKeyPackages", { userName: "bob", domain: "b.example", suite: SUITE });
  const claims = [await claim(), await claim(), await claim()];
  assert.deepEqual(claims.map(({ keyPackages }) => keyPackages[0]!.lastResort), [false, false, true]);
  assert.notDeepEqual(claims[0]!.keyPackages[0]!.keyPackage, claims[1]!.keyPackages[0]!.keyPackage);
  assert.deepEqual([claims[0]!.accountId, claims[0]!.userName], [bob.accountId, "bob"]);
  const account = await alice.connection.call("getAccount", {
    accountId: bob.accountId,
    domain: "b.example",
  });
  assert.deepEqual(account.accountKey, claims[0]!.accountKey);
  assert.deepEqual(account.devices.map(({ name }) => name), [""]);
});

Deno.test("unknown users and users without packages are one noKeyPackages; unknown domains are told", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using _bob = await newAccount(world.at("b.example"), "bob");
  const claim = (userName: string, domain: string) =>
    alice.connection.call("fetchKeyPackages", { userName, domain, suite: SUITE });
  await assert.rejects(claim("bob", "b.example"), { code: "noKeyPackages" });
  await assert.rejects(claim("nobody", "b.example"), { code: "noKeyPackages" });
  await assert.rejects(claim("bob", "c.example"), { code: "unknownDomain" });
  await assert.rejects(claim("bob", "C.example"), { code: "malformedRequest" });
  await world.stop("b.example");
  await assert.rejects(claim("bob", "b.example"), { code: "peerUnavailable" });
});

Deno.test("beyond its claims a peer gets the last-resort package, and a claimer is refused by its own server", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"], {
    flags: { "federation-peer-claims-per-minute": "1", "limits-claim-budget-claimer": "3" },
  });
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  await supply(bob, 5, "b.example");
  const claim = () =>
    alice.connection.call("fetchKeyPackages", { userName: "bob", domain: "b.example", suite: SUITE });
  const given = [];
  for (let i = 0; i < 3; i++) given.push((await claim()).keyPackages[0]!.lastResort);
  assert.deepEqual(given, [false, true, true]);
  await assert.rejects(claim(), { code: "rateLimited" });
});

Deno.test("a blob of another server is fetched once, verified, and served from the copy", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const bytes = randomBytes(300_000);
  const hash = await sha256(bytes);
  await bob.connection.putBlob({ sha256: hash, size: 300_000n }, ReadableStream.from([bytes]));
  const read = async (offset: number, length: number) => {
    const range = { offset: BigInt(offset), length: BigInt(length), domain: "b.example" };
    const blob = await alice.connection.getBlob({ sha256: hash, ...range });
    const parts = await Array.fromAsync(blob.body);
    return new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
  };
  const together = await Promise.all([read(0, 0), read(100_000, 5), read(299_999, 1)]);
  assert.deepEqual(together, [bytes, bytes.slice(100_000, 100_005), bytes.slice(299_999)]);
  await world.stop("b.example");
  assert.deepEqual(await read(7, 9), bytes.slice(7, 16));
  const missing = { sha256: randomBytes(32), domain: "b.example" };
  await assert.rejects(alice.connection.getBlob(missing), { code: "peerUnavailable" });
});

Deno.test("a blob that the cache has no room for is refused; older copies go for newer ones", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"], {
    flags: { "federation-blob-cache-bytes": "1MiB" },
  });
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const put = async (size: number) => {
    const bytes = randomBytes(size);
    const hash = await sha256(bytes);
    await bob.connection.putBlob({ sha256: hash, size: BigInt(size) }, ReadableStream.from([bytes]));
    return hash;
  };
  const get = async (hash: Uint8Array) => {
    const blob = await alice.connection.getBlob({ sha256: hash, domain: "b.example" });
    let length = 0;
    for await (const part of blob.body) length += part.length;
    return length;
  };
  await assert.rejects(get(await put(1_200_000)), { code: "overloaded" });
  const [first, second] = [await put(600_000), await put(600_000)];
  assert.deepEqual([await get(first), await get(second)], [600_000, 600_000]);
  assert.equal(await get(first), 600_000);
});

Deno.test("a server speaks for its own users only: whatever it claims, entries carry its domain", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example", "c.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  // c.example relays a message in the name of alice of a.example.
  const { relay } = world.at("b.example").server.context.federation!;
  const message = {
    messageId: randomBytes(16),
    senderAccountId: alice.accountId,
    senderDeviceId: alice.deviceId,
    parts: [{ payload: utf8("from alice, honestly"), recipients: [bob.deviceId], remote: [] }],
    ttlS: 60,
    acceptedAtMs: 0n,
  };
  const peer = {
    domain: "c.example",
    gone: new AbortController().signal,
    order: new RelayOrder(systemClock),
  };
  const request = { messages: [message] } as unknown as Parameters<typeof relay.relay>[1];
  const [first] = (await relay.relay(peer, request)).results!;
  const [replay] = (await relay.relay(peer, request)).results!;
  assert.deepEqual([first!.code, first!.replayed, replay!.code, replay!.replayed], [0, false, 0, true]);
  const [entry, ...more] = await receive(bob, 1);
  assert.deepEqual([entry!.senderDomain, more.length], ["c.example", 0]);
  const guarded = { ...message, messageId: randomBytes(16), senderAccountId: randomBytes(3) };
  const bad = { messages: [guarded, { ...message, messageId: randomBytes(16) }] };
  const results = (await relay.relay(peer, bad as unknown as typeof request)).results!;
  assert.deepEqual(results.map(({ code }) => code), [2, 0]);
});

Deno.test("a server that serves other bytes than the hash's, or too few, gives nobody anything", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  const { relay } = world.at("b.example").server.context.federation!;
  const serve = (size: number, bytes: Uint8Array) => {
    relay.getBlob = () =>
      Promise.resolve({
        size,
        length: size,
        body: ReadableStream.from([bytes]) as AsyncIterable<Uint8Array>,
      });
  };
  const get = () => alice.connection.getBlob({ sha256: randomBytes(32), domain: "b.example" });
  serve(1000, randomBytes(1000));
  await assert.rejects(get(), { code: "blobHashMismatch" });
  serve(1000, randomBytes(500));
  await assert.rejects(get(), { code: "peerUnavailable" });
  serve(200 << 20, randomBytes(1));
  await assert.rejects(get(), { code: "blobTooLarge" });
});

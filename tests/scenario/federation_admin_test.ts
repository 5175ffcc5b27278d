/** What operators do and see: status, retry, block, peers, metrics, a reload of the list, rotation across two servers. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { randomBytes } from "../../mod/base/bytes.ts";
import { configureLogs } from "../../mod/base/log.ts";
import { callControl, type JsonObject } from "../../mod/admin/control.ts";
import { DeliveryFailure, RecipientStatus } from "../../mod/protocol/qpq_pb.ts";
import { makeCa, makeLeaf } from "../../mod/transport/tls.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { failureOf, receive, send, textsOf } from "../support/federation_messages.ts";
import { FederationWorld } from "../support/federation_world.ts";
import { newAccount } from "../support/test_client.ts";

async function control(world: FederationWorld, name: string, input: JsonObject = {}): Promise<JsonObject> {
  return await callControl(world.at("a.example").dataDir, { name, input }) as JsonObject;
}

Deno.test("a blocked peer gets nothing more; unblocked, it gets what waited; --drop tells the senders", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const to = [{ domain: "b.example", devices: [bob.deviceId] }];
  await world.stop("b.example");
  await send(alice, to, { text: "1" });
  const would = await control(world, "federation block", { domain: "b.example", dryRun: true });
  assert.deepEqual(would, { domain: "b.example", waiting: 1, dropped: 0, dryRun: true });
  await control(world, "federation block", { domain: "b.example" });
  const { statuses } = await send(alice, to, { text: "2" });
  assert.deepEqual(statuses, [RecipientStatus.UNKNOWN_DOMAIN]);
  await world.restart("b.example");
  await using again = await bob.again(world.at("b.example"));
  const { blocked, outboxes } = await control(world, "federation status");
  assert.deepEqual([blocked, (outboxes as JsonObject[]).length], [["b.example"], 1]);
  await control(world, "federation unblock", { domain: "b.example" });
  assert.deepEqual(textsOf(await receive(again, 1)), ["1"]);
  await world.stop("b.example");
  await send(alice, to, { text: "3" });
  const dropped = await control(world, "federation block", { domain: "b.example", drop: true });
  assert.equal(dropped["dropped"], 1);
  const [notice] = await receive(alice, 1);
  assert.equal(failureOf(notice!).reason, DeliveryFailure.PEER_REMOVED);
});

Deno.test("federation peers shows who is listed, blocked and linked; retry names what waits", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example", "c.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  await send(alice, [{ domain: "b.example", devices: [bob.deviceId] }], { text: "1" });
  await receive(bob, 1);
  await control(world, "federation block", { domain: "c.example" });
  const { peers } = await control(world, "federation peers");
  const shown = (peers as JsonObject[]).map((
    { domain, listed, blocked, link },
  ) => [domain, listed, blocked, link]);
  assert.deepEqual(shown, [["b.example", true, false, true], ["c.example", true, true, false]]);
  assert.deepEqual(await control(world, "federation retry"), { dryRun: false, retried: [] });
  await assert.rejects(control(world, "federation unblock", { domain: "b.example" }), /not blocked/);
  await assert.rejects(control(world, "federation block", { domain: "not a domain" }), /Not a domain/);
});

Deno.test("metrics tell of each listed peer, and of all others together", async () => {
  await using world = await FederationWorld.start(["a.example", "b.example"]);
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const to = [{ domain: "b.example", devices: [bob.deviceId] }];
  await send(alice, to, { text: "1" });
  await receive(bob, 1);
  await world.outboxesHold("a.example", {});
  await world.stop("b.example");
  await send(alice, to, { text: "2" });
  const { body } = await world.at("a.example").server.context.metrics.expose();
  const value = (series: string) =>
    Number(body.split("\n").find((line) => line.startsWith(`${series} `))?.split(" ")[1]);
  assert.equal(value('qpq_federation_relayed_total{peer="b.example",direction="out"}'), 1);
  assert.equal(value('qpq_federation_outbox_entries{peer="b.example"}'), 1);
  assert.equal(value('qpq_federation_outbox_entries{peer="other"}'), 0);
  assert.equal(value('qpq_federation_relay_seconds_count{peer="b.example"}'), 1);
  assert.equal(value('qpq_federation_failed_total{peer="b.example",reason="expired"}'), 0);
});

Deno.test("a message that cannot be delivered in time is given up, and its sender is told", async () => {
  const clock = new FakeClock({ now: Date.now() });
  await using world = await FederationWorld.start(["a.example", "b.example"], {
    clock,
    flags: { "federation-outbox-ttl": "1h" },
  });
  await using alice = await newAccount(world.at("a.example"), "alice");
  await world.stop("b.example");
  const nobody = randomBytes(16);
  const messageId = randomBytes(16);
  await send(alice, [{ domain: "b.example", devices: [nobody] }], { text: "late", messageId });
  const { store } = world.at("a.example").server.context;
  for (let hours = 0; hours < 5 && (await store.outboxes()).length > 0; hours++) {
    await clock.advance(3_600_000);
    // Its own failures to connect are real: they come when they come.
    await world.federationAt("a.example").retry(null, "now");
    await world.federationAt("a.example").status();
  }
  const { entries } = await alice.connection.call("fetch", {});
  const failed = failureOf(entries[0]!);
  assert.deepEqual([failed.messageId, failed.deviceIds, failed.reason], [
    messageId,
    [nobody],
    DeliveryFailure.EXPIRED,
  ]);
});

Deno.test("a peer that leaves the list gets nothing more; what waits is kept for its return", async () => {
  let isListed = true;
  await using world = await FederationWorld.start(["a.example", "b.example", "c.example"], {
    addressFor: (from, to, real) => from === "a.example" && to === "b.example" && !isListed ? null : real,
  });
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const to = [{ domain: "b.example", devices: [bob.deviceId] }];
  await world.stop("b.example");
  await send(alice, to, { text: "kept" });
  isListed = false;
  await world.introduce();
  assert.deepEqual((await send(alice, to, { text: "no" })).statuses, [RecipientStatus.UNKNOWN_DOMAIN]);
  isListed = true;
  await world.restart("b.example");
  await using again = await bob.again(world.at("b.example"));
  assert.deepEqual(textsOf(await receive(again, 1)), ["kept"]);
});

async function rotatesUnnoticed(engine: "deno" | "quiche"): Promise<void> {
  await using world = await FederationWorld.start(["a.example", "b.example"], {
    flags: { "federation-engine": engine },
  });
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  const to = [{ domain: "b.example", devices: [bob.deviceId] }];
  const newCa = await makeCa({ commonName: "Next federation CA", now: Date.now() });
  const bothCas = world.ca.certificatePem + newCa.certificatePem;
  const rotate = async (domain: string, ca: typeof newCa, caPem: string) => {
    const leaf = await makeLeaf({ ca, names: [domain], now: Date.now(), mutual: true });
    const input = {
      certificatePem: leaf.certificatePem,
      privateKeyPem: leaf.privateKeyPem,
      caPem,
    };
    await callControl(world.at(domain).dataDir, { name: "rotate federation", input });
  };
  let sent = 0;
  const talk = async () => {
    await send(alice, to, { text: `${++sent}` });
    const [entry] = await receive(bob, 1, BigInt(sent - 1));
    assert.deepEqual(textsOf([entry!]), [`${sent}`]);
  };
  await talk();
  for (const domain of ["a.example", "b.example"]) {
    await rotate(domain, world.ca, bothCas);
    await talk();
  }
  for (const domain of ["a.example", "b.example"]) {
    await rotate(domain, newCa, bothCas);
    await talk();
  }
  for (const domain of ["a.example", "b.example"]) {
    await rotate(domain, newCa, newCa.certificatePem);
    await talk();
  }
}

for (const engine of ["deno", "quiche"] as const) {
  Deno.test(`${engine}: certificate and CA set change on two running servers, and no message is lost or late`, () =>
    rotatesUnnoticed(engine));
}

Deno.test("engine quiche refuses a certificate that only servers may show", async () => {
  await using world = await FederationWorld.start(["a.example"], {
    flags: { "federation-engine": "quiche" },
  });
  const leaf = await makeLeaf({ ca: world.ca, names: ["a.example"], now: Date.now() });
  const input = { ...leaf, caPem: world.ca.certificatePem };
  await assert.rejects(
    callControl(world.at("a.example").dataDir, { name: "rotate federation", input }),
    /Nothing was changed: .* extendedKeyUsage=serverAuth,clientAuth/,
  );
});

/** Puts a certificate for servers only in place, as no rotation would. */
async function installServersOnly(world: FederationWorld): Promise<void> {
  const folder = join(world.at("a.example").dataDir, "tls", "federation");
  const leaf = await makeLeaf({ ca: world.ca, names: ["a.example"], now: Date.now() });
  await Deno.mkdir(join(folder, "v2"));
  await Deno.writeTextFile(join(folder, "v2", "cert.pem"), leaf.certificatePem);
  await Deno.writeTextFile(join(folder, "v2", "key.pem"), leaf.privateKeyPem, { mode: 0o600 });
  await Deno.writeTextFile(join(folder, "v2", "ca.pem"), world.ca.certificatePem);
  await Deno.writeTextFile(join(folder, "current"), "v2\n");
}

Deno.test("engine quiche does not start with a certificate that only servers may show; engine deno does", async () => {
  for (const engine of ["quiche", "deno"]) {
    await using world = await FederationWorld.start(["a.example"], {
      flags: { "federation-engine": engine },
    });
    await world.stop("a.example");
    await installServersOnly(world);
    if (engine === "deno") await world.restart("a.example");
    else {
      await assert.rejects(
        world.restart("a.example"),
        /federation\.engine is quiche.*extendedKeyUsage=serverAuth,clientAuth/,
      );
    }
  }
});

Deno.test("a running server of engine quiche keeps its certificate when the new one is for servers only", async () => {
  const told = Promise.withResolvers<string>();
  const write = (line: string) => line.includes("the old one stays") && told.resolve(JSON.parse(line).msg);
  configureLogs({ filter: "error", format: "json", write });
  await using world = await FederationWorld.start(["a.example"], {
    flags: { "federation-engine": "quiche" },
  });
  await installServersOnly(world);
  assert.match(await told.promise, /federation\.engine is quiche.*extendedKeyUsage=serverAuth,clientAuth/);
});

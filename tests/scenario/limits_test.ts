/** Limits as clients meet them: refusals with a time to come back, counted, and logged once with a short address. */
import assert from "node:assert/strict";
import { fromBinary } from "@bufbuild/protobuf";
import * as opaque from "@serenity-kit/opaque";
import { fromBase64url, randomBytes, utf8 } from "../../mod/base/bytes.ts";
import { systemClock } from "../../mod/base/clock.ts";
import { configureLogs, stopLogs } from "../../mod/base/log.ts";
import { MLS_SUITE_X25519 } from "../../mod/base/mls_suites.ts";
import { createKeyPackages } from "../../mod/client/mls_key_packages.ts";
import { login, makeDevice, register } from "../../mod/client/session.ts";
import { CLOSE_CODES } from "../../mod/protocol/close_codes.ts";
import { ErrorResponseSchema, RecipientStatus } from "../../mod/protocol/qpq_pb.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { limitHits as hits } from "../support/limit_hits.ts";
import { RawStream, requestFrame } from "../support/raw_stream.ts";
import {
  connectTo,
  newAccount,
  newDevice,
  PASSWORD,
  STRETCHED,
  type TestClient,
} from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";

/** Lines of the log while `work` runs. */
async function logged(work: () => Promise<unknown>): Promise<Record<string, unknown>[]> {
  const lines: Record<string, unknown>[] = [];
  configureLogs({ filter: "warn", format: "json", write: (line) => lines.push(JSON.parse(line)) });
  try {
    await work();
  } finally {
    stopLogs();
  }
  return lines;
}

/** A connection whose fate is known: "open" after an answered Hello, or the code it was closed with. */
async function knock(server: TestServer): Promise<{ raw: RawStream; fate: "open" | number }> {
  const raw = await RawStream.open(server);
  const hello = raw.write(requestFrame(1, "hello", { accessToken: server.accessToken }))
    .then(() => raw.reply());
  const answered = hello.then(() => "open" as const, async () => (await raw.connection.closed).code);
  return { raw, fate: await answered };
}

Deno.test("an address that connects too often is refused, logged once a minute with a short address", async () => {
  const clock = new FakeClock({ now: Date.now() });
  await using server = await startTestServer({ clock, flags: { "limits-connection-rate": "2" } });
  const knocks: RawStream[] = [];
  const fates: unknown[] = [];
  const knockOnce = async () => {
    const { raw, fate } = await knock(server);
    knocks.push(raw);
    fates.push(fate);
  };
  const lines = await logged(async () => {
    for (let i = 0; i < 5; i++) await knockOnce();
    await clock.advance(61_000);
    for (let i = 0; i < 3; i++) await knockOnce();
  });
  const { rateLimited } = CLOSE_CODES;
  assert.deepEqual(fates, [
    ...["open", "open", rateLimited, rateLimited, rateLimited],
    ...["open", "open", rateLimited],
  ]);
  assert.deepEqual(await hits(server), { total: 4, connectionRate: 4 });
  const told = lines.filter((line) => line.msg === "connection rate limit exceeded");
  assert.deepEqual(told.map(({ level, address, limit }) => [level, address, limit]), [
    ["warn", "127.0.0.0/24", "connectionRate"],
    ["warn", "127.0.0.0/24", "connectionRate"],
  ]);
  for (const raw of knocks) await raw[Symbol.asyncDispose]();
});

Deno.test("an address holds so many connections, and one more when one has gone", async () => {
  await using server = await startTestServer({ flags: { "limits-connections-per-address": "2" } });
  const first = await knock(server);
  const second = await knock(server);
  const third = await knock(server);
  assert.deepEqual([first.fate, second.fate, third.fate], ["open", "open", CLOSE_CODES.rateLimited]);
  assert.deepEqual(await hits(server), { total: 1, connectionsPerAddress: 1 });
  await first.raw[Symbol.asyncDispose]();
  while (server.server.context.registry.count > 1) await second.raw.connection.openStream();
  const fourth = await knock(server);
  assert.equal(fourth.fate, "open");
  for (const { raw } of [second, third, fourth]) await raw[Symbol.asyncDispose]();
});

Deno.test("a server that is full says so to whoever comes", async () => {
  await using server = await startTestServer({ flags: { "limits-connections-max": "1" } });
  const [first, second] = [await knock(server), await knock(server)];
  assert.deepEqual([first.fate, second.fate], ["open", CLOSE_CODES.overloaded]);
  for (const { raw } of [first, second]) await raw[Symbol.asyncDispose]();
});

Deno.test("with shared addresses nothing is refused by address", async () => {
  const tight = ["connection-rate", "connections-per-address", "hello-rate", "registration-rate"];
  const flags = Object.fromEntries(tight.map((name) => [`limits-${name}`, "1"]));
  await using server = await startTestServer({ flags: { ...flags, "limits-shared-addresses": "true" } });
  await using _alice = await newAccount(server, "alice");
  await using _bob = await newAccount(server, "bob");
  assert.deepEqual(await hits(server), {});
});

Deno.test("Hello and registration have a rate by address, with the time to come back", async () => {
  const clock = new FakeClock({ now: Date.now() });
  const flags = { "limits-hello-rate": "6", "limits-registration-rate": "1" };
  await using server = await startTestServer({ clock, flags });
  await using raw = await RawStream.open(server);
  for (let i = 1; i <= 6; i++) await raw.write(requestFrame(i, "hello", { accessToken: "wrong" }));
  assert.deepEqual(new Set(Object.values(await raw.outcomes(6))), new Set(["invalidToken"]));
  await raw.write(requestFrame(7, "hello", { accessToken: server.accessToken }));
  const refused = await raw.reply();
  assert.equal(refused.outcome, "rateLimited");
  const { retryAfterMs } = fromBinary(ErrorResponseSchema, refused.frame.body);
  assert.ok(retryAfterMs > 0 && retryAfterMs <= 10_000, `${retryAfterMs}`);
  await clock.advance(retryAfterMs - 1);
  await raw.write(requestFrame(8, "hello", { accessToken: server.accessToken }));
  assert.equal((await raw.reply()).outcome, "rateLimited");
  await clock.advance(1);
  await raw.write(requestFrame(9, "hello", { accessToken: server.accessToken }));
  assert.equal((await raw.reply()).outcome, "ok");

  await clock.advance(60_000);
  const link = await connectTo(server);
  await register(link, { userName: "alice", password: PASSWORD });
  await assert.rejects(register(link, { userName: "bob", password: PASSWORD }), { code: "rateLimited" });
  await link.connection[Symbol.asyncDispose]();
  assert.deepEqual(await hits(server), { total: 3, helloRate: 2, registrationRate: 1 });
});

Deno.test("wrong passwords use up an account's logins from an address; right ones cost nothing", async () => {
  await using server = await startTestServer({ flags: { "limits-login-rate": "3" } });
  await using _alice = await newAccount(server, "alice", STRETCHED);
  await using _bob = await newAccount(server, "bob");
  for (let i = 0; i < 5; i++) await (await newDevice(server, "alice", STRETCHED))[Symbol.asyncDispose]();
  assert.deepEqual(await hits(server), {});
  const link = await connectTo(server);
  const tryPassword = async (password: string) => {
    const device = await makeDevice("test");
    return await login(link, { userName: "alice", password, device }).then(() => "ok", (error) => error.code);
  };
  const outcomes = [];
  for (let i = 0; i < 4; i++) outcomes.push(await tryPassword("wrong"));
  assert.deepEqual(outcomes, ["loginFailed", "loginFailed", "loginFailed", "rateLimited"]);
  assert.equal(await tryPassword(PASSWORD), "rateLimited");
  await (await newDevice(server, "bob"))[Symbol.asyncDispose]();
  assert.deepEqual(await hits(server), { total: 2, loginRate: 2 });
  await link.connection[Symbol.asyncDispose]();
});

Deno.test("beyond the account-wide rate a login is slowed and not refused, and Resume is not touched", async () => {
  const flags = { "limits-login-rate-account": "1", "limits-login-rate": "100" };
  const clock = new FakeClock({ now: Date.now() });
  await using server = await startTestServer({ clock, flags });
  await using alice = await newAccount(server, "alice");
  await opaque.ready;
  await using raw = await RawStream.afterHello(server);
  const start = () => {
    const ke1 = fromBase64url(opaque.client.startLogin({ password: "x" }).startLoginRequest);
    return raw.write(requestFrame(2, "loginStart", { userName: "alice", suiteIds: [1], ke1 }));
  };
  await start();
  assert.equal((await raw.reply()).outcome, "ok");
  await start();
  while (!(await hits(server)).loginRateAccount);
  await using again = await alice.again(server);
  await again.connection.call("ping", {});
  let answered = false;
  const reply = raw.reply().then((one) => {
    answered = true;
    return one.outcome;
  });
  await again.connection.call("ping", {});
  assert.equal(answered, false);
  await clock.advance(2_000);
  assert.equal(await reply, "ok");
});

Deno.test("an account's requests have a rate, and come back after the time that is told", async () => {
  const clock = new FakeClock({ now: Date.now() });
  const flags = { "limits-request-rate": "1", "limits-request-burst": "10" };
  await using server = await startTestServer({ clock, flags });
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  const outcomes = await Promise.all(
    Array.from({ length: 15 }, () => alice.connection.call("ping", {}).then(() => null, (error) => error)),
  );
  const refused = outcomes.filter((error) => error !== null);
  assert.ok(refused.length >= 5 && refused.every((error) => error.code === "rateLimited"));
  const { retryAfterMs } = refused.at(-1).details;
  assert.ok(retryAfterMs > 0 && retryAfterMs <= 1_000, `${retryAfterMs}`);
  await bob.connection.call("ping", {});
  await clock.advance(retryAfterMs);
  await alice.connection.call("ping", {});
});

async function uploadKeyPackages(client: TestClient): Promise<void> {
  const { account, device } = client.own;
  const identity = { accountId: account.accountId, deviceId: device.deviceId, domain: "", key: device.key };
  const context = { identity, isTrusted: () => Promise.resolve(true), clock: systemClock };
  const make = (count: number, lastResort: boolean) =>
    createKeyPackages(context, { count, suite: MLS_SUITE_X25519, lastResort });
  const made = [...await make(5, false), ...await make(1, true)];
  const keyPackages = made.map(({ publicBytes, lastResort }) => ({ keyPackage: publicBytes, lastResort }));
  await client.connection.call("uploadKeyPackages", { keyPackages });
}

Deno.test("beyond a claim budget the last-resort package answers, and the supply is spared", async () => {
  for (const limit of ["claim-rate", "claim-budget-target", "claim-budget-claimer"]) {
    await using server = await startTestServer({ flags: { [`limits-${limit}`]: "2" } });
    await using alice = await newAccount(server, "alice");
    await using bob = await newAccount(server, "bob");
    await uploadKeyPackages(alice);
    const claims = [];
    // By name and by id: it is one account with one budget.
    const byName = { userName: "alice", suite: MLS_SUITE_X25519 };
    const byId = { accountId: alice.accountId, suite: MLS_SUITE_X25519 };
    for (const request of [byName, byId, byId, byName]) {
      const { keyPackages } = await bob.connection.call("fetchKeyPackages", request);
      claims.push(keyPackages.map(({ lastResort }) => lastResort));
    }
    assert.deepEqual(claims, [[false], [false], [true], [true]], limit);
    const { counts } = await alice.connection.call("countKeyPackages", {});
    assert.deepEqual(counts.map(({ count }) => count), [3], limit);
    assert.equal((await hits(server)).total, 2, limit);
  }
});

Deno.test("a bound on handshakes in a second refuses the rest, and they can come back", async () => {
  await using server = await startTestServer({ flags: { "limits-handshake-rate": "3" } });
  const attempts = await Promise.allSettled(Array.from({ length: 12 }, () => RawStream.open(server)));
  const open = attempts.filter((one) => one.status === "fulfilled").map((one) => one.value);
  assert.ok(open.length >= 3 && open.length < 12, `${open.length}`);
  const { body } = await server.server.context.metrics.expose();
  const refused = Number(/^qpq_handshake_failures_total\{kind="refused"\} (\d+)$/m.exec(body)![1]);
  assert.equal(refused, 12 - open.length);
  for (const raw of open) await raw[Symbol.asyncDispose]();
});

Deno.test("a sender's daily bytes are bounded, with the time to come back", async () => {
  await using server = await startTestServer({ flags: { "limits-sender-bytes-per-day": "1MiB" } });
  await using alice = await newAccount(server, "alice");
  const payload = randomBytes(600_000);
  await alice.enqueue([alice.deviceId], { payload });
  const again = alice.enqueue([alice.deviceId], { payload });
  const refusal = await again.then(() => assert.fail("it was accepted"), (error) => error);
  assert.equal(refusal.code, "quotaExceeded");
  assert.ok(refusal.details.retryAfterMs > 0 && refusal.details.retryAfterMs <= 86_400_000);
  assert.deepEqual(await hits(server), { total: 1, senderBytesPerDay: 1 });
  await alice.enqueue([alice.deviceId], { payload: utf8("small") });
});

Deno.test("a hostile sender fills its share of a queue and no more, is seen, and keeps nobody out", async () => {
  await using server = await startTestServer({ flags: { "limits-queue-depth-max": "40" } });
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  await using mallory = await newAccount(server, "mallory");
  const statuses: RecipientStatus[] = [];
  for (let i = 0; i < 15; i++) {
    statuses.push(...(await mallory.enqueue([bob.deviceId], { payload: utf8("spam") })).statuses);
  }
  const { OK, QUEUE_FULL, BLOCKED } = RecipientStatus;
  assert.deepEqual(statuses, [...new Array(10).fill(OK), ...new Array(5).fill(QUEUE_FULL)]);
  assert.deepEqual(await hits(server), { total: 5, queue: 5 });
  const send = async (from: TestClient) =>
    (await from.enqueue([bob.deviceId], { payload: utf8("hello") })).statuses;
  assert.deepEqual(await send(alice), [OK]);
  await bob.connection.call("block", { accountId: mallory.accountId });
  assert.deepEqual(await send(mallory), [BLOCKED]);
});

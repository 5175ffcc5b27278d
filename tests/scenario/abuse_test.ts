/** Clients that vanish, stall, hoard or race: the server gives back what they held and goes on for the others. */
import assert from "node:assert/strict";
import { randomBytes, sha256, utf8 } from "../../mod/base/bytes.ts";
import { CLOSE_CODES } from "../../mod/protocol/close_codes.ts";
import { METHODS } from "../../mod/protocol/methods.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { deadlinesMissed, limitHits } from "../support/limit_hits.ts";
import { RawStream, requestFrame } from "../support/raw_stream.ts";
import {
  connectTo,
  newAccount,
  newDevice,
  PASSWORD,
  STRETCHED,
  type TestClient,
} from "../support/test_client.ts";
import { login, makeDevice } from "../../mod/client/session.ts";
import { startTestServer, type TestServer, type TestServerOptions } from "../support/test_server.ts";

/** A clock of the test with the right date, which certificates need. */
function clockOfNow(): FakeClock {
  return new FakeClock({ now: Date.now() });
}

/** A server whose clients may ask as often as `until` does. */
function startServer(options: TestServerOptions = {}): Promise<TestServer> {
  const often = { "limits-request-rate": "1000000", "limits-request-burst": "10000000" };
  return startTestServer({ ...options, flags: { ...often, ...options.flags } });
}

/** Waits for something that comes by itself, without sleeping: `client` goes back and forth meanwhile. */
async function until(client: TestClient, done: () => boolean): Promise<void> {
  while (!done()) await client.connection.call("ping", {});
}

/** Nothing of those who have gone is held: only `client` is there, with nothing in flight. */
async function assertOnly(server: TestServer, client: TestClient): Promise<void> {
  const { registry, delivery, memory, requestsInFlight } = server.server.context;
  await until(client, () => registry.count === 1);
  await until(client, () => delivery.waiters.count === 0 && delivery.subscriptionCount === 0);
  await requestsInFlight.idle();
  await until(client, () => memory.used === 0);
  assert.equal(registry.loggedInCount, 1);
  await client.enqueue([client.deviceId], { payload: utf8("still here") });
}

/** The header of an Enqueue of 4 MiB, and `bytes` of its body. */
function beginOfEnqueue(bytes: number): Uint8Array {
  const frame = new Uint8Array(10 + bytes);
  const view = new DataView(frame.buffer);
  view.setUint32(0, 6 + (4 << 20));
  view.setUint32(4, 1);
  view.setUint16(8, METHODS.enqueue.number);
  return frame;
}

Deno.test("a connection without Hello is closed after 15 s, without a login after the login deadline", async () => {
  const clock = clockOfNow();
  await using server = await startServer({ clock });
  await using alice = await newAccount(server, "alice");
  await using silent = await RawStream.open(server);
  await using talker = await RawStream.open(server);
  for (let i = 0; i < 3; i++) await (await talker.another()).write(Uint8Array.of(0));
  await using guest = await RawStream.afterHello(server);
  await until(alice, () => server.server.context.registry.count === 4);
  await clock.advance(15_000);
  const { loginTimeout } = CLOSE_CODES;
  assert.equal((await silent.connection.closed).code, loginTimeout);
  assert.equal((await talker.connection.closed).code, loginTimeout);
  await until(alice, () => server.server.context.registry.count === 2);
  await clock.advance(45_000);
  assert.equal((await guest.connection.closed).code, loginTimeout);
  assert.deepEqual(await deadlinesMissed(server), { hello: 2, login: 1 });
  await assertOnly(server, alice);
});

Deno.test("half a frame holds what came of it, and has two minutes to become whole", async () => {
  const clock = clockOfNow();
  await using server = await startServer({ clock });
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  const raw = await bob.rawStream();
  await raw.write(beginOfEnqueue(100_000));
  await until(alice, () => server.server.context.memory.used >= 100_000);
  assert.ok(server.server.context.memory.used < 300_000, `${server.server.context.memory.used}`);
  await clock.advance(119_000);
  await raw.write(new Uint8Array(1));
  await clock.advance(1_000);
  assert.equal((await bob.connection.closed).code, CLOSE_CODES.protocolError);
  assert.deepEqual(await deadlinesMissed(server), { frame: 1 });
  await assertOnly(server, alice);
});

Deno.test("a frame that becomes whole in time leaves no deadline behind, on a stream of its own either", async () => {
  const clock = clockOfNow();
  await using server = await startServer({ clock });
  await using alice = await newAccount(server, "alice");
  for (const method of ["ping", "subscribe"] as const) {
    const raw = await alice.rawStream();
    const frame = requestFrame(1, method, {});
    await raw.write(frame.subarray(0, 5));
    await until(alice, () => server.server.context.memory.used > 0);
    await raw.write(frame.subarray(5));
    assert.equal((await raw.reply()).outcome, "ok");
  }
  await clock.advance(130_000);
  await alice.connection.call("ping", {});
});

Deno.test("half frames beyond the memory bound end their connection, and the others are served", async () => {
  await using server = await startServer();
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  const { memory } = server.server.context;
  memory.setMax(1 << 20);
  const first = await bob.rawStream();
  await first.write(beginOfEnqueue(900_000));
  await until(alice, () => memory.used > 800_000);
  const second = await bob.rawStream();
  const hoarding = second.write(beginOfEnqueue(900_000));
  assert.equal((await bob.connection.closed).code, CLOSE_CODES.overloaded);
  await hoarding.catch(() => {});
  assert.deepEqual(await limitHits(server), { total: 1, memory: 1 });
  await assertOnly(server, alice);
});

Deno.test("beyond the memory bound requests are refused as overloaded, with a time to come back", async () => {
  await using server = await startServer();
  await using alice = await newAccount(server, "alice");
  const { memory } = server.server.context;
  memory.setMax(100);
  await alice.connection.call("ping", {});
  const refused = await alice.enqueue([alice.deviceId], { payload: randomBytes(1000) }).catch((error) =>
    error
  );
  assert.deepEqual([refused.code, refused.details.retryAfterMs], ["overloaded", 1000]);
  assert.deepEqual(await limitHits(server), { total: 1, memory: 1 });
  memory.setMax(1 << 20);
  await alice.enqueue([alice.deviceId], { payload: randomBytes(1000) });
});

Deno.test("clients that vanish in the middle of requests leave nothing behind", async () => {
  await using server = await startServer();
  await using alice = await newAccount(server, "alice");
  const bytes = randomBytes(300_000);
  const hash = await sha256(bytes);
  for (let round = 0; round < 5; round++) {
    await using bob = round === 0 ? await newAccount(server, "bob") : await newDevice(server, "bob");
    const raw = await bob.rawStream();
    const upload = await bob.rawStream();
    await raw.write(
      requestFrame(1, "fetchWait", { timeoutMs: 60_000 }),
      ...Array.from({ length: 20 }, (_, i) =>
        requestFrame(i + 2, "enqueue", {
          messageId: randomBytes(16),
          parts: [{ payload: randomBytes(1000), recipients: [bob.deviceId] }],
        })),
      beginOfEnqueue(1000),
    );
    await upload.write(
      requestFrame(1, "putBlob", { sha256: hash, size: 300_000n }),
      bytes.subarray(0, 150_000),
    );
    const subscription = await bob.rawStream();
    await subscription.write(requestFrame(1, "subscribe", {}));
    await subscription.reply();
    bob.link.transport.close(0, "");
    await until(alice, () => server.server.context.registry.count === 1);
  }
  await assertOnly(server, alice);
  const temporary = await Array.fromAsync(Deno.readDir(`${server.dataDir}/blobs/tmp`));
  assert.deepEqual(temporary, [], "no half upload stays");
  await alice.connection.putBlob(
    { sha256: hash, size: 300_000n },
    (async function* () {
      yield bytes;
    })(),
  );
});

Deno.test("uploads and downloads that are over give their streams back", async () => {
  await using server = await startServer({ flags: { "limits-streams-max": "4" } });
  await using alice = await newAccount(server, "alice");
  const bytes = randomBytes(1000);
  const request = { sha256: await sha256(bytes), size: 1000n };
  const put = () =>
    alice.connection.putBlob(
      request,
      (async function* () {
        yield bytes;
      })(),
    );
  const get = async () => {
    for await (const _ of (await alice.connection.getBlob(request)).body);
  };
  let over = 0;
  const all = (async () => {
    for (; over < 20; over++) await (over % 2 === 0 ? put() : get());
  })().catch(() => {}); // it ends with the connection

  // A stream that is not given back is waited for in vain; that many durable round trips are patience enough.
  for (let trips = 0; trips < 400 && over < 20; trips++) {
    await alice.enqueue([alice.deviceId], { payload: utf8("patience") });
  }
  assert.equal(over, 20);
  await all;
});

Deno.test("an upload that stands still gives its place to others", async () => {
  const clock = clockOfNow();
  await using server = await startServer({ clock, flags: { "limits-blob-uploads-max": "1" } });
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  const bytes = randomBytes(1000);
  const request = { sha256: await sha256(bytes), size: 1000n };
  const still = await bob.rawStream();
  await still.write(requestFrame(1, "putBlob", request), bytes.subarray(0, 500));
  const put = () =>
    alice.connection.putBlob(
      request,
      (async function* () {
        yield bytes;
      })(),
    ).then(() => "ok", (error) => error.code);
  await until(alice, () => [...Deno.readDirSync(`${server.dataDir}/blobs/tmp`)].length === 1);
  assert.equal(await put(), "overloaded");
  await clock.advance(30_000);
  assert.equal((await still.reply()).outcome, "malformedRequest");
  assert.deepEqual(await deadlinesMissed(server), { upload: 1 });
  assert.deepEqual(await limitHits(server), { total: 1, blobUploads: 1 });
  assert.equal(await put(), "ok");
});

Deno.test("a subscriber that never acknowledges gets its credit and no more; its queue waits for it", async () => {
  await using server = await startServer();
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  const pushes = bob.connection.subscribe({ after: 0n, creditBytes: 3000 });
  await pushes.next();
  for (let i = 0; i < 10; i++) await alice.enqueue([bob.deviceId], { payload: randomBytes(1000) });
  const seen: bigint[] = [];
  while (seen.length < 3) seen.push(...(await pushes.next()).value!.entries.map(({ seq }) => seq));
  assert.deepEqual(seen, [1n, 2n, 3n]);
  const next = pushes.next();
  await alice.enqueue([bob.deviceId], { payload: utf8("one more") });
  await bob.connection.call("ack", { through: 1n });
  assert.deepEqual((await next).value!.entries.map(({ seq }) => seq), [4n]);
  await pushes.return();
});

Deno.test("requests in flight at a Logout are answered, nothing is begun after it, and the connection ends", async () => {
  await using server = await startServer();
  await using alice = await newAccount(server, "alice");
  const raw = await alice.rawStream();
  await raw.write(
    requestFrame(1, "enqueue", {
      messageId: randomBytes(16),
      parts: [{ payload: utf8("x"), recipients: [alice.deviceId] }],
    }),
    requestFrame(2, "logout", {}),
  );
  assert.deepEqual(await raw.outcomes(2), { 1: "ok", 2: "ok" });
  await raw.write(requestFrame(3, "fetch", {}));
  const after = await raw.reply().then(({ outcome }) => outcome, () => "closed");
  assert.ok(after === "sessionExpired" || after === "closed", after);
  assert.equal((await alice.connection.closed).code, CLOSE_CODES.sessionEnded);
  await assert.rejects(alice.again(server), { code: "sessionExpired" });
});

Deno.test("a login that is finished when its client has gone counts as nobody's connection", async () => {
  await using server = await startServer();
  await using alice = await newAccount(server, "alice", STRETCHED);
  const { store, registry } = server.server.context;
  const { createSession } = store;
  const asked = Promise.withResolvers<void>();
  const gone = Promise.withResolvers<void>();
  store.createSession = async (session) => {
    asked.resolve();
    await gone.promise;
    return await createSession(session);
  };
  const link = await connectTo(server);
  const device = await makeDevice("phone");
  const lost = login(link, { userName: "alice", password: PASSWORD, device }).catch((error) => error);
  await asked.promise;
  link.transport.close(0, "");
  await lost;
  await until(alice, () => registry.count === 1);
  gone.resolve();
  store.createSession = createSession;
  await assertOnly(server, alice);
});

Deno.test("a device that is revoked while it resumes is not let in", async () => {
  await using server = await startServer();
  await using alice = await newAccount(server, "alice");
  await using phone = await newDevice(server, "alice");
  const { store } = server.server.context;
  const { findSession } = store;
  const found = Promise.withResolvers<void>();
  const revoked = Promise.withResolvers<void>();
  store.findSession = async (sessionId) => {
    store.findSession = findSession;
    const session = await findSession(sessionId);
    found.resolve();
    await revoked.promise;
    return session;
  };
  const resumed = phone.again(server).then(() => "let in", (error) => error.code);
  await found.promise;
  await alice.connection.call("revokeDevice", { deviceId: phone.deviceId });
  revoked.resolve();
  assert.equal(await resumed, "sessionExpired");
  await assertOnly(server, alice);
});

Deno.test("many connections that come and go at once leave the server as it was", async () => {
  await using server = await startServer({ flags: { "limits-connection-rate": "1000" } });
  await using alice = await newAccount(server, "alice");
  for (let round = 0; round < 5; round++) {
    await Promise.all(Array.from({ length: 20 }, async (_, i) => {
      const raw = await RawStream.open(server);
      if (i % 3 === 0) await raw.write(requestFrame(1, "hello", { accessToken: server.accessToken }));
      if (i % 3 === 1) await raw.write(randomBytes(50));
      raw.connection.close(i, "bye");
    }));
  }
  await assertOnly(server, alice);
});

/** Bad input over real QUIC: each a clear error or an end, counted, while others are served. */
import assert from "node:assert/strict";
import { fromBinary } from "@bufbuild/protobuf";
import * as opaque from "@serenity-kit/opaque";
import { fromBase64url, randomBytes, utf8 } from "../../mod/base/bytes.ts";
import { CLOSE_CODES } from "../../mod/protocol/close_codes.ts";
import { encodeFrame, FRAME_BODY_BYTES_MAX } from "../../mod/protocol/frame.ts";
import { LoginStartResponseSchema } from "../../mod/protocol/qpq_pb.ts";
import { METHODS } from "../../mod/protocol/methods.ts";
import { register } from "../../mod/client/session.ts";
import { errorText, RawStream, requestFrame } from "../support/raw_stream.ts";
import { connectTo, newAccount, newDevice, PASSWORD } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";

/** Value of a metric (with its labels, if any) as a scrape shows it. */
async function metric(server: TestServer, name: string): Promise<number> {
  const { body } = await server.server.context.metrics.expose();
  const line = body.split("\n").find((candidate) => candidate.startsWith(`${name} `));
  assert.ok(line, `no metric ${name}`);
  return Number(line.slice(name.length + 1));
}

/** The server still serves whoever comes. */
async function assertServes(server: TestServer): Promise<void> {
  await using raw = await RawStream.afterHello(server);
  await raw.write(requestFrame(2, "ping", { echo: utf8("still here") }));
  assert.equal((await raw.reply()).outcome, "ok");
}

Deno.test("requests before Hello are refused and Hello still works", async () => {
  await using server = await startTestServer();
  await using raw = await RawStream.open(server);
  await raw.write(requestFrame(1, "ping", {}), requestFrame(2, "fetch", {}));
  assert.deepEqual(await raw.outcomes(2), { 1: "helloRequired", 2: "helloRequired" });
  await raw.write(requestFrame(3, "hello", { accessToken: server.accessToken }));
  assert.equal((await raw.reply()).outcome, "ok");
  assert.equal(await metric(server, 'qpq_request_errors_total{code="helloRequired"}'), 2);
});

Deno.test("without a login only Hello, Ping, registration, login and Resume are reached", async () => {
  await using server = await startTestServer();
  await using raw = await RawStream.afterHello(server);
  const open = ["hello", "ping", "registerStart", "registerFinish", "loginStart", "loginFinish", "resume"];
  const closed = Object.entries(METHODS).filter(([name]) => !open.includes(name));
  for (const [name, method] of closed) {
    const stream = method.stream === "own" ? await raw.another() : raw;
    await stream.write(encodeFrame(7, method.number, new Uint8Array()));
    assert.equal((await stream.reply()).outcome, "loginRequired", name);
  }
});

Deno.test("without token or login Ping is refused, a wrong token is told", async () => {
  await using server = await startTestServer();
  await using raw = await RawStream.open(server);
  await raw.write(requestFrame(1, "hello", { accessToken: "wrong" }));
  assert.equal((await raw.reply()).outcome, "invalidToken");
  await raw.write(requestFrame(2, "hello", {}));
  assert.equal((await raw.reply()).outcome, "ok");
  await raw.write(requestFrame(3, "ping", {}));
  assert.equal((await raw.reply()).outcome, "tokenRequired");
});

Deno.test("unknown methods, id 0, repeated Hello and own-stream methods on a used stream are told apart", async () => {
  await using server = await startTestServer();
  await using raw = await RawStream.afterHello(server);
  await raw.write(
    encodeFrame(2, 9999, randomBytes(20)),
    requestFrame(0, "ping", {}),
    requestFrame(3, "hello", {}),
    requestFrame(4, "subscribe", {}),
  );
  assert.deepEqual(await raw.outcomes(4), {
    2: "unknownMethod",
    0: "malformedRequest",
    3: "helloRepeated",
    4: "ownStreamRequired",
  });
  await raw.write(requestFrame(5, "ping", {}));
  assert.equal((await raw.reply()).outcome, "ok");
});

Deno.test("a request id in use is refused; both requests are answered", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  const raw = await alice.rawStream();
  await raw.write(requestFrame(1, "fetchWait", { timeoutMs: 50 }), requestFrame(1, "ping", {}));
  const outcomes = [(await raw.reply()).outcome, (await raw.reply()).outcome];
  assert.deepEqual(outcomes, ["duplicateRequest", "ok"]);
  raw.stream.abort();
});

Deno.test("garbage in the body, missing ids and texts out of bounds are malformed", async () => {
  await using server = await startTestServer();
  await using raw = await RawStream.afterHello(server);
  const name = "a".repeat(65);
  await raw.write(
    encodeFrame(2, METHODS.ping.number, Uint8Array.of(0x0a, 0xff)),
    requestFrame(3, "ping", { echo: randomBytes(65) }),
    requestFrame(4, "loginStart", { userName: name, suiteIds: [1], ke1: randomBytes(96) }),
    requestFrame(5, "loginStart", { userName: "alice", suiteIds: [1], ke1: randomBytes(95) }),
    requestFrame(6, "resume", { sessionId: randomBytes(15) }),
    requestFrame(7, "loginFinish", { handle: 12345, ke3: randomBytes(64) }),
  );
  assert.deepEqual(await raw.outcomes(6), {
    2: "malformedRequest",
    3: "malformedRequest",
    4: "userNameInvalid",
    5: "malformedRequest",
    6: "malformedRequest",
    7: "malformedRequest",
  });
});

Deno.test("an oversized body is refused without being kept, and the stream goes on", async () => {
  await using server = await startTestServer();
  await using raw = await RawStream.afterHello(server);
  await raw.write(encodeFrame(2, METHODS.ping.number, new Uint8Array(100_000)), requestFrame(3, "ping", {}));
  assert.deepEqual(await raw.outcomes(2), { 2: "requestTooLarge", 3: "ok" });
});

Deno.test("a length that no frame can have ends the connection with a reason", async () => {
  await using server = await startTestServer();
  for (const length of [5, FRAME_BODY_BYTES_MAX + 7, 0xffff_ffff]) {
    await using raw = await RawStream.afterHello(server);
    const header = new Uint8Array(10);
    new DataView(header.buffer).setUint32(0, length);
    await raw.write(header);
    assert.equal((await raw.connection.closed).code, CLOSE_CODES.protocolError, `${length}`);
  }
  await assertServes(server);
});

Deno.test("a truncated frame is not acted upon", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  const raw = await alice.rawStream();
  const frame = requestFrame(1, "enqueue", {
    messageId: randomBytes(16),
    parts: [{ payload: utf8("x"), recipients: [alice.deviceId] }],
  });
  await raw.write(frame.subarray(0, frame.length - 1));
  await raw.stream.closeWrite();
  await assert.rejects(raw.reply(), /stream ended/);
  assert.equal((await alice.connection.call("fetch", {})).entries.length, 0);
});

Deno.test("random bytes on many streams disturb nobody", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  for (let round = 0; round < 30; round++) {
    await using raw = await RawStream.open(server);
    await raw.write(randomBytes(1 + round * 40)).catch(() => {});
    await raw.stream.closeWrite();
    while (await raw.stream.read());
  }
  assert.equal((await alice.enqueue([alice.deviceId], { payload: utf8("x") })).statuses.length, 1);
});

Deno.test("10,000 garbage datagrams disturb nobody", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const to = { transport: "udp", hostname: server.hostname, port: server.port } as const;
  for (let i = 0; i < 10_000; i++) await socket.send(randomBytes(1 + (i * 7) % 1400), to);
  socket.close();
  assert.equal((await alice.enqueue([alice.deviceId], { payload: utf8("x") })).statuses.length, 1);
  await assertServes(server);
});

Deno.test("a client that never reads its replies is held back and does not disturb others", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  const payload = randomBytes(1 << 20);
  for (let i = 0; i < 4; i++) await alice.enqueue([bob.deviceId], { payload });
  const raw = await bob.rawStream();
  const sent = (async () => {
    for (let id = 1; id < 40; id++) await raw.write(requestFrame(id, "fetch", {}));
  })().catch(() => {});
  for (let i = 0; i < 20; i++) await alice.connection.call("ping", {});
  assert.ok(server.server.context.registry.count >= 1);
  raw.stream.abort();
  await sent;
  await assertServes(server);
});

Deno.test("a client that pipelines large fetches and reads them gets them all", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  const payload = randomBytes(1 << 20);
  for (let i = 0; i < 4; i++) await alice.enqueue([alice.deviceId], { payload });
  const replies = await Promise.all(
    Array.from(
      { length: 12 },
      (_, i) =>
        i % 2 ? alice.connection.call("fetch", {}) : alice.connection.call("fetchWait", { timeoutMs: 1000 }),
    ),
  );
  assert.deepEqual(replies.map(({ entries }) => entries.length), new Array(12).fill(4));
});

Deno.test("nobody reaches what is another's", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  await alice.enqueue([alice.deviceId], { payload: utf8("for alice") });
  assert.deepEqual((await bob.connection.call("fetch", {})).entries, []);
  assert.equal((await bob.connection.call("ack", { through: 0n })).deleted, 0n);
  await assert.rejects(bob.connection.call("revokeDevice", { deviceId: alice.deviceId }), {
    code: "notFound",
  });
  assert.equal((await alice.connection.call("fetch", {})).entries.length, 1);
  const ofBob = await bob.connection.call("getAccount", { accountId: alice.accountId });
  assert.deepEqual(ofBob.devices.map((device) => device.name), [""]);
});

Deno.test("a session resumes only with its device's signature", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using raw = await RawStream.afterHello(server);
  const { sessionId } = alice.own;
  const ofAlice = { sessionId: Uint8Array.fromHex(sessionId), signature: randomBytes(64) };
  await raw.write(requestFrame(2, "resume", ofAlice));
  const first = await raw.reply();
  await raw.write(requestFrame(3, "resume", { sessionId: randomBytes(16), signature: randomBytes(64) }));
  const second = await raw.reply();
  assert.deepEqual([first.outcome, second.outcome], ["loginFailed", "loginFailed"]);
  assert.deepEqual(first.frame.body, second.frame.body);
  assert.match(errorText(first), /Login failed/);
});

Deno.test("revoking a device closes its connections and ends its sessions", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using phone = await newDevice(server, "alice");
  await alice.connection.call("revokeDevice", { deviceId: phone.deviceId });
  assert.equal((await phone.connection.closed).code, CLOSE_CODES.sessionEnded);
  await assert.rejects(phone.again(server), { code: "deviceRevoked" });
});

Deno.test("a login that was begun on another connection cannot be finished, nor finished twice", async () => {
  await using server = await startTestServer();
  await using _alice = await newAccount(server, "alice");
  await using first = await RawStream.afterHello(server);
  await using second = await RawStream.afterHello(server);
  await opaque.ready;
  const { startLoginRequest } = opaque.client.startLogin({ password: PASSWORD });
  const ke1 = fromBase64url(startLoginRequest);
  await first.write(requestFrame(2, "loginStart", { userName: "alice", suiteIds: [1], ke1 }));
  const started = await first.reply();
  const { handle } = fromBinary(LoginStartResponseSchema, started.frame.body);
  const finish = (id: number) =>
    requestFrame(id, "loginFinish", {
      handle,
      ke3: randomBytes(64),
      deviceId: randomBytes(16),
      deviceKey: randomBytes(32),
      deviceBinding: randomBytes(32),
      signature: randomBytes(64),
    });
  await second.write(finish(3));
  assert.equal((await second.reply()).outcome, "loginFailed");
  await first.write(finish(4));
  assert.equal((await first.reply()).outcome, "loginFailed");
  await first.write(finish(5));
  assert.equal((await first.reply()).outcome, "loginFailed");
  assert.equal(await metric(server, "auth_login_failure_total"), 1);
});

Deno.test("a taken name is told to token holders; logins for unknown names look like wrong passwords", async () => {
  await using server = await startTestServer();
  await using _alice = await newAccount(server, "alice");
  const link = await connectTo(server);
  await assert.rejects(register(link, { userName: "Alice", password: PASSWORD }), { code: "userNameTaken" });
  await link.connection[Symbol.asyncDispose]();
});

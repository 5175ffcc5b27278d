/**
 * Who is here cannot be found out: by logging in, resuming, or registering with an invitation, answers for what exists
 * and for what does not have the same bytes and take the same time. The bound on the times is wide, since the work is
 * the same: an early return takes far less.
 */
import assert from "node:assert/strict";
import { fromBinary } from "@bufbuild/protobuf";
import * as opaque from "@serenity-kit/opaque";
import { fromBase64url, randomBytes } from "../../mod/base/bytes.ts";
import { LoginStartResponseSchema, RegisterStartResponseSchema } from "../../mod/protocol/qpq_pb.ts";
import { beginRegistration } from "../support/opaque_client.ts";
import { RawStream, requestFrame } from "../support/raw_stream.ts";
import { newAccount, newDevice } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { timeRatios } from "../support/timing.ts";

const ROUNDS = 60;
/** The same work differs by some percent; without the OPAQUE answer it takes less than half the time. */
const RATIO_MAX = 1.25;

/** What a peer sees of one failed login. */
interface Attempt {
  readonly startMs: number;
  readonly finishMs: number;
  /** Lengths of both reply frames, and the second one whole. */
  readonly sizes: readonly [number, number];
  readonly refusal: Uint8Array;
}

/** A server that lets an address try as often as this test does. */
function serverFor(): Promise<TestServer> {
  const names = ["login-rate", "login-rate-account", "login-rate-address", "anonymous-request-rate"].concat(
    "resume-rate",
    "registration-rate",
  );
  return startTestServer({ flags: Object.fromEntries(names.map((name) => [`limits-${name}`, "1000000"])) });
}

/** One login with a wrong password, timed from the outside. */
async function attempt(raw: RawStream, userName: string): Promise<Attempt> {
  const client = opaque.client.startLogin({ password: "wrong" });
  const ke1 = fromBase64url(client.startLoginRequest);
  const startedAt = performance.now();
  await raw.write(requestFrame(1, "loginStart", { userName, suiteIds: [1], ke1 }));
  const started = await raw.reply();
  const startMs = performance.now() - startedAt;
  assert.equal(started.outcome, "ok");
  const { handle, ke2 } = fromBinary(LoginStartResponseSchema, started.frame.body);
  assert.equal(ke2.length, 320);
  // Whose password is wrong has no KE3: one of the right size stands for it.
  const request = requestFrame(2, "loginFinish", {
    handle,
    ke3: randomBytes(64),
    deviceId: randomBytes(16),
    deviceKey: randomBytes(32),
    deviceBinding: randomBytes(32),
    signature: randomBytes(64),
  });
  const finishedAt = performance.now();
  await raw.write(request);
  const finished = await raw.reply();
  const finishMs = performance.now() - finishedAt;
  assert.equal(finished.outcome, "loginFailed");
  return {
    startMs,
    finishMs,
    // The handle is a varint of a random number: what is behind it is compared.
    sizes: [started.frame.body.length - varintBytes(handle), finished.frame.body.length],
    refusal: finished.frame.body,
  };
}

function varintBytes(value: number): number {
  return Math.max(1, Math.ceil((32 - Math.clz32(value)) / 7));
}

function assertAlike(ratios: Readonly<Record<string, number>>): void {
  assert.ok(Math.max(...Object.values(ratios)) <= RATIO_MAX, JSON.stringify(ratios));
}

Deno.test("an unknown user and a wrong password take the same time and the same bytes", async () => {
  await using server = await serverFor();
  await using _person = await newAccount(server, "person");
  await opaque.ready;
  await using raw = await RawStream.afterHello(server);
  const seen: Attempt[] = [];
  const kinds = ["nobody", "person"].map((name) => async () => {
    const one = await attempt(raw, name);
    seen.push(one);
    return { startMs: one.startMs, finishMs: one.finishMs };
  });
  assertAlike(await timeRatios(kinds, { rounds: ROUNDS, enough: RATIO_MAX }));
  assert.equal(new Set(seen.map(({ sizes }) => String(sizes))).size, 1, "every reply has the same size");
  assert.equal(new Set(seen.map(({ refusal }) => refusal.toHex())).size, 1, "every refusal is the same");
});

Deno.test("a Resume without the key says nothing of the session: unknown, in use, ended, revoked", async () => {
  await using server = await serverFor();
  await using person = await newAccount(server, "person");
  await using loggedOut = await newDevice(server, "person");
  await loggedOut.connection.call("logout", {});
  await using revoked = await newDevice(server, "person");
  await person.connection.call("revokeDevice", { deviceId: revoked.deviceId });
  await using raw = await RawStream.afterHello(server);
  const sessions = [person, loggedOut, revoked].map(({ own }) => Uint8Array.fromHex(own.sessionId));
  const refusals = new Set<string>();
  const kinds = [randomBytes(16), ...sessions].map((sessionId) => async () => {
    const startedAt = performance.now();
    await raw.write(requestFrame(1, "resume", { sessionId, signature: randomBytes(64) }));
    const { outcome, frame } = await raw.reply();
    assert.equal(outcome, "loginFailed");
    refusals.add(frame.body.toHex());
    return { ms: performance.now() - startedAt };
  });
  assertAlike(await timeRatios(kinds, { rounds: ROUNDS, enough: RATIO_MAX }));
  assert.equal(refusals.size, 1, "every refusal is the same");
});

Deno.test("a registration with a wrong invitation says nothing of the name: free, taken, deleted", async () => {
  await using server = await serverFor();
  await using person = await newAccount(server, "person");
  await using former = await newAccount(server, "former");
  await former.connection.call("deleteAccount", {});
  await using raw = await RawStream.open(server);
  await raw.write(requestFrame(1, "hello", {}));
  assert.equal((await raw.reply()).outcome, "ok");
  const answers = new Set<string>();
  const { realmId } = person.link.hello;
  const kinds = ["nobody", "person", "former"].map((userName) => async () => {
    const begun = beginRegistration("password", realmId);
    const start = { userName, suiteId: 1, registrationRequest: begun.request, invitation: "WRONG" };
    const startedAt = performance.now();
    await raw.write(requestFrame(1, "registerStart", start));
    const started = await raw.reply();
    const startMs = performance.now() - startedAt;
    const { handle, registrationResponse } = fromBinary(RegisterStartResponseSchema, started.frame.body);
    const { record } = begun.finish(registrationResponse);
    const keys = { accountKey: randomBytes(32), wrappedAccountKey: randomBytes(64) };
    const finishedAt = performance.now();
    await raw.write(requestFrame(2, "registerFinish", { handle, registrationRecord: record, ...keys }));
    const finished = await raw.reply();
    const finishMs = performance.now() - finishedAt;
    const size = started.frame.body.length - varintBytes(handle);
    answers.add(`${started.outcome} ${size} ${finished.outcome} ${finished.frame.body.toHex()}`);
    return { startMs, finishMs };
  });
  assertAlike(await timeRatios(kinds, { rounds: ROUNDS, enough: RATIO_MAX }));
  assert.equal(answers.size, 1, "every answer is the same");
  assert.match([...answers][0]!, /^ok \d+ registrationRefused /);
});

Deno.test("what an unknown user is answered cannot be told apart across attempts either", async () => {
  await using server = await serverFor();
  await using _person = await newAccount(server, "person");
  await opaque.ready;
  await using raw = await RawStream.afterHello(server);
  const ke2Of = async (userName: string, ke1: Uint8Array) => {
    await raw.write(requestFrame(1, "loginStart", { userName, suiteIds: [1], ke1 }));
    const { outcome, frame } = await raw.reply();
    assert.equal(outcome, "ok");
    return fromBinary(LoginStartResponseSchema, frame.body).ke2.toHex();
  };
  const ke1 = fromBase64url(opaque.client.startLogin({ password: "x" }).startLoginRequest);
  for (const name of ["nobody", "person"]) {
    const [first, second] = [await ke2Of(name, ke1), await ke2Of(name, ke1)];
    // The evaluated element (32 bytes) depends on name and KE1 alone, for the one as for the other; the rest is fresh.
    assert.equal(first.slice(0, 64), second.slice(0, 64), name);
    assert.notEqual(first.slice(64), second.slice(64), name);
  }
});

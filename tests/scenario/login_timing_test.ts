/**
 * A login with an unknown user and one with a wrong password cannot be told apart by their bytes or their time.
 * Times are compared as the lower quartiles of interleaved samples, with a wide bound, and a series that was
 * disturbed by other work is repeated: an early return for unknown users takes far less time in every series.
 */
import assert from "node:assert/strict";
import { fromBinary } from "@bufbuild/protobuf";
import * as opaque from "@serenity-kit/opaque";
import { fromBase64url, randomBytes } from "../../mod/base/bytes.ts";
import { LoginStartResponseSchema } from "../../mod/protocol/qpq_pb.ts";
import { RawStream, requestFrame } from "../support/raw_stream.ts";
import { newAccount } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";

const ROUNDS = 60;
const SERIES_MAX = 4;
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
  const limits = ["login-rate", "login-rate-account", "login-rate-address", "anonymous-request-rate"];
  return startTestServer({ flags: Object.fromEntries(limits.map((name) => [`limits-${name}`, "100000"])) });
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

function lowerQuartile(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 4)]!;
}

/** How much longer one kind takes than the other in `phase`: at least 1. */
function ratioOf({ unknown, wrong }: Series, phase: "startMs" | "finishMs"): number {
  const [a, b] = [unknown, wrong].map((attempts) => lowerQuartile(attempts.map((one) => one[phase])));
  return Math.max(a!, b!) / Math.min(a!, b!);
}

interface Series {
  readonly unknown: Attempt[];
  readonly wrong: Attempt[];
}

async function interleaved(server: TestServer): Promise<Series> {
  await opaque.ready;
  await using raw = await RawStream.afterHello(server);
  const unknown: Attempt[] = [];
  const wrong: Attempt[] = [];
  for (let i = -5; i < ROUNDS; i++) {
    // Neither kind always comes first; the first rounds warm up.
    const kinds = [{ name: "nobody", to: unknown }, { name: "person", to: wrong }];
    for (const { name, to } of i % 2 === 0 ? kinds : kinds.reverse()) {
      const result = await attempt(raw, name);
      if (i >= 0) to.push(result);
    }
  }
  return { unknown, wrong };
}

Deno.test("an unknown user and a wrong password take the same time and the same bytes", async () => {
  await using server = await serverFor();
  await using _person = await newAccount(server, "person");
  const ratios = { startMs: Infinity, finishMs: Infinity };
  for (let n = 0; n < SERIES_MAX && Math.max(ratios.startMs, ratios.finishMs) > RATIO_MAX; n++) {
    const series = await interleaved(server);
    const seen = [...series.unknown, ...series.wrong];
    assert.equal(new Set(seen.map(({ sizes }) => String(sizes))).size, 1, "every reply has the same size");
    assert.equal(new Set(seen.map(({ refusal }) => refusal.toHex())).size, 1, "every refusal is the same");
    for (const phase of ["startMs", "finishMs"] as const) {
      ratios[phase] = Math.min(ratios[phase], ratioOf(series, phase));
    }
  }
  assert.ok(Math.max(ratios.startMs, ratios.finishMs) <= RATIO_MAX, JSON.stringify(ratios));
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

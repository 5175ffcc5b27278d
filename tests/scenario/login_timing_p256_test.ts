/** Who is here cannot be found out in the suite P-256 either: see login_timing_test.ts. */
import assert from "node:assert/strict";
import { randomBytes } from "../../mod/base/bytes.ts";
import { OPAQUE_SIZES, SUITE_P256 } from "../../mod/base/opaque_suite.ts";
import { p256 } from "../../mod/client/opaque_p256.ts";
import { register } from "../../mod/client/session.ts";
import { connectTo, newAccount, PASSWORD } from "../support/test_client.ts";
import { startTestServer } from "../support/test_server.ts";
import { timeRatios } from "../support/timing.ts";

const ROUNDS = 12;
/** Some of the same work; what is left out by an early return would be a third of it or more. */
const RATIO_MAX = 1.25;

Deno.test("P-256: a name of nobody, of an account of it, and of one of ristretto255 give one size and time", async () => {
  const rates = ["login-rate", "login-rate-account", "login-rate-address", "anonymous-request-rate"];
  const unlimited = Object.fromEntries(rates.map((name) => [`limits-${name}`, "1000000"]));
  await using server = await startTestServer({
    flags: { "opaque-suites": "ristretto255,p256", ...unlimited },
  });
  await using _strong = await newAccount(server, "strong");
  const link = await connectTo(server);
  await register(link, { userName: "weak", password: PASSWORD, suiteId: SUITE_P256 });
  const lengths = new Set<number>();
  const { ke1 } = await p256.startLogin("wrong");
  const kinds = ["nobody", "weak", "strong"].map((userName) => async () => {
    const startedAt = performance.now();
    const answer = await link.connection.call("loginStart", { userName, suiteIds: [SUITE_P256], ke1 });
    const startMs = performance.now() - startedAt;
    lengths.add(answer.ke2.length);
    const finish = {
      handle: answer.handle,
      ke3: randomBytes(32),
      deviceId: randomBytes(16),
      deviceKey: randomBytes(32),
      deviceBinding: randomBytes(32),
      signature: randomBytes(64),
    };
    const finishedAt = performance.now();
    await assert.rejects(link.connection.call("loginFinish", finish), { code: "loginFailed" });
    return { startMs, finishMs: performance.now() - finishedAt };
  });
  const ratios = await timeRatios(kinds, { rounds: ROUNDS, enough: RATIO_MAX });
  await link.connection[Symbol.asyncDispose]();
  assert.deepEqual([...lengths], [OPAQUE_SIZES.get(SUITE_P256)!.ke2]);
  // The second half takes a fraction of a millisecond: what is compared is the first.
  assert.ok(ratios["startMs"]! <= RATIO_MAX, JSON.stringify(ratios));
});

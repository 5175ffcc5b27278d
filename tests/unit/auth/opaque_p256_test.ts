/** The suite P-256 in the pool: it works, it refuses what does not decode, and it does not stand in the way. */
import assert from "node:assert/strict";
import { COSTLY_PENDING_MAX, OpaquePool } from "../../../mod/auth/opaque.ts";
import { isP256Point } from "../../../mod/auth/p256_point.ts";
import { fromHex, randomBytes } from "../../../mod/base/bytes.ts";
import {
  OPAQUE_SIZES,
  OPAQUE_SUITES,
  SUITE_P256,
  SUITE_RISTRETTO255,
} from "../../../mod/base/opaque_suite.ts";
import { p256 } from "../../../mod/client/opaque_p256.ts";
import { registerP256 } from "../../support/opaque_side.ts";
import { beginLogin } from "../../support/opaque_client.ts";
import { rejectsWith } from "../../support/rejects.ts";

const suiteId = SUITE_P256;
const userName = "alice";
const realmId = "realm";
const open = (onRefused?: (suiteId: number) => void) =>
  OpaquePool.open({ workers: 1, pendingMax: 64, suites: OPAQUE_SUITES, ...(onRefused ? { onRefused } : {}) });

Deno.test("P-256: registration and login give both sides one session key, and the same export key", async () => {
  await using pool = await open();
  const setup = await pool.createSetup(suiteId);
  const { record, exportKey } = await registerP256(pool, {
    suiteId,
    setup,
    userName,
    password: "x",
    realmId,
  });
  const client = await p256.startLogin("x");
  const { state, ke2 } = await pool.loginStart({
    suiteId,
    setup,
    userName,
    record,
    ke1: client.ke1,
    realmId,
  });
  const finished = await client.finish(ke2, realmId);
  assert.deepEqual(finished?.exportKey, exportKey);
  const sessionKey = await pool.loginFinish({ suiteId, state, ke3: finished!.ke3, realmId });
  assert.deepEqual(sessionKey, finished!.sessionKey);
  assert.equal(await pool.loginFinish({ suiteId, state, ke3: randomBytes(32), realmId }), null);
  const wrong = await p256.startLogin("y");
  const answer = await pool.loginStart({ suiteId, setup, userName, record, ke1: wrong.ke1, realmId });
  assert.equal(await wrong.finish(answer.ke2, realmId), null, "a wrong password");
});

Deno.test("P-256: a client of another realm cannot log in", async () => {
  await using pool = await open();
  const setup = await pool.createSetup(suiteId);
  const { record } = await registerP256(pool, { suiteId, setup, userName, password: "x", realmId });
  const client = await p256.startLogin("x");
  const { ke2 } = await pool.loginStart({ suiteId, setup, userName, record, ke1: client.ke1, realmId });
  assert.equal(await client.finish(ke2, "another realm"), null);
});

Deno.test("P-256: an unknown user is answered in the same form, evaluated alike for one name each time", async () => {
  await using pool = await open();
  const setup = await pool.createSetup(suiteId);
  const { record } = await registerP256(pool, { suiteId, setup, userName, password: "x", realmId });
  const { ke1, finish } = await p256.startLogin("x");
  const known = await pool.loginStart({ suiteId, setup, userName, record, ke1, realmId });
  const unknown = [1, 2].map(() =>
    pool.loginStart({ suiteId, setup, userName: "nobody", record: null, ke1, realmId })
  );
  const [first, second] = await Promise.all(unknown);
  assert.deepEqual([first!.ke2.length, first!.state.length], [known.ke2.length, known.state.length]);
  assert.equal(known.ke2.length, OPAQUE_SIZES.get(suiteId)!.ke2);
  assert.deepEqual(first!.ke2.subarray(0, 33), second!.ke2.subarray(0, 33));
  assert.notDeepEqual(first!.ke2.subarray(33), second!.ke2.subarray(33));
  assert.equal(await finish(first!.ke2, realmId), null);
});

Deno.test("P-256: what is no point of the curve is malformed, in every message", async () => {
  await using pool = await open();
  const setup = await pool.createSetup(suiteId);
  const { ke1 } = await p256.startLogin("x");
  const start = { suiteId, setup, userName, record: null, realmId };
  for (const at of [0, 65]) {
    await rejectsWith(pool.loginStart({ ...start, ke1: ke1.with(at, 5) }), "malformedRequest");
  }
  await rejectsWith(pool.loginStart({ ...start, ke1: ke1.subarray(1) }), "malformedRequest");
  const request = new Uint8Array(33).fill(255).with(0, 2);
  await rejectsWith(pool.registrationResponse({ suiteId, setup, userName, request }), "malformedRequest");
  await rejectsWith(pool.checkRecord({ suiteId, setup, record: new Uint8Array(129) }), "malformedRequest");
});

Deno.test("isP256Point() knows the base point, and refuses infinity, other forms and x of no point", () => {
  const base = fromHex("036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296");
  assert.ok(isP256Point(base));
  assert.ok(isP256Point(base.with(0, 2)), "the other of the two points");
  assert.ok(!isP256Point(base.with(0, 4)));
  assert.ok(!isP256Point(base.subarray(0, 32)));
  assert.ok(!isP256Point(new Uint8Array(33)));
  const some = Array.from({ length: 64 }, (_, x) => isP256Point(new Uint8Array(33).with(0, 2).with(32, x)));
  assert.ok(some.includes(true) && some.includes(false), "about half of all x");
});

Deno.test("a pool without P-256 does not answer it", async () => {
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 64 });
  await rejectsWith(pool.createSetup(suiteId), "malformedRequest");
  assert.deepEqual([pool.answers(SUITE_RISTRETTO255), pool.answers(suiteId)], [true, false]);
});

Deno.test("P-256 has a short queue of its own: beyond it overloaded at once, while ristretto255 goes before it", async () => {
  const refused: number[] = [];
  await using pool = await open((suite) => refused.push(suite));
  const [setup, other] = [await pool.createSetup(suiteId), await pool.createSetup(SUITE_RISTRETTO255)];
  const { ke1 } = await p256.startLogin("x");
  const done: string[] = [];
  const input = { suiteId, setup, userName, record: null, ke1, realmId };
  const jobs = Array.from({ length: COSTLY_PENDING_MAX + 1 }, async () => {
    await pool.loginStart(input);
    done.push("p256");
  });
  assert.throws(() => pool.requireRoom(suiteId), { code: "overloaded" });
  await rejectsWith(pool.loginStart(input), "overloaded");
  pool.requireRoom(SUITE_RISTRETTO255);
  const cheap = { suiteId: SUITE_RISTRETTO255, setup: other, userName, record: null, realmId };
  jobs.push(
    pool.loginStart({ ...cheap, ke1: beginLogin("x", realmId).ke1 }).then(() =>
      void done.push("ristretto255")
    ),
  );
  await Promise.all(jobs);
  assert.equal(done.indexOf("ristretto255"), 1, "it only waits for the one that has begun");
  assert.deepEqual(refused, [suiteId, suiteId]);
});

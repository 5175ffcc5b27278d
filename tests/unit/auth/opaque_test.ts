/** OpaquePool: whole exchanges, sizes, bounds, dying workers. */
import assert from "node:assert/strict";
import { OpaquePool } from "../../../mod/auth/opaque.ts";
import { type Bytes, equal, randomBytes } from "../../../mod/base/bytes.ts";
import { type ErrorCode, QpqError } from "../../../mod/base/errors.ts";
import { OPAQUE_BYTES, SUITE_RISTRETTO255 as suiteId } from "../../../mod/base/opaque_suite.ts";
import { beginLogin, beginRegistration } from "../../support/opaque_client.ts";

const realmId = "realm of tests";
const userName = "alice";
const MORTAL = import.meta.resolve("../../support/mortal_opaque_worker.ts");

function rejectsWith(promise: Promise<unknown>, code: ErrorCode): Promise<void> {
  return assert.rejects(promise, (error) => error instanceof QpqError && error.code === code);
}

async function register(pool: OpaquePool, setup: Bytes, password: string) {
  const client = beginRegistration(password, realmId);
  const response = await pool.registrationResponse({ suiteId, setup, userName, request: client.request });
  return client.finish(response);
}

Deno.test("OpaquePool registers and logs in: both sides have the same session key", async () => {
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 8 });
  const setup = await pool.createSetup(suiteId);
  const { record, exportKey } = await register(pool, setup, "right");
  await pool.checkRecord({ suiteId, setup, record });
  const client = beginLogin("right", realmId);
  const { state, ke2 } = await pool.loginStart({
    suiteId,
    setup,
    userName,
    record,
    ke1: client.ke1,
    realmId,
  });
  const finished = client.finish(ke2);
  assert.ok(finished);
  assert.ok(equal(finished.exportKey, exportKey));
  const sessionKey = await pool.loginFinish({ suiteId, state, ke3: finished.ke3, realmId });
  assert.ok(sessionKey && equal(sessionKey, finished.sessionKey));
  assert.equal(sessionKey.length, OPAQUE_BYTES.sessionKey);
});

Deno.test("loginFinish() gives null for a KE3 that does not verify", async () => {
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 8 });
  const setup = await pool.createSetup(suiteId);
  const { record } = await register(pool, setup, "right");
  const { ke1 } = beginLogin("right", realmId);
  const { state } = await pool.loginStart({ suiteId, setup, userName, record, ke1, realmId });
  assert.equal(await pool.loginFinish({ suiteId, state, ke3: randomBytes(64), realmId }), null);
});

Deno.test("loginStart() answers an unknown user in the same size, and no password opens it", async () => {
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 8 });
  const setup = await pool.createSetup(suiteId);
  const { record } = await register(pool, setup, "right");
  const client = beginLogin("right", realmId);
  const input = { suiteId, setup, userName, ke1: client.ke1, realmId };
  const unknown = await pool.loginStart({ ...input, record: null });
  const known = await pool.loginStart({ ...input, record });
  assert.equal(unknown.ke2.length, OPAQUE_BYTES.ke2);
  assert.equal(unknown.ke2.length, known.ke2.length);
  assert.equal(unknown.state.length, known.state.length);
  // The OPRF part depends on name and setup alone: it must not tell that there is no record.
  assert.ok(equal(unknown.ke2.subarray(0, 32), known.ke2.subarray(0, 32)));
  assert.equal(client.finish(unknown.ke2), null);
});

Deno.test("OpaquePool refuses messages of a wrong size before a worker sees them", async () => {
  const pool = await OpaquePool.open({ workers: 1, pendingMax: 8 });
  const setup = await pool.createSetup(suiteId);
  await pool.close(); // a job would now be rejected with `internal`
  for (const bytes of [0, 1, 31, 33, 95, 97, 1000]) {
    const wrong = new Uint8Array(bytes);
    await rejectsWith(
      pool.registrationResponse({ suiteId, setup, userName, request: wrong }),
      "malformedRequest",
    );
    const start = { suiteId, setup, userName, record: null, ke1: wrong, realmId };
    await rejectsWith(pool.loginStart(start), "malformedRequest");
    await rejectsWith(pool.loginFinish({ suiteId, state: setup, ke3: wrong, realmId }), "malformedRequest");
    await rejectsWith(pool.checkRecord({ suiteId, setup, record: wrong }), "malformedRequest");
  }
  await rejectsWith(pool.createSetup(2), "malformedRequest");
  await rejectsWith(pool.createSetup(suiteId), "internal");
});

Deno.test("OpaquePool tells the peer's bad points from its own bad setup", async () => {
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 8 });
  const setup = await pool.createSetup(suiteId);
  const { ke1 } = beginLogin("x", realmId);
  const { request } = beginRegistration("x", realmId);
  for (const fill of [0, 255]) {
    const bad = (length: number) => new Uint8Array(length).fill(fill);
    await rejectsWith(
      pool.registrationResponse({ suiteId, setup, userName, request: bad(32) }),
      "malformedRequest",
    );
    const start = { suiteId, setup, userName, record: null, ke1: bad(96), realmId };
    await rejectsWith(pool.loginStart(start), "malformedRequest");
    await rejectsWith(pool.checkRecord({ suiteId, setup, record: bad(192) }), "malformedRequest");
    const stored = { suiteId, setup, userName, record: bad(192), ke1, realmId };
    await rejectsWith(pool.loginStart(stored), "internal");
    const broken = { suiteId, setup: bad(128), userName, request };
    await rejectsWith(pool.registrationResponse(broken), "internal");
  }
});

Deno.test("OpaquePool refuses jobs beyond its queue with overloaded, but not a login's second half", async () => {
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 2 });
  const setup = await pool.createSetup(suiteId);
  const { ke1 } = beginLogin("x", realmId);
  const start = { suiteId, setup, userName, record: null, ke1, realmId };
  const { state } = await pool.loginStart(start);
  const busy = [pool.loginStart(start), pool.loginStart(start), pool.loginStart(start)];
  await assert.rejects(pool.loginStart(start), (error) => {
    assert.ok(error instanceof QpqError && error.code === "overloaded");
    assert.ok(error.details.retryAfterMs! > 0);
    return true;
  });
  assert.equal(await pool.loginFinish({ suiteId, state, ke3: new Uint8Array(64), realmId }), null);
  await Promise.all(busy);
  await pool.loginStart(start);
});

Deno.test("OpaquePool replaces a worker that dies and rejects only its job", async () => {
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 8, workerUrl: MORTAL });
  const setup = await pool.createSetup(suiteId);
  const { request } = beginRegistration("x", realmId);
  const ask = (name: string) => pool.registrationResponse({ suiteId, setup, userName: name, request });
  const [dead, ...waiting] = await Promise.allSettled([ask("die"), ask("alice"), ask("bob")]);
  assert.ok(dead?.status === "rejected" && dead.reason.code === "internal", JSON.stringify(dead));
  assert.deepEqual(waiting.map(({ status }) => status), ["fulfilled", "fulfilled"]);
});

Deno.test("open() rejects when the workers cannot start", async () => {
  const workerUrl = import.meta.resolve("./no_such_worker.ts");
  await rejectsWith(OpaquePool.open({ workers: 2, pendingMax: 8, workerUrl }), "internal");
});

Deno.test("close() rejects what waits", async () => {
  const pool = await OpaquePool.open({ workers: 1, pendingMax: 8 });
  const jobs = [pool.createSetup(suiteId), pool.createSetup(suiteId)];
  const settled = Promise.allSettled(jobs);
  await pool.close();
  for (const job of await settled) assert.ok(job.status === "rejected" && job.reason.code === "internal");
});

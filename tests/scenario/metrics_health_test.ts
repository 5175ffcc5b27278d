/** What an operator sees over HTTP: every number of the contract moves by real traffic, and health has reasons. */
import assert from "node:assert/strict";
import { systemClock } from "../../mod/base/clock.ts";
import { randomBytes, sha256, utf8 } from "../../mod/base/bytes.ts";
import { MLS_SUITE_X25519 } from "../../mod/base/mls_suites.ts";
import { createKeyPackages } from "../../mod/client/mls_key_packages.ts";
import { login, makeDevice } from "../../mod/client/session.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { RawStream } from "../support/raw_stream.ts";
import { connectTo, newAccount, newDevice, type TestClient } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { parseExposition } from "../unit/observe/exposition.ts";

/** The operations contract: names that never change, none with a label. */
const CONTRACT = {
  enqueue_total: "counter",
  enqueue_bytes_total: "counter",
  fetch_total: "counter",
  fetch_wait_total: "counter",
  key_package_upload_total: "counter",
  auth_login_success_total: "counter",
  auth_login_failure_total: "counter",
  rate_limit_hit_total: "counter",
  delivery_queue_depth: "gauge",
} as const;

async function get(server: TestServer, path: string): Promise<Response> {
  const { hostname, port } = server.server.metricsAddress!;
  return await fetch(`http://${hostname}:${port}${path}`);
}

/** Every sample of a scrape: `name` or `name{label="value"}` → value. */
async function scrape(server: TestServer): Promise<(name: string) => number> {
  const { samples } = parseExposition(await (await get(server, "/metrics")).text());
  const values = new Map(samples.map(({ name, labels, value }) => {
    const shown = Object.entries(labels).map(([label, text]) => `${label}="${text}"`).join(",");
    return [shown === "" ? name : `${name}{${shown}}`, value];
  }));
  return (name) => values.get(name) ?? assert.fail(`no sample ${name}`);
}

/** By how much the contract's metrics that changed did so. */
async function moved(server: TestServer, traffic: () => Promise<unknown>): Promise<Record<string, number>> {
  const before = await scrape(server);
  await traffic();
  const after = await scrape(server);
  const changes = Object.keys(CONTRACT).map((name) => [name, after(name) - before(name)] as const);
  return Object.fromEntries(changes.filter(([, change]) => change !== 0));
}

async function readyz(server: TestServer) {
  const response = await get(server, "/readyz");
  const { ready, checks } = await response.json();
  const failed = checks.filter((check: { ok: boolean }) => !check.ok);
  return { status: response.status, ready, failed };
}

Deno.test("the nine metrics of the contract are there from the start, at zero, without labels", async () => {
  await using server = await startTestServer();
  const { types, samples } = parseExposition(await (await get(server, "/metrics")).text());
  for (const [name, type] of Object.entries(CONTRACT)) {
    assert.equal(types.get(name), type, name);
    assert.deepEqual(samples.filter((sample) => sample.name === name), [{ name, labels: {}, value: 0 }]);
  }
});

Deno.test("enqueue_total and its bytes rise once for each accepted message, the depth by its recipients", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  const messageId = randomBytes(16);
  const send = () => alice.enqueue([alice.deviceId, bob.deviceId], { payload: utf8("12345"), messageId });
  assert.deepEqual(await moved(server, send), {
    enqueue_total: 1,
    enqueue_bytes_total: 5,
    delivery_queue_depth: 2,
  });
  assert.deepEqual(await moved(server, send), {}, "a replay");
  const refused = () => alice.enqueue([bob.deviceId], { payload: utf8("other"), messageId }).catch(() => {});
  assert.deepEqual(await moved(server, refused), {}, "a refusal");
  const acked = () => bob.connection.call("ack", { through: 1n });
  assert.deepEqual(await moved(server, acked), { delivery_queue_depth: -1 });
});

Deno.test("fetch_total counts answers and pushes with messages, fetch_wait_total waits that waited", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  const { connection } = alice;
  const send = () => alice.enqueue([alice.deviceId], { payload: utf8("x") });
  assert.deepEqual(await moved(server, () => connection.call("fetch", {})), {}, "an empty answer");
  await send();
  assert.deepEqual(await moved(server, () => connection.call("fetch", {})), { fetch_total: 1 });
  assert.deepEqual(await moved(server, () => connection.call("fetchWait", {})), { fetch_total: 1 });
  const waited = () => connection.call("fetchWait", { fetch: { after: 1n }, timeoutMs: 10 });
  assert.deepEqual(await moved(server, waited), { fetch_wait_total: 1 });
  const pushes = connection.subscribe({ after: 0n });
  const pushed = async () => {
    assert.equal((await pushes.next()).value!.entries.length, 0);
    assert.equal((await pushes.next()).value!.entries.length, 1);
  };
  assert.deepEqual(await moved(server, pushed), { fetch_total: 1 });
  await pushes.return();
});

Deno.test("logins, failures, uploads and refusals by limits are counted", async () => {
  await using server = await startTestServer({ flags: { "limits-login-rate": "2" } });
  await using alice = await newAccount(server, "alice");
  const phoneComes = async () => await (await newDevice(server, "alice"))[Symbol.asyncDispose]();
  assert.deepEqual(await moved(server, phoneComes), {
    auth_login_success_total: 1,
    // The device that was there is told of the new one.
    delivery_queue_depth: 1,
  });
  await using guest = await connectTo(server).then((link) => Object.assign(link.connection, { link }));
  const wrong = async () => {
    const device = await makeDevice("x");
    await login(guest.link, { userName: "alice", password: "wrong", device }).catch(() => {});
  };
  // The client itself notices the wrong password and sends no KE3: it fails when its connection closes.
  await wrong();
  const closed = async () => {
    await guest[Symbol.asyncDispose]();
    while (server.server.context.authenticator.pendingCount > 0) await alice.connection.call("ping", {});
  };
  assert.deepEqual(await moved(server, closed), { auth_login_failure_total: 1 });
  const before = await scrape(server);
  await using again = await connectTo(server).then((link) => Object.assign(link.connection, { link }));
  for (let i = 0; i < 3; i++) {
    await again.call("loginStart", { userName: "alice", ke1: randomBytes(96), suiteIds: [1] }).catch(
      () => {},
    );
  }
  const after = await scrape(server);
  const hits = after("rate_limit_hit_total") - before("rate_limit_hit_total");
  assert.equal(hits, after('qpq_rate_limit_hits_total{limit="loginRate"}'));
  assert.equal(hits, after('qpq_request_errors_total{code="rateLimited"}'));
  assert.ok(hits > 0);
  const uploads = () => uploadKeyPackages(alice, 3);
  assert.deepEqual(await moved(server, uploads), { key_package_upload_total: 3 });
});

async function uploadKeyPackages(client: TestClient, count: number): Promise<void> {
  const { account, device } = client.own;
  const identity = { accountId: account.accountId, deviceId: device.deviceId, domain: "", key: device.key };
  const context = { identity, isTrusted: () => Promise.resolve(true), clock: systemClock };
  const made = await createKeyPackages(context, { count, suite: MLS_SUITE_X25519 });
  const keyPackages = made.map(({ publicBytes }) => ({ keyPackage: publicBytes, lastResort: false }));
  await client.connection.call("uploadKeyPackages", { keyPackages });
}

Deno.test("connections, streams, requests by method, store, certificate and process have their numbers", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using anonymous = await RawStream.afterHello(server);
  await alice.enqueue([alice.deviceId], { payload: randomBytes(1000) });
  await uploadKeyPackages(alice, 2);
  const bytes = randomBytes(5000);
  const body = (async function* () {
    yield bytes;
  })();
  await alice.connection.putBlob({ sha256: await sha256(bytes), size: 5000n }, body);
  await alice.connection.call("ack", { through: 99n }).catch(() => {});
  const waiting = alice.connection.call("fetchWait", { fetch: { after: 1n }, timeoutMs: 60_000 });
  const pushes = alice.connection.subscribe({ after: 1n });
  await pushes.next();
  const value = await scrape(server);
  const expected = {
    qpq_connections: 2,
    qpq_connections_total: 2,
    qpq_sessions_online: 1,
    qpq_streams: 3,
    qpq_subscribers: 1,
    qpq_fetch_waiters: 1,
    qpq_requests_in_flight: 2,
    qpq_store_accounts: 1,
    qpq_store_devices: 1,
    qpq_store_queue_bytes: 1000,
    qpq_store_key_packages: 2,
    qpq_store_blobs: 1,
    qpq_store_blob_bytes: 5000,
    qpq_unhandled_rejections_total: 0,
    qpq_collect_failures_total: 0,
    'qpq_request_seconds_count{method="enqueue",outcome="ok"}': 1,
    'qpq_request_seconds_count{method="putBlob",outcome="ok"}': 1,
    'qpq_request_seconds_count{method="ack",outcome="error"}': 1,
    'qpq_request_errors_total{code="ackBeyondEnd"}': 1,
  };
  for (const [name, wanted] of Object.entries(expected)) assert.equal(value(name), wanted, name);
  const { notAfter } = server.server.context.certificates.info;
  assert.equal(value("qpq_tls_certificate_expiry_timestamp_seconds"), notAfter / 1000);
  for (const name of ["qpq_store_disk_bytes", "qpq_store_batch_seconds_count", "qpq_store_batch_size_sum"]) {
    assert.ok(value(name) > 0, name);
  }
  for (const name of ["process_resident_memory_bytes", "process_cpu_seconds_total"]) {
    assert.ok(value(name) > 0, name);
  }
  await pushes.return();
  await alice.enqueue([alice.deviceId], { payload: utf8("wake up") });
  await waiting;
  await anonymous.connection[Symbol.asyncDispose]();
  while (server.server.context.registry.count > 1) await alice.connection.call("ping", {});
  const later = await scrape(server);
  assert.deepEqual(["qpq_connections", "qpq_subscribers", "qpq_fetch_waiters"].map(later), [1, 0, 0]);
});

Deno.test("a scrape asks the store for its counters once and for nothing that depends on how much is stored", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  for (let i = 0; i < 20; i++) await alice.enqueue([alice.deviceId], { payload: utf8("x") });
  const { store } = server.server.context;
  const verbs = store as unknown as Record<string, (...args: unknown[]) => unknown>;
  const asked: string[] = [];
  for (const [name, verb] of Object.entries(verbs).filter(([, verb]) => typeof verb === "function")) {
    verbs[name] = (...args) => {
      asked.push(name);
      return verb.apply(store, args);
    };
  }
  const [first, second] = [await scrape(server), await scrape(server)];
  assert.deepEqual([first("delivery_queue_depth"), second("delivery_queue_depth")], [20, 20]);
  // All of them read counters that the store's transactions keep.
  const cheap = ["counts", "diskBytes", "writeMark", "accountsBySetup"];
  assert.deepEqual(asked.filter((name) => !cheap.includes(name)), []);
  assert.equal(asked.filter((name) => name === "counts").length, 2);
});

Deno.test("/healthz says that the process lives, /readyz that it can serve", async () => {
  await using server = await startTestServer();
  const health = await get(server, "/healthz");
  assert.deepEqual([health.status, await health.text()], [200, "ok\n"]);
  assert.deepEqual(await readyz(server), { status: 200, ready: true, failed: [] });
  assert.equal((await scrape(server))("qpq_ready"), 1);
});

Deno.test("/readyz names what is wrong: the store, draining", async () => {
  await using server = await startTestServer();
  const { context } = server.server;
  const { writeMark } = context.store;
  context.store.writeMark = () => Promise.reject(new Error("no such device"));
  let { status, failed } = await readyz(server);
  assert.deepEqual([status, failed.map((check: { name: string }) => check.name)], [503, ["store"]]);
  assert.match(failed[0].reason, /cannot be written: no such device/);
  assert.equal((await get(server, "/healthz")).status, 200, "a restart would not help");
  context.store.writeMark = writeMark;
  context.draining = true;
  ({ status, failed } = await readyz(server));
  assert.deepEqual([status, failed.map((check: { name: string }) => check.name)], [503, ["draining"]]);
  assert.match(failed[0].reason, /shutting down/);
  context.draining = false;
  assert.equal((await readyz(server)).ready, true);
});

Deno.test("/readyz fails when the certificate's time is over", async () => {
  const clock = new FakeClock({ now: Date.now() });
  await using server = await startTestServer({ clock });
  assert.equal((await readyz(server)).ready, true);
  clock.jumpWall(10 * 365 * 86_400_000);
  const { status, failed } = await readyz(server);
  assert.deepEqual([status, failed.map((check: { name: string }) => check.name)], [503, ["certificate"]]);
});

Deno.test("while a shutdown drains, /readyz says so and new connections are refused", async () => {
  await using server = await startTestServer({ flags: { "drain-timeout": "1h" } });
  await using alice = await newAccount(server, "alice");
  const hash = await sha256(utf8("late"));
  const body = Promise.withResolvers<void>();
  const upload = alice.connection.putBlob(
    { sha256: hash, size: 4n },
    (async function* () {
      yield utf8("la");
      await body.promise;
      yield utf8("te");
    })(),
  );
  while ((await scrape(server))("qpq_requests_in_flight") === 0);
  const stopped = server.stop();
  const { status, failed } = await readyz(server);
  assert.equal(status, 503);
  assert.deepEqual(failed.map((check: { name: string }) => check.name).sort(), ["draining", "listener"]);
  await assert.rejects(connectTo(server));
  await assert.rejects(alice.connection.call("fetch", {}), { code: "shuttingDown" });
  body.resolve();
  await upload;
  await stopped;
});

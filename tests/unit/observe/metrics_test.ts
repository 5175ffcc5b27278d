import assert from "node:assert/strict";
import { ERRORS } from "../../../mod/base/errors.ts";
import { Metrics } from "../../../mod/observe/metrics.ts";
import { watchEventLoop } from "../../../mod/observe/process_metrics.ts";
import { FakeClock } from "../../support/fake_clock.ts";
import { parseExposition, type Sample } from "./exposition.ts";

function newMetrics(clock = new FakeClock()): Metrics {
  return new Metrics({
    version: "1.2.3",
    methods: ["hello", "fetchWait"],
    limits: ["login", "hello"],
    clock,
  });
}

async function samplesOf(metrics: Metrics): Promise<readonly Sample[]> {
  return parseExposition((await metrics.expose()).body).samples;
}

async function valueOf(metrics: Metrics, name: string, labels: Record<string, string> = {}): Promise<number> {
  const found = (await samplesOf(metrics)).filter((sample) =>
    sample.name === name && Object.entries(labels).every(([label, value]) => sample.labels[label] === value)
  );
  assert.equal(found.length, 1, `${name} ${JSON.stringify(labels)}: ${found.length} samples`);
  return found[0]!.value;
}

/** The operations contract. */
const CONTRACT: Record<string, "counter" | "gauge"> = {
  enqueue_total: "counter",
  enqueue_bytes_total: "counter",
  fetch_total: "counter",
  fetch_wait_total: "counter",
  key_package_upload_total: "counter",
  auth_login_success_total: "counter",
  auth_login_failure_total: "counter",
  rate_limit_hit_total: "counter",
  delivery_queue_depth: "gauge",
};

Deno.test("the nine metrics of the contract are there from the start, without labels", async () => {
  const { types, samples } = parseExposition((await newMetrics().expose()).body);
  for (const [name, type] of Object.entries(CONTRACT)) {
    assert.equal(types.get(name), type, name);
    const found = samples.filter((sample) => sample.name === name);
    assert.deepEqual(found, [{ name, labels: {}, value: 0 }]);
  }
});

Deno.test("every other metric begins with qpq_ or process_", async () => {
  const { types } = parseExposition((await newMetrics().expose()).body);
  for (const name of types.keys()) assert.ok(name in CONTRACT || /^(qpq|process)_/.test(name), name);
});

Deno.test("every metric has a help text", async () => {
  const { types, helps } = parseExposition((await newMetrics().expose()).body);
  for (const name of types.keys()) assert.ok((helps.get(name) ?? "").length > 3, name);
});

Deno.test("every label combination is there from the start, at zero", async () => {
  const metrics = newMetrics();
  for (const method of ["hello", "fetchWait", "other"]) {
    for (const outcome of ["ok", "error"]) {
      assert.equal(await valueOf(metrics, "qpq_request_seconds_count", { method, outcome }), 0);
    }
  }
  for (const code of Object.keys(ERRORS)) {
    assert.equal(await valueOf(metrics, "qpq_request_errors_total", { code }), 0);
  }
  for (const limit of ["login", "hello", "other"]) {
    assert.equal(await valueOf(metrics, "qpq_rate_limit_hits_total", { limit }), 0);
  }
  for (const kind of ["refused", "failed"]) {
    assert.equal(await valueOf(metrics, "qpq_handshake_failures_total", { kind }), 0);
  }
  assert.equal(await valueOf(metrics, "qpq_build_info", { version: "1.2.3" }), 1);
});

Deno.test("request() counts by method and outcome into the right buckets", async () => {
  const metrics = newMetrics();
  metrics.request("hello", "ok", 0.002);
  metrics.request("hello", "ok", 0.2);
  metrics.request("hello", "error", 100);
  const ok = { method: "hello", outcome: "ok" };
  assert.equal(await valueOf(metrics, "qpq_request_seconds_count", ok), 2);
  assert.ok(Math.abs(await valueOf(metrics, "qpq_request_seconds_sum", ok) - 0.202) < 1e-9);
  assert.equal(await valueOf(metrics, "qpq_request_seconds_bucket", { ...ok, le: "0.001" }), 0);
  assert.equal(await valueOf(metrics, "qpq_request_seconds_bucket", { ...ok, le: "0.0025" }), 1);
  assert.equal(await valueOf(metrics, "qpq_request_seconds_bucket", { ...ok, le: "+Inf" }), 2);
  const error = { method: "hello", outcome: "error" };
  assert.equal(await valueOf(metrics, "qpq_request_seconds_bucket", { ...error, le: "60" }), 0);
  assert.equal(await valueOf(metrics, "qpq_request_seconds_bucket", { ...error, le: "+Inf" }), 1);
});

Deno.test("labels stay closed sets, whatever is counted", async () => {
  const metrics = newMetrics();
  const before = (await samplesOf(metrics)).length;
  for (const name of ["made up", "__proto__", 'a"b\n', "constructor"]) {
    metrics.request(name, "ok", 1);
    metrics.requestError(name);
    metrics.rateLimitHit(name);
    metrics.handshakeFailure(name as "refused");
  }
  assert.equal((await samplesOf(metrics)).length, before);
  assert.equal(await valueOf(metrics, "qpq_request_seconds_count", { method: "other", outcome: "ok" }), 4);
  assert.equal(await valueOf(metrics, "qpq_request_errors_total", { code: "internal" }), 4);
  assert.equal(await valueOf(metrics, "qpq_rate_limit_hits_total", { limit: "other" }), 4);
});

Deno.test("rateLimitHit() counts in the contract's counter and by limit", async () => {
  const metrics = newMetrics();
  metrics.rateLimitHit("login");
  metrics.rateLimitHit("hello");
  assert.equal(await valueOf(metrics, "rate_limit_hit_total"), 2);
  assert.equal(await valueOf(metrics, "qpq_rate_limit_hits_total", { limit: "login" }), 1);
});

Deno.test("setStoreCounts() sets the queue depth and the store's gauges", async () => {
  const metrics = newMetrics();
  metrics.setStoreCounts({
    accounts: 1,
    devices: 2,
    queueEntries: 3,
    queueBytes: 4,
    keyPackages: 5,
    blobs: 6,
    blobBytes: 7,
  });
  metrics.storeDiskBytes.set(8);
  assert.equal(await valueOf(metrics, "delivery_queue_depth"), 3);
  const names = ["accounts", "devices", "queue_bytes", "key_packages", "blobs", "blob_bytes", "disk_bytes"];
  const values = await Promise.all(names.map((name) => valueOf(metrics, `qpq_store_${name}`)));
  assert.deepEqual(values, [1, 2, 4, 5, 6, 7, 8]);
});

Deno.test("setOpaqueAccounts() sets both, which are there from the start", async () => {
  const metrics = newMetrics();
  const values = () =>
    Promise.all(["current", "retired"].map((setup) => valueOf(metrics, "qpq_opaque_accounts", { setup })));
  assert.deepEqual(await values(), [0, 0]);
  metrics.setOpaqueAccounts({ current: 7, retired: 2 });
  assert.deepEqual(await values(), [7, 2]);
});

Deno.test("storeBatch() observes size and time", async () => {
  const metrics = newMetrics();
  metrics.storeBatch(120, 0.004);
  assert.equal(await valueOf(metrics, "qpq_store_batch_size_sum"), 120);
  assert.equal(await valueOf(metrics, "qpq_store_batch_seconds_bucket", { le: "0.005" }), 1);
});

Deno.test("expose() waits for the callbacks of onCollect(), until they are taken back", async () => {
  const metrics = newMetrics();
  let asked = 0;
  const end = metrics.onCollect(async () => {
    await Promise.resolve();
    metrics.connections.set(++asked);
  });
  assert.equal(await valueOf(metrics, "qpq_connections"), 1);
  end();
  assert.equal(await valueOf(metrics, "qpq_connections"), 1);
});

Deno.test("scrapes at the same time ask once", async () => {
  const metrics = newMetrics();
  let asked = 0;
  metrics.onCollect(async () => {
    asked++;
    await Promise.resolve();
  });
  await Promise.all([metrics.expose(), metrics.expose(), metrics.expose()]);
  assert.equal(asked, 1);
});

Deno.test("a callback that fails or throws costs its numbers only", async () => {
  const metrics = newMetrics();
  metrics.onCollect(() => Promise.reject(new Error("The store is gone")));
  metrics.onCollect(() => {
    throw new Error("At once");
  });
  metrics.onCollect(() => metrics.connections.set(5));
  assert.equal(await valueOf(metrics, "qpq_connections"), 5);
  assert.equal(await valueOf(metrics, "qpq_collect_failures_total"), 4, "two scrapes, two callbacks");
});

Deno.test("a callback that does not answer is given up", async () => {
  const clock = new FakeClock();
  const metrics = newMetrics(clock);
  const end = metrics.onCollect(() => new Promise<void>(() => {}));
  const exposed = metrics.expose();
  await clock.advance(5_000);
  assert.match((await exposed).body, /qpq_collect_failures_total 1/);
  end();
  assert.equal(clock.pendingTimers, 0);
});

Deno.test("two servers in one process share no metric", async () => {
  const [a, b] = [newMetrics(), newMetrics()];
  a.enqueueTotal.inc();
  assert.deepEqual([await valueOf(a, "enqueue_total"), await valueOf(b, "enqueue_total")], [1, 0]);
});

Deno.test("process metrics have values that can be", async () => {
  const metrics = newMetrics();
  assert.ok(await valueOf(metrics, "process_resident_memory_bytes") > 1e6);
  assert.ok(await valueOf(metrics, "qpq_heap_used_bytes") > 1e5);
  const cpu = await valueOf(metrics, "process_cpu_seconds_total");
  assert.ok(cpu > 0 && await valueOf(metrics, "process_cpu_seconds_total") >= cpu);
  const started = await valueOf(metrics, "process_start_time_seconds");
  assert.ok(started > 1.7e9 && started <= Date.now() / 1000);
});

Deno.test("watchEventLoop() measures how late timers are, until it is ended", async () => {
  const clock = new FakeClock();
  const metrics = newMetrics(clock);
  const end = watchEventLoop(metrics.registry, clock);
  await clock.advance(1000);
  assert.equal(await valueOf(metrics, "qpq_event_loop_lag_seconds_count"), 4);
  assert.equal(await valueOf(metrics, "qpq_event_loop_lag_seconds_sum"), 0);
  end();
  assert.equal(clock.pendingTimers, 0);
});

import assert from "node:assert/strict";
import { type Check, type HealthServer, readiness, startHealthServer } from "../../../mod/observe/health.ts";
import { Metrics } from "../../../mod/observe/metrics.ts";
import { FakeClock } from "../../support/fake_clock.ts";
import { parseExposition } from "./exposition.ts";

const newMetrics = () => new Metrics({ version: "1", methods: [], limits: [], clock: new FakeClock() });

function start(
  checks: () => Promise<readonly Check[]> = async () => [{ name: "store", ok: true }],
  metrics = newMetrics(),
): HealthServer {
  return startHealthServer({ listen: { hostname: "127.0.0.1", port: 0 }, metrics, checks });
}

async function get(server: HealthServer, path: string, init: RequestInit = {}) {
  const response = await fetch(`http://127.0.0.1:${server.address.port}${path}`, init);
  return { status: response.status, headers: response.headers, body: await response.text() };
}

Deno.test("/healthz answers while the process lives, ready or not", async () => {
  await using server = start(async () => [{ name: "store", ok: false, reason: "gone" }]);
  const { status, body } = await get(server, "/healthz");
  assert.deepEqual([status, body], [200, "ok\n"]);
});

Deno.test("/metrics is a Prometheus exposition", async () => {
  const metrics = newMetrics();
  metrics.enqueueTotal.inc(7);
  await using server = start(undefined, metrics);
  const { status, headers, body } = await get(server, "/metrics");
  assert.equal(status, 200);
  assert.equal(headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  assert.equal(parseExposition(body).samples.find(({ name }) => name === "enqueue_total")?.value, 7);
});

Deno.test("/readyz is 200 with every check while all pass, and 503 with reasons when one does not", async () => {
  const metrics = newMetrics();
  const state: { reason?: string } = {};
  await using server = start(async () => [
    { name: "listener", ok: true },
    { name: "store", ok: state.reason === undefined, ...state },
  ], metrics);
  const ready = await get(server, "/readyz");
  assert.equal(ready.status, 200);
  assert.equal(ready.headers.get("content-type"), "application/json");
  assert.deepEqual(JSON.parse(ready.body), {
    ready: true,
    checks: [{ name: "listener", ok: true }, { name: "store", ok: true }],
  });
  assert.match((await metrics.expose()).body, /^qpq_ready 1$/m);
  state.reason = "The disk is full";
  const failing = await get(server, "/readyz");
  assert.equal(failing.status, 503);
  assert.deepEqual(JSON.parse(failing.body).checks[1], { name: "store", ok: false, ...state });
  assert.match((await metrics.expose()).body, /^qpq_ready 0$/m);
});

Deno.test("a scrape asks for readiness itself", async () => {
  const state = { ok: true };
  await using server = start(async () => [{ name: "store", ...state }]);
  assert.match((await get(server, "/metrics")).body, /^qpq_ready 1$/m);
  state.ok = false;
  assert.match((await get(server, "/metrics")).body, /^qpq_ready 0$/m);
});

Deno.test("/readyz is 503 when a check throws", async () => {
  await using server = start(() => Promise.reject(new Error("No store")));
  const { status, body } = await get(server, "/readyz");
  assert.equal(status, 503);
  assert.deepEqual(JSON.parse(body), {
    ready: false,
    checks: [{ name: "checks", ok: false, reason: "No store" }],
  });
});

Deno.test("readiness() does not wait for checks that hang", async () => {
  const clock = new FakeClock();
  const running = readiness({ clock, metrics: newMetrics(), checks: () => new Promise(() => {}) });
  await clock.advance(5_000);
  const { ready, checks } = await running;
  assert.deepEqual([ready, checks[0]?.reason], [false, "No answer within 5 s"]);
});

Deno.test("readiness() leaves no timer behind", async () => {
  const clock = new FakeClock();
  await readiness({ clock, metrics: newMetrics(), checks: async () => [] });
  assert.equal(clock.pendingTimers, 0);
});

Deno.test("other paths are 404, also with tricks in them", async () => {
  await using server = start();
  for (
    const path of [
      "/status/",
      "/status/page.css/",
      "/metrics/",
      "/Metrics",
      "/readyz/x",
      "/../etc/passwd",
      "/__proto__",
      "/constructor",
      "//metrics",
    ]
  ) {
    assert.equal((await get(server, path)).status, 404, path);
  }
  assert.equal((await get(server, "/healthz?verbose=1")).status, 200);
});

Deno.test("only GET and HEAD are allowed", async () => {
  await using server = start();
  for (const method of ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"]) {
    const { status, headers } = await get(server, "/metrics", { method });
    assert.deepEqual([status, headers.get("allow")], [405, "GET, HEAD"]);
  }
});

/** The status of a request as any program may write it. */
async function statusOf(server: HealthServer, head: string): Promise<number> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port: server.address.port });
  await connection.write(
    new TextEncoder().encode(`GET /metrics HTTP/1.1\r\nConnection: close\r\n${head}\r\n\r\n`),
  );
  const text = await new Response(connection.readable).text();
  return Number(text.split(" ")[1]);
}

Deno.test("a request that calls the listener by a strange name is refused: a site's own name may lead here", async () => {
  const names = ["metrics.example.org"];
  const options = { listen: { hostname: "127.0.0.1", port: 0 }, names, metrics: newMetrics() };
  await using server = startHealthServer({ ...options, checks: async () => [] });
  for (
    const ours of [
      "127.0.0.1:9",
      "[::1]:9",
      "localhost",
      "qpq-server:9090",
      "METRICS.example.org:1",
      "10.1.2.3",
    ]
  ) {
    assert.equal(await statusOf(server, `Host: ${ours}`), 200, ours);
  }
  for (
    const strange of [
      "evil.example",
      "evil.example:9090",
      "1.2.3.4.evil.example",
      "metrics.example.org.evil.example",
    ]
  ) {
    assert.equal(await statusOf(server, `Host: ${strange}`), 421, strange);
  }
});

Deno.test("pages of another origin are refused, our own are answered", async () => {
  await using server = start();
  assert.equal(await statusOf(server, "Host: localhost:1\r\nOrigin: http://localhost:1"), 200);
  for (const origin of ["http://evil.example", "null", "https://localhost:1", "http://localhost:2"]) {
    assert.equal(await statusOf(server, `Host: localhost:1\r\nOrigin: ${origin}`), 403, origin);
  }
});

Deno.test("HEAD has the status and headers of GET and no body", async () => {
  await using server = start(async () => [{ name: "store", ok: false }]);
  const { status, headers, body } = await get(server, "/readyz", { method: "HEAD" });
  assert.deepEqual([status, headers.get("content-type"), body], [503, "application/json", ""]);
});

Deno.test("every answer forbids caching, sniffing and framing", async () => {
  await using server = start();
  for (
    const path of ["/", "/status.json", "/status/page.js", "/metrics", "/healthz", "/readyz", "/nothing"]
  ) {
    const { headers } = await get(server, path);
    assert.equal(headers.get("cache-control"), "no-store");
    assert.equal(headers.get("x-content-type-options"), "nosniff");
    assert.equal(headers.get("cross-origin-resource-policy"), "same-origin");
    assert.equal(headers.get("access-control-allow-origin"), null);
    assert.match(headers.get("content-security-policy")!, /default-src 'none'/);
  }
});

Deno.test("requests beyond the bound are told to come back, the others and /healthz are answered", async () => {
  const gate = Promise.withResolvers<readonly Check[]>();
  let running = 0;
  const full = Promise.withResolvers<void>();
  await using server = start(() => {
    if (++running === 32) full.resolve();
    return gate.promise;
  });
  const waiting = Array.from({ length: 32 }, () => get(server, "/readyz"));
  await full.promise;
  const refused = await get(server, "/metrics");
  assert.deepEqual([refused.status, refused.headers.get("retry-after")], [503, "1"]);
  assert.equal((await get(server, "/healthz")).status, 200, "a busy server must not be taken for a dead one");
  gate.resolve([{ name: "store", ok: true }]);
  assert.ok((await Promise.all(waiting)).every(({ status }) => status === 200));
  assert.equal((await get(server, "/metrics")).status, 200);
});

Deno.test("startHealthServer() throws when the port is taken", async () => {
  await using server = start();
  const options = { listen: server.address, metrics: newMetrics(), checks: async () => [] };
  assert.throws(() => startHealthServer(options), Deno.errors.AddrInUse);
});

Deno.test("close() can be called twice and frees the port", async () => {
  const server = start();
  await server.close();
  await server.close();
  await using again = startHealthServer({
    listen: server.address,
    metrics: newMetrics(),
    checks: async () => [],
  });
  assert.equal(again.address.port, server.address.port);
});

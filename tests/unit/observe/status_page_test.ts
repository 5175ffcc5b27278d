import assert from "node:assert/strict";
import { Metrics } from "../../../mod/observe/metrics.ts";
import { watchEventLoop } from "../../../mod/observe/process_metrics.ts";
import { StatusPage } from "../../../mod/observe/status_page.ts";
import { RANGES, StatusHistory } from "../../../mod/observe/status_page_history.ts";
import { escapeHtml } from "../../../mod/observe/status_page_html.ts";
import { between, quantile } from "../../../mod/observe/status_page_reading.ts";
import {
  bytes,
  decimal,
  duration,
  milliseconds,
  statusView,
  whole,
} from "../../../mod/observe/status_page_view.ts";
import type { Check } from "../../../mod/observe/health.ts";
import { FakeClock } from "../../support/fake_clock.ts";

const DAY_S = 86_400;

/** Metrics that are sampled on a clock that the test moves. */
async function startHistory() {
  const clock = new FakeClock();
  const metrics = new Metrics({ version: "1", methods: ["enqueue", "ping"], limits: [], clock });
  const history = new StatusHistory(metrics, clock);
  history.start();
  await history.latest();
  await clock.settle();
  return { clock, metrics, history, [Symbol.asyncDispose]: () => history.stop() };
}

type World = Awaited<ReturnType<typeof startHistory>>;

function view({ history }: World, checks: readonly Check[] = []) {
  const ready = checks.every(({ ok }) => ok);
  return statusView(history, { ready, checks, range: "1h", sinceS: 0 });
}

Deno.test("StatusHistory makes rates of counters, over the last minute at most", async () => {
  await using world = await startHistory();
  const { clock, metrics, history } = world;
  metrics.enqueueTotal.inc(50);
  await clock.advance(5_000);
  assert.deepEqual(history.samples("1h", 0).series.enqueued, [10]);
  await clock.advance(5_000);
  assert.deepEqual(history.samples("1h", 0).series.enqueued, [10, 5]);
  await clock.advance(60_000);
  assert.equal(history.lastMinute("enqueued"), 0);
});

Deno.test("StatusHistory shows gauges as they are, and null where there is no number", async () => {
  await using world = await startHistory();
  const { clock, metrics, history } = world;
  metrics.connections.set(7);
  await clock.advance(5_000);
  const { series, times, stepS, windowS } = history.samples("1h", 0);
  assert.deepEqual([series.connections, series.enqueueP99, series.backupHours], [[7], [null], [null]]);
  assert.deepEqual([times, stepS, windowS], [[clock.now() / 1000], 5, 3600]);
});

Deno.test("StatusHistory has quantiles of the requests between samples", async () => {
  await using world = await startHistory();
  const { clock, metrics, history } = world;
  for (let i = 0; i < 99; i++) metrics.request("enqueue", "ok", 0.0004);
  metrics.request("enqueue", "error", 0.2);
  metrics.request("ping", "ok", 20);
  await clock.advance(5_000);
  const { enqueueP50, enqueueP99 } = history.samples("1h", 0).series;
  assert.ok(enqueueP50[0]! > 0.2 && enqueueP50[0]! < 0.3, `${enqueueP50}`);
  assert.equal(enqueueP99[0], 0.5);
  metrics.request("enqueue", "ok", 0.2);
  await clock.advance(120_000);
  assert.equal(history.samples("1h", 0).series.enqueueP99.at(-1), null, "nothing in the last minute");
});

Deno.test("StatusHistory keeps a fixed number of samples, and gives those after a time", async () => {
  await using world = await startHistory();
  const { clock, history } = world;
  const { stepMs, samples } = RANGES["1h"];
  for (let i = 0; i < samples + 10; i++) await clock.advance(stepMs);
  const { times } = history.samples("1h", 0);
  assert.equal(times.length, samples);
  assert.ok(times.every((time, i) => i === 0 || time - times[i - 1]! === stepMs / 1000), "in order");
  assert.equal(times.at(-1), clock.now() / 1000);
  assert.deepEqual(history.samples("1h", times.at(-3)!).times, times.slice(-2));
  assert.deepEqual(history.samples("24h", 0).times.length, Math.floor((samples + 10) / 24));
});

Deno.test("StatusHistory lists the methods of the last minutes, busiest first", async () => {
  await using world = await startHistory();
  const { clock, metrics, history } = world;
  metrics.request("enqueue", "ok", 0.001);
  metrics.request("ping", "ok", 0.001);
  metrics.request("ping", "error", 0.001);
  await clock.advance(5_000);
  const rows = await history.methods();
  assert.deepEqual(rows.map(({ method, perSecond, errorShare }) => [method, perSecond, errorShare]), [
    ["ping", 0.4, 0.5],
    ["enqueue", 0.2, 0],
  ]);
  await clock.advance(15 * 60_000);
  assert.deepEqual(await history.methods(), []);
});

Deno.test("StatusHistory leaves no timer behind", async () => {
  const world = await startHistory();
  assert.equal(world.clock.pendingTimers, 1);
  await world.history.stop();
  await world.history.stop();
  assert.equal(world.clock.pendingTimers, 0);
});

Deno.test("StatusHistory goes on while a number cannot be had", async () => {
  await using world = await startHistory();
  world.metrics.onCollect(() => Promise.reject(new Error("no store")));
  world.metrics.connections.set(3);
  await world.clock.advance(5_000);
  assert.deepEqual(world.history.samples("1h", 0).series.connections, [3]);
});

Deno.test("statusView() says what needs attention, and how bad it is", async () => {
  await using world = await startHistory();
  const { clock, metrics } = world;
  const now = clock.now() / 1000;
  const seen = async (checks?: readonly Check[]) => {
    await clock.advance(5_000);
    const { level, attention, bars } = await view(world, checks);
    return { level, texts: attention.map(({ text }) => text).join("\n"), bars };
  };
  metrics.certificateExpirySeconds.set(now + 60 * DAY_S);
  metrics.backupLastSuccessSeconds.set(now - 3600);
  assert.deepEqual(await seen([{ name: "store", ok: true }]), {
    level: "ok",
    texts: "",
    bars: { certificate: { percent: 67, level: "ok" }, backup: { percent: 96, level: "ok" } },
  });
  metrics.certificateExpirySeconds.set(now + 20 * DAY_S);
  metrics.backupLastSuccessSeconds.set(now - 27 * 3600);
  const warned = await seen();
  assert.equal(warned.level, "warning");
  assert.match(warned.texts, /expires in 19 d 23 h\n.*backup is 1 d 3 h old/);
  metrics.certificateExpirySeconds.set(now - 1);
  const critical = await seen();
  assert.deepEqual([critical.level, critical.bars.certificate], ["critical", {
    percent: 0,
    level: "critical",
  }]);
  assert.match(critical.texts, /has expired/);
});

Deno.test("statusView() repeats what readiness says", async () => {
  await using world = await startHistory();
  const checks = [{ name: "store", ok: false, reason: "The disk is full" }];
  const { level, status, attention } = await view(world, checks);
  assert.deepEqual([level, status, attention[0]], ["critical", "Not ready", {
    level: "critical",
    text: "store: The disk is full",
  }]);
  const paused = await view(world, [{ name: "expiry", ok: true, reason: "The clock jumped" }]);
  assert.deepEqual([paused.status, paused.attention[0]?.level], ["Ready", "warning"]);
});

Deno.test("statusView() allows a backup twice the time of its schedule", async () => {
  await using world = await startHistory();
  const { clock, metrics } = world;
  const levelAt = async (ageS: number) => {
    metrics.backupLastSuccessSeconds.set(clock.now() / 1000 + 5 - ageS);
    await clock.advance(5_000);
    return (await view(world)).bars.backup.level;
  };
  metrics.backupIntervalSeconds.set(3600);
  assert.deepEqual([await levelAt(2 * 3600), await levelAt(2 * 3600 + 1)], ["ok", "warning"]);
  metrics.backupIntervalSeconds.set(7 * DAY_S);
  assert.equal(await levelAt(13 * DAY_S), "ok");
});

Deno.test("the page asks for readiness once for many readers", async () => {
  const clock = new FakeClock();
  const metrics = new Metrics({ version: "1", methods: [], limits: [], clock });
  let asked = 0;
  const page = new StatusPage({
    metrics,
    clock,
    readiness: async () => ({ ready: ++asked > 0, checks: [] }),
  });
  page.start();
  const read = () => page.answer(new URL("http://server/status.json"));
  await Promise.all([read(), read(), read()]);
  assert.equal(asked, 1);
  await clock.advance(5_000);
  await read();
  assert.equal(asked, 2);
  await page.stop();
});

Deno.test("the page escapes what it shows and holds no script or style of its own", async () => {
  const clock = new FakeClock();
  const metrics = new Metrics({ version: "1", methods: [], limits: [], clock });
  const reason = `<script>alert("x")</script>`;
  const page = new StatusPage({
    metrics,
    clock,
    readiness: async () => ({ ready: false, checks: [{ name: "store", ok: false, reason }] }),
  });
  page.start();
  const { body, headers, type } = await page.answer(new URL("http://server/?range=__proto__&since=x"));
  assert.equal(type, "text/html; charset=utf-8");
  assert.ok(body.includes("store: &lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;"));
  assert.doesNotMatch(body, /<script>|<style|\sstyle=|\son\w+=|javascript:|https?:/);
  assert.match(
    headers["content-security-policy"]!,
    /default-src 'none'; script-src 'self'; style-src 'self';/,
  );
  await page.stop();
});

Deno.test("quantile() is linear within a bucket, as Prometheus' is", () => {
  const times = { bounds: [1, 2, 4], counts: [0, 10, 20, 20] };
  assert.deepEqual([0.25, 0.5, 0.75, 1].map((share) => quantile(share, times)), [1.5, 2, 3, 4]);
  assert.equal(quantile(0.99, { bounds: [1, 2], counts: [0, 0, 5] }), 2, "beyond the last bound");
  assert.ok(Number.isNaN(quantile(0.5, { bounds: [1], counts: [0, 0] })));
  assert.deepEqual(between(undefined, times), times);
  assert.deepEqual(between({ bounds: [1, 2, 4], counts: [0, 4, 5, 5] }, times).counts, [0, 6, 15, 15]);
});

Deno.test("numbers are written for people", () => {
  assert.deepEqual([0, 0.044, 1.25, 34.56, 5600.4].map(decimal), ["0", "0.04", "1.25", "34.6", "5,600"]);
  assert.deepEqual([0, 1023, 1536, 5e9, 2 ** 53].map(bytes), [
    "0 B",
    "1,023 B",
    "1.5 kB",
    "4.66 GB",
    "8,192 TB",
  ]);
  assert.deepEqual([NaN, 0.5, 999, 1500].map(milliseconds), ["–", "0.5 ms", "999 ms", "1.5 s"]);
  assert.deepEqual([0, 59, 60, 3_700, 90_000, 40 * DAY_S].map(duration), [
    "0 s",
    "59 s",
    "1 min",
    "1 h 1 min",
    "1 d 1 h",
    "40 d",
  ]);
  assert.equal(whole(1234567.8), "1,234,568");
  assert.equal(escapeHtml(`<a href='x'>&"`), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
});

Deno.test("the lag of the event loop is in the history", async () => {
  await using world = await startHistory();
  const end = watchEventLoop(world.metrics.registry, world.clock);
  await world.clock.advance(10_000);
  assert.equal(typeof world.history.samples("1h", 0).series.lag.at(-1), "number");
  end();
});

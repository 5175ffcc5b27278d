import assert from "node:assert/strict";
import { systemClock } from "../../../mod/base/clock.ts";
import { configureLogs } from "../../../mod/base/log.ts";
import { PeerRefused, RefusalLog, reportRefusal } from "../../../mod/federation/refusal.ts";
import { FakeClock } from "../../support/fake_clock.ts";
import { Metrics, PEER_REFUSAL_REASONS } from "../../../mod/observe/metrics.ts";

Deno.test("reportRefusal() has a counter and a log line of its own for each reason", async () => {
  const lines: { msg: string; level: string }[] = [];
  configureLogs({ filter: "warn", format: "json", write: (line) => void lines.push(JSON.parse(line)) });
  const metrics = new Metrics({ version: "0", methods: [], limits: [], clock: systemClock });
  for (const reason of PEER_REFUSAL_REASONS) {
    reportRefusal(metrics, new PeerRefused(reason, "why"), "a.example");
  }
  assert.equal(new Set(lines.map(({ msg }) => msg)).size, PEER_REFUSAL_REASONS.length);
  for (const { msg } of lines) assert.match(msg, /a\.example/);
  const { body } = await metrics.render();
  for (const reason of PEER_REFUSAL_REASONS) {
    assert.ok(body.includes(`qpq_federation_refused_total{reason="${reason}"} 1\n`), reason);
  }
});

Deno.test("a flood of refusals is counted, and a few of them are logged for each reason", async () => {
  const lines: string[] = [];
  configureLogs({ filter: "warn", format: "json", write: (line) => void lines.push(JSON.parse(line).msg) });
  const clock = new FakeClock();
  const metrics = new Metrics({ version: "0", methods: [], limits: [], clock: systemClock });
  const refusals = new RefusalLog({ metrics, clock });
  const flood = (count: number) => {
    for (let i = 0; i < count; i++) refusals.report(new PeerRefused("timeout", "why"), "a.example");
  };
  flood(1000);
  assert.equal(lines.length, 20);
  refusals.report(new PeerRefused("blocked", "why"), "b.example");
  assert.equal(lines.at(-1), "a blocked peer was refused: b.example");
  lines.length = 0;
  await clock.advance(60_000);
  flood(1000);
  assert.equal(lines[0], "980 more were refused before (timeout)");
  assert.equal(lines.length, 11);
  const { body } = await metrics.render();
  assert.match(body, /qpq_federation_refused_total\{reason="timeout"\} 2000\n/);
});

import assert from "node:assert/strict";
import { systemClock } from "../../../mod/base/clock.ts";
import { configureLogs } from "../../../mod/base/log.ts";
import { PeerRefused, reportRefusal } from "../../../mod/federation/refusal.ts";
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

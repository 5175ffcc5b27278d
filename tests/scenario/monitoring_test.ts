/**
 * What ships under ops/ for monitoring, in the hands of real Prometheus and Alertmanager: the files are valid, every
 * alert fires when it should, every expression finds its metrics on a running server, an alert arrives.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { randomBytes } from "../../mod/base/bytes.ts";
import { Metrics } from "../../mod/observe/metrics.ts";
import { PeerMetrics } from "../../mod/federation/peer_metrics.ts";
import { watchEventLoop } from "../../mod/observe/process_metrics.ts";
import { runTool } from "../support/background_process.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { Monitoring, opsPath, poll, type Rule } from "../support/prometheus.ts";
import { newAccount } from "../support/test_client.ts";
import { commandLine } from "../support/program.ts";
import { freeUdpPort, ServerProcess } from "../support/server_process.ts";
import { callControl } from "../../mod/admin/control.ts";
import { FederationWorld } from "../support/federation_world.ts";
import { lacks } from "../support/installed.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { parseExposition } from "../unit/observe/exposition.ts";

const promtool = (...args: string[]) => runTool({ program: "promtool", args, debianPackage: "prometheus" });
const read = (name: string) => Deno.readTextFile(opsPath(name));

/** The operations contract: expression, `for` in seconds, severity. */
const CONTRACT: Record<string, readonly [string, number, string]> = {
  QpqServerDown: ['up{job="qpq-server"} == 0', 60, "critical"],
  QpqHighAuthFailureRate: ["rate(auth_login_failure_total[5m]) > 10", 120, "warning"],
  QpqRateLimitActive: ["rate(rate_limit_hit_total[5m]) > 5", 300, "warning"],
  QpqDeliveryQueueHigh: ["delivery_queue_depth > 10000", 600, "warning"],
  QpqDeliveryQueueCritical: ["delivery_queue_depth > 100000", 300, "critical"],
  QpqNoEnqueueActivity: ["rate(enqueue_total[15m]) == 0", 1800, "warning"],
  QpqLowAuthSuccessRatio: [
    "rate(auth_login_success_total[5m]) / (rate(auth_login_success_total[5m]) + rate(auth_login_failure_total[5m])) < 0.5",
    600,
    "warning",
  ],
};

/** Sections of the incident playbook. */
const SECTIONS = [
  "server-down",
  "disk-full",
  "database-damaged",
  "certificate-expired",
  "token-leaked",
  "opaque-setup-leaked",
  "db-key-leaked-or-lost",
  "flood-or-brute-force",
  "queue-growing",
  "federation",
  "restore-from-nothing",
];

/** Alerts of the rule file as it is written, by name. */
async function writtenAlerts(): Promise<Map<string, { text: string; forSeconds: number; section: string }>> {
  const seconds: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 };
  const blocks = (await read("prometheus-alerts.yml")).split("      - alert: ").slice(1);
  return new Map(blocks.map((text) => {
    const [, count, unit] = / for: (\d+)([smhd])$/m.exec(text) ?? [, "0", "s"];
    const section = /runbook_url: ops\/incident-response\.md#([\w-]+)$/m.exec(text)?.[1] ?? "";
    return [/^\w+/.exec(text)![0], { text, forSeconds: Number(count) * seconds[unit!]!, section }];
  }));
}

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly datasource?: { readonly uid: string };
  readonly targets?: readonly { readonly refId: string; readonly expr: string }[];
}

interface Dashboard {
  readonly uid: string;
  readonly schemaVersion: number;
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly { name: string; current: { value: unknown } }[] };
}

async function dashboard(): Promise<Dashboard> {
  return JSON.parse(await read("dashboards/qpq-overview.json"));
}

/** Names of the metrics in an expression. */
function metricsOf(expression: string): string[] {
  const bare = expression.replaceAll(/"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(by|on|without)\s*\([^)]*\)/g, " ");
  const names = bare.matchAll(/\b[a-z_:][\w:]*\b(?!\s*\()/gi);
  return [...new Set([...names].map(([name]) => name))].filter((name) =>
    !/^(and|or|unless|offset)$/.test(name)
  );
}

/** Receives what Alertmanager sends; resolves with the alert that says that the server is down. */
function startWebhook() {
  const received = Promise.withResolvers<{ labels: Record<string, string>; status: string }>();
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
    const { alerts } = await request.json() as { alerts: Awaited<typeof received.promise>[] };
    const down = alerts.find(({ labels }) => labels["alertname"] === "QpqServerDown");
    if (down) received.resolve(down);
    return new Response();
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}/alerts`,
    received: received.promise,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

Deno.test("promtool and amtool accept the configuration, the alerts and the example of Alertmanager", {
  ignore: lacks("promtool", "amtool"),
}, async () => {
  const config = await promtool("check", "config", opsPath("prometheus.yml"));
  assert.deepEqual(
    [config.code, /SUCCESS: 1 rule files found/.test(config.output)],
    [0, true],
    config.output,
  );
  const rules = await promtool(
    "check",
    "rules",
    "--lint=all",
    "--lint-fatal",
    opsPath("prometheus-alerts.yml"),
  );
  assert.equal(rules.code, 0, rules.output);
  const amtool = await runTool({
    program: "amtool",
    args: ["check-config", opsPath("alertmanager.yml")],
    debianPackage: "prometheus-alertmanager",
  });
  assert.equal(amtool.code, 0, amtool.output);
});

Deno.test("every alert is tested, firing and not firing", { ignore: lacks("promtool") }, async () => {
  const files = ["prometheus-alerts_test.yml", "prometheus-alerts-days_test.yml"];
  const { code, output } = await promtool("test", "rules", ...files.map(opsPath));
  assert.equal(code, 0, output);
  const cases = (await Promise.all(files.map(read))).join("").split("  - name: ").slice(1);
  for (const name of (await writtenAlerts()).keys()) {
    const own = cases.filter((text) => text.startsWith(`${name}\n`)).join("");
    assert.match(
      own,
      new RegExp(`alertname="${name}", alertstate="firing"[^]*?exp_samples: \\[\\]`),
      `${name}: quiet`,
    );
    assert.match(own, new RegExp(`labels: '\\{alertname="${name}"`), `${name}: firing`);
  }
});

Deno.test("every alert leads to a section of the playbook, as monitoring.md says", async () => {
  const page = await read("monitoring.md");
  for (const [name, { section, text }] of await writtenAlerts()) {
    assert.ok(SECTIONS.includes(section), `${name}: ${section}`);
    assert.ok(/summary: \S/.test(text) && /description: \S/.test(text), name);
    assert.match(page, new RegExp(`^\\| \`${name}\` .*incident-response\\.md#${section}\\)`, "m"), name);
  }
});

Deno.test("monitoring.md has every metric with its type, and no other", async () => {
  const clock = new FakeClock();
  const metrics = new Metrics({ version: "1", methods: [], limits: [], clock });
  new PeerMetrics(metrics.registry, []);
  const end = watchEventLoop(metrics.registry, clock);
  const { types, helps } = parseExposition((await metrics.expose()).body);
  end();
  const row = /^\| `([a-z_]+)(?:\{[a-z,]+\})?` +\| (counter|gauge|histogram) +\| (.+?) +\|$/gm;
  const rows = (await read("monitoring.md")).matchAll(row);
  const written = [...rows].map(([, name, type, text]) => `${name} ${type} ${text}`).sort();
  assert.deepEqual(written, [...types].map(([name, type]) => `${name} ${type} ${helps.get(name)}`).sort());
});

Deno.test("the dashboard has the contract's panels, each at a place of its own", async () => {
  const { panels, uid, schemaVersion, templating } = await dashboard();
  assert.deepEqual([uid, schemaVersion >= 39], ["qpq-overview", true]);
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
  const places = new Set<string>();
  let row = "";
  const titles: string[] = [];
  for (const { type, title, gridPos: { x, y, w, h }, targets, datasource } of panels) {
    for (let i = 0; i < w * h; i++) {
      const place = `${x + i % w},${y + Math.floor(i / w)}`;
      assert.ok(!places.has(place) && x + w <= 24, `${title} lies over another panel at ${place}`);
      places.add(place);
    }
    if (type === "row") row = title;
    else titles.push(`${row}: ${title}`);
    if (type === "row") continue;
    assert.ok(targets!.length > 0 && datasource!.uid === "${datasource}", title);
  }
  const { variables } = {
    variables: new Map(templating.list.map(({ name, current }) => [name, current.value])),
  };
  const uidOf = /uid: (\S+)/.exec(await read("grafana-provisioning/datasources/prometheus.yml"))![1];
  assert.equal(variables.get("datasource"), uidOf);
  for (
    const wanted of [
      "Message throughput: Enqueue rate",
      "Message throughput: Fetch rate",
      "Message throughput: Enqueue bandwidth",
      "Authentication: Login success rate",
      "Authentication: Login failure rate",
      "Authentication: Login success ratio",
      "Delivery queue: Queue depth",
      "Delivery queue: Queue growth",
      "Rate limiting: Rate limit hits",
      "Infrastructure (node_exporter): CPU",
      "Infrastructure (node_exporter): Memory",
      "Infrastructure (node_exporter): Disk space",
      "Infrastructure (node_exporter): Network traffic",
    ]
  ) {
    assert.ok(titles.includes(wanted), wanted);
  }
});

Deno.test(
  "Prometheus finds data for every expression of dashboard and alerts; an alert reaches Alertmanager",
  { ignore: lacks("prometheus", "prometheus-alertmanager", "prometheus-node-exporter") },
  async () => {
    await using webhook = startWebhook();
    await using world = await FederationWorld.start(["a.example", "b.example"], {
      flags: { "backup-schedule": "1h" },
    });
    const server = world.at("a.example");
    const { hostname, port } = server.server.metricsAddress!;
    await callControl(server.dataDir, { name: "backup create" });
    await using monitoring = await Monitoring.start({ server: `${hostname}:${port}`, webhook: webhook.url });
    {
      await using alice = await newAccount(server, "alice");
      await using bob = await newAccount(server, "bob");
      const traffic = async () => {
        await alice.enqueue([bob.deviceId], { payload: randomBytes(100) });
        await bob.connection.call("fetch", {});
      };
      await checkTargets(monitoring);
      await checkDashboard(monitoring, traffic);
      await checkRules(monitoring);
    }
    await server.stop();
    const down = await poll("QpqServerDown in Alertmanager", async () => {
      const alerts = await monitoring.alerts();
      return alerts.find(({ labels }) => labels["alertname"] === "QpqServerDown");
    });
    assert.deepEqual([down.labels["severity"], down.labels["instance"]], ["critical", `${hostname}:${port}`]);
    assert.equal(down.annotations["summary"], `${hostname}:${port} does not answer`);
    assert.equal(down.annotations["runbook_url"], "ops/incident-response.md#server-down");
    assert.equal((await webhook.received).status, "firing");
  },
);

Deno.test(
  "the commands of monitoring.md work",
  { ignore: lacks("promtool", "curl", "jq", "ss", "pgrep") },
  async () => {
    await using folder = await tempFolder();
    const port = freeUdpPort();
    const metrics = freeTcpPort();
    const flags = ["--metrics-enabled", "--metrics-listen", `127.0.0.1:${metrics}`];
    await using server = await ServerProcess.start({ dataDir: join(folder.path, "data"), port, flags });
    const bin = join(folder.path, "bin");
    await Deno.mkdir(bin);
    const program = commandLine(["client"]).map((word) => `'${word}'`).join(" ");
    await Deno.writeTextFile(join(bin, "qpq-client"), `#!/bin/sh\nexec ${program} "$@"\n`, { mode: 0o755 });
    await Deno.symlink(opsPath(""), join(folder.path, "ops"));
    const page = await read("monitoring.md");
    const example = /^```json\n([^]*?)^```$/m.exec(page)![1]!;
    await Deno.writeTextFile(join(folder.path, "qpq.log"), `${server.log}\n${example}`);
    const blocks = [...page.matchAll(/^```sh\n([^]*?)^```$/gm)].map(([, block]) => block!);
    assert.ok(blocks.length >= 4);
    const lines = blocks.flatMap((block) => block.trim().split("\n"));
    const env = {
      PATH: `${bin}:${Deno.env.get("PATH")}`,
      TOKEN: server.accessToken,
      QPQ_DATA_DIR: server.dataDir,
    };
    for (const line of lines) {
      const command = line.replaceAll("127.0.0.1:9090", `127.0.0.1:${metrics}`).replaceAll(
        ":7000",
        `:${port}`,
      );
      const { code, stdout, stderr } = await new Deno.Command("bash", {
        args: ["-euo", "pipefail", "-c", command],
        cwd: folder.path,
        env,
      }).output();
      const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
      assert.equal(code, 0, `${line}\n${text(stdout)}${text(stderr)}`);
      assert.notEqual(text(stdout).trim(), "", `${line} says nothing`);
    }
  },
);

/** A TCP port that was free a moment ago. */
function freeTcpPort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

async function checkTargets(monitoring: Monitoring): Promise<void> {
  const wanted = { "qpq-server": "up", node: "up", prometheus: "up", alertmanager: "up" };
  let seen = {};
  await poll("Every target is up", async () => {
    seen = await monitoring.targets();
    return Object.entries(wanted).every(([job, health]) =>
      (seen as typeof wanted)[job as "node"] === health
    ) || undefined;
  }, () => JSON.stringify(seen));
}

/** Each expression gives a result while there is traffic. */
async function checkDashboard(monitoring: Monitoring, traffic: () => Promise<void>): Promise<void> {
  const { panels } = await dashboard();
  const missing = new Map<string, string>();
  for (const { title, targets = [] } of panels) {
    for (const { refId, expr } of targets) {
      const filled = expr.replaceAll("$__rate_interval", "10s").replaceAll(/\$(instance|node)/g, ".*");
      missing.set(`${title} ${refId}`, filled);
    }
  }
  assert.ok(missing.size > 50);
  await poll("Every expression of the dashboard gives a result", async () => {
    await traffic();
    for (const [name, expression] of missing) {
      if ((await monitoring.query(expression)).length > 0) missing.delete(name);
    }
    return missing.size === 0 || undefined;
  }, () => [...missing].map(([name, expression]) => `${name}: ${expression}`).join("\n"));
  const one = async (expression: string) => Number((await monitoring.query(expression))[0]!.value[1]);
  const p99 = await one(
    'histogram_quantile(0.99, sum by (le) (rate(qpq_request_seconds_bucket{method="enqueue"}[1m])))',
  );
  assert.ok(p99 > 0, `${p99}`);
  assert.ok(await one("sum(rate(qpq_store_batch_seconds_count[1m]))") > 0, "transactions are measured");
  assert.equal(await one("qpq_ready"), 1);
  assert.equal(await one("auth_login_success_total"), 2);
}

/** Each rule was evaluated, is what the contract says, and asks for metrics that are there. */
async function checkRules(monitoring: Monitoring): Promise<void> {
  const rules = await poll("Every rule is evaluated", async () => {
    const found = await monitoring.rules();
    return found.length > 0 && found.every(({ health }) => health !== "unknown") ? found : undefined;
  });
  const written = await writtenAlerts();
  assert.deepEqual(rules.map(({ name }) => name), [...written.keys()]);
  const byName = new Map<string, Rule>(rules.map((rule) => [rule.name, rule]));
  for (const [name, [expression, forSeconds, severity]] of Object.entries(CONTRACT)) {
    const { query, labels } = byName.get(name)!;
    assert.deepEqual([query, written.get(name)!.forSeconds, labels["severity"]], [
      expression,
      forSeconds,
      severity,
    ]);
  }
  for (const { name, query, health, lastError } of rules) {
    assert.equal(health, "ok", `${name}: ${lastError}`);
    for (const metric of metricsOf(query)) {
      assert.ok(
        (await monitoring.query(`count({__name__="${metric}"})`)).length > 0,
        `${name}: no ${metric}`,
      );
    }
  }
}

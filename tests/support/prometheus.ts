/**
 * Real Prometheus, Alertmanager and node_exporter on loopback, with the configuration of ops/ in which only
 * addresses and times are replaced. Debian: prometheus, prometheus-alertmanager, prometheus-node-exporter.
 */
import { join } from "node:path";
import { BackgroundProcess } from "./background_process.ts";
import { tempFolder } from "./temp_folder.ts";

const OPS = new URL("../../ops/", import.meta.url).pathname;
const LISTENING = /msg="Listening on" address=(\S+)/;
const LOOPBACK = "--web.listen-address=127.0.0.1:0";
/** How long a test waits for something that Prometheus will do. */
const DEADLINE_MS = 60_000;
const POLL_MS = 100;

/** Path of a file under ops/. */
export function opsPath(name: string): string {
  return join(OPS, name);
}

/** A vector's element, a rule, an alert: as the HTTP API gives them. */
export interface VectorElement {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

/** An alerting rule. */
export interface Rule {
  readonly name: string;
  readonly query: string;
  /** Of `for`, in seconds. */
  readonly duration: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly health: "ok" | "err" | "unknown";
  readonly lastError?: string;
}

/** An alert in Alertmanager. */
export interface Alert {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

/** Asks until there is an answer; throws with what was seen last when it takes too long. */
export async function poll<Result>(
  what: string,
  ask: () => Promise<Result | undefined>,
  seen: () => string = () => "",
): Promise<Result> {
  const deadline = Date.now() + DEADLINE_MS;
  while (true) {
    const result = await ask();
    if (result !== undefined) return result;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${DEADLINE_MS / 1000} s\n${seen()}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Replaces every `from`; throws when there is none, so that a changed file is noticed. */
export function replaceAll(text: string, replacements: Readonly<Record<string, string>>): string {
  for (const [from, to] of Object.entries(replacements)) {
    if (!text.includes(from)) throw new Error(`There is no "${from}" to replace`);
    text = text.replaceAll(from, to);
  }
  return text;
}

async function getJson<Result>(url: string): Promise<Result> {
  const response = await fetch(url);
  const text = await response.text();
  if (!response.ok) throw new Error(`${url}: ${response.status} ${text}`);
  return JSON.parse(text);
}

/** Prometheus with its companions, watching one server. */
export class Monitoring implements AsyncDisposable {
  readonly #prometheus: string;
  readonly #alertmanager: string;
  readonly #cleanup: AsyncDisposableStack;

  private constructor(
    addresses: { prometheus: string; alertmanager: string },
    cleanup: AsyncDisposableStack,
  ) {
    this.#prometheus = `http://${addresses.prometheus}`;
    this.#alertmanager = `http://${addresses.alertmanager}`;
    this.#cleanup = cleanup;
  }

  /** `server`: host and port of its metrics; `webhook`: where Alertmanager sends alerts. */
  static async start(options: { server: string; webhook: string }): Promise<Monitoring> {
    await using cleanup = new AsyncDisposableStack();
    const folder = cleanup.use(await tempFolder()).path;
    const start = async (program: string, debianPackage: string, args: string[]) => {
      const process = cleanup.use(
        BackgroundProcess.start({ program, debianPackage, args: [LOOPBACK, ...args] }),
      );
      return (await process.match(LISTENING))[1]!;
    };
    const node = await start("prometheus-node-exporter", "prometheus-node-exporter", [
      // The defaults leave out overlay, which is all that a container may have.
      "--collector.filesystem.fs-types-exclude=^(proc|sysfs|cgroup2?|devpts|mqueue|tmpfs)$",
      "--collector.filesystem.mount-points-exclude=^/(dev|proc|sys|run)($|/)",
    ]);
    await writeAlertmanagerConfig(folder, options.webhook);
    const alertmanager = await start("prometheus-alertmanager", "prometheus-alertmanager", [
      `--config.file=${join(folder, "alertmanager.yml")}`,
      `--storage.path=${join(folder, "alertmanager")}`,
      "--cluster.listen-address=",
    ]);
    const targets = { server: options.server, node, alertmanager };
    await writePrometheusConfig(folder, { ...targets, prometheus: "127.0.0.1:9" });
    const prometheus = await start("prometheus", "prometheus", [
      `--config.file=${join(folder, "prometheus.yml")}`,
      `--storage.tsdb.path=${join(folder, "data")}`,
      "--web.enable-lifecycle",
    ]);
    const monitoring = new Monitoring({ prometheus, alertmanager }, cleanup.move());
    await writePrometheusConfig(folder, { ...targets, prometheus });
    await monitoring.#reload();
    return monitoring;
  }

  async #reload(): Promise<void> {
    await poll("Prometheus reloads", async () => {
      const response = await fetch(`${this.#prometheus}/-/reload`, { method: "POST" });
      await response.body?.cancel();
      return response.ok ? true : undefined;
    });
  }

  /** Evaluates an expression now; scalars become a vector of one. Throws for what Prometheus refuses. */
  async query(expression: string): Promise<VectorElement[]> {
    const url = `${this.#prometheus}/api/v1/query?query=${encodeURIComponent(expression)}`;
    const { data } = await getJson<{ data: { resultType: string; result: unknown } }>(url);
    if (data.resultType === "vector") return data.result as VectorElement[];
    return [{ metric: {}, value: data.result as [number, string] }];
  }

  /** The alerting rules that Prometheus has loaded. */
  async rules(): Promise<Rule[]> {
    const { data } = await getJson<{ data: { groups: { name: string; rules: Rule[] }[] } }>(
      `${this.#prometheus}/api/v1/rules?type=alert`,
    );
    return data.groups.filter(({ name }) => name === "qpq-server").flatMap(({ rules }) => rules);
  }

  /** Jobs of all targets, with whether each was scraped. */
  async targets(): Promise<Record<string, string>> {
    const { data } = await getJson<
      { data: { activeTargets: { labels: { job: string }; health: string }[] } }
    >(`${this.#prometheus}/api/v1/targets`);
    return Object.fromEntries(data.activeTargets.map(({ labels, health }) => [labels.job, health]));
  }

  /** Alerts that reached Alertmanager. */
  alerts(): Promise<Alert[]> {
    return getJson(`${this.#alertmanager}/api/v2/alerts`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cleanup.disposeAsync();
  }
}

async function writeAlertmanagerConfig(folder: string, webhook: string): Promise<void> {
  const text = replaceAll(await Deno.readTextFile(opsPath("alertmanager.yml")), {
    "http://127.0.0.1:9095/alerts": webhook,
    "group_wait: 30s": "group_wait: 0s",
    "group_wait: 10s": "group_wait: 0s",
  });
  await Deno.writeTextFile(join(folder, "alertmanager.yml"), text);
}

async function writePrometheusConfig(
  folder: string,
  targets: { server: string; node: string; alertmanager: string; prometheus: string },
): Promise<void> {
  const config = replaceAll(await Deno.readTextFile(opsPath("prometheus.yml")), {
    "qpq-server:9090": targets.server,
    "node-exporter:9100": targets.node,
    "alertmanager:9093": targets.alertmanager,
    "localhost:9090": targets.prometheus,
    "scrape_interval: 15s": "scrape_interval: 500ms\n  scrape_timeout: 500ms",
    "scrape_interval: 10s": "scrape_interval: 500ms",
    "scrape_timeout: 8s": "scrape_timeout: 500ms",
    "evaluation_interval: 15s": "evaluation_interval: 500ms",
  });
  await Deno.writeTextFile(join(folder, "prometheus.yml"), config);
  const rules = await Deno.readTextFile(opsPath("prometheus-alerts.yml"));
  await Deno.writeTextFile(
    join(folder, "prometheus-alerts.yml"),
    rules.replaceAll(/ for: \w+$/gm, " for: 0s"),
  );
}

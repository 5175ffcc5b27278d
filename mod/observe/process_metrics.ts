/**
 * Metrics of the process and of the event loop. prom-client's own need `--allow-all` on Deno (they read /proc),
 * show zeros without it and keep a timer that nobody can stop; these need no permission and end when told.
 * Their names are the usual ones of Prometheus client libraries.
 */
import { cpuUsage } from "node:process";
import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import type { Clock } from "../base/clock.ts";

const LAG_INTERVAL_MS = 250;
const LAG_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];

/** CPU, memory and start of this process, read at each scrape. */
export function registerProcessMetrics(registry: Registry): void {
  const registers = [registry];
  const started = (performance.timeOrigin ?? Date.now()) / 1000;
  const cpu = (name: string, help: string, seconds: () => number) =>
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(seconds());
      },
    });
  cpu("process_cpu_user_seconds_total", "CPU time in user mode", () => cpuUsage().user / 1e6);
  cpu("process_cpu_system_seconds_total", "CPU time in the kernel", () => cpuUsage().system / 1e6);
  cpu("process_cpu_seconds_total", "CPU time", () => (cpuUsage().user + cpuUsage().system) / 1e6);
  new Gauge({ name: "process_start_time_seconds", help: "When the process started, Unix time", registers })
    .set(started);
  const memory = (name: string, help: string, field: keyof Deno.MemoryUsage) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(Deno.memoryUsage()[field]);
      },
    });
  memory("process_resident_memory_bytes", "Resident memory", "rss");
  memory("qpq_heap_total_bytes", "JavaScript heap of the main thread", "heapTotal");
  memory("qpq_heap_used_bytes", "JavaScript heap of the main thread in use", "heapUsed");
  memory(
    "qpq_external_memory_bytes",
    "Memory outside the main thread's heap, ended connections by an estimate",
    "external",
  );
}

/** Measures how late timers are, four times a second, as `qpq_event_loop_lag_seconds`. Returns what ends it. */
export function watchEventLoop(registry: Registry, clock: Clock): () => void {
  const histogram = new Histogram({
    name: "qpq_event_loop_lag_seconds",
    help: "How late the event loop was",
    buckets: LAG_BUCKETS,
    registers: [registry],
  });
  let cancel: () => void;
  const arm = () => {
    const due = clock.monotonic() + LAG_INTERVAL_MS;
    cancel = clock.after(LAG_INTERVAL_MS, () => {
      histogram.observe(Math.max(0, clock.monotonic() - due) / 1000);
      arm();
    });
  };
  arm();
  return () => cancel();
}

/**
 * What the status page says, in words: tiles, bars, the store, methods, and what needs attention. Made on the
 * server alone, so that the first page and each refresh by the script say the same.
 */
import { VERSION } from "../base/version.ts";
import type { Check } from "./health.ts";
import { type RangeName, type Samples, type StatusHistory } from "./status_page_history.ts";
import type { Reading } from "./status_page_reading.ts";

/** How bad something is; names of CSS classes too. */
export type Level = "ok" | "warning" | "critical";

/** Something that an operator should look at. */
export interface Attention {
  readonly level: Level;
  readonly text: string;
}

/** How full a bar is, 0–100. */
export interface Bar {
  readonly percent: number;
  readonly level: Level;
}

/** Everything on the page. */
export interface StatusView {
  readonly level: Level;
  readonly status: string;
  readonly attention: readonly Attention[];
  /** By id of the element that shows it. */
  readonly texts: Readonly<Record<string, string>>;
  readonly bars: Readonly<Record<"certificate" | "backup", Bar>>;
  readonly methods: readonly (readonly string[])[];
  readonly samples: Samples;
}

const DAY_S = 86_400;
const HOUR_S = 3_600;

/** The bar of the certificate is full at so much of life left: what the server gives its own. */
const CERTIFICATE_FULL_S = 90 * DAY_S;
/** The thresholds of ops/prometheus-alerts.yml. */
const CERTIFICATE_WARN_S = 30 * DAY_S;
const CERTIFICATE_CRITICAL_S = 7 * DAY_S;
const BACKUP_BY_HAND_S = 26 * HOUR_S;
const QUEUE_WARN = 10_000;
const QUEUE_CRITICAL = 100_000;

/** Puts it together; `sinceS`: the samples that the reader has already. */
export async function statusView(
  history: StatusHistory,
  options: {
    readonly ready: boolean;
    readonly checks: readonly Check[];
    readonly range: RangeName;
    readonly sinceS: number;
  },
): Promise<StatusView> {
  const reading = await history.latest();
  const certificate = certificateOf(reading);
  const backup = backupOf(reading);
  const attention = [...attentionOf(options.checks, reading), ...certificate.attention, ...backup.attention];
  const worst = attention.some(({ level }) => level === "critical")
    ? "critical"
    : attention.some(({ level }) => level === "warning")
    ? "warning"
    : "ok";
  return {
    level: options.ready ? worst : "critical",
    status: options.ready ? "Ready" : "Not ready",
    attention,
    texts: {
      ...headTexts(reading),
      ...await trafficTexts(history, reading),
      ...certificate.texts,
      ...backup.texts,
      ...storeTexts(reading),
    },
    bars: { certificate: certificate.bar, backup: backup.bar },
    methods: (await history.methods()).map((row) => [
      row.method,
      `${decimal(row.perSecond)}/s`,
      milliseconds(row.p50Ms),
      milliseconds(row.p99Ms),
      row.errorShare === 0 ? "–" : `${decimal(100 * row.errorShare)} %`,
    ]),
    samples: history.samples(options.range, options.sinceS),
  };
}

function attentionOf(checks: readonly Check[], { numbers }: Reading): Attention[] {
  const found: Attention[] = [];
  for (const { name, ok, reason } of checks) {
    if (!ok) found.push({ level: "critical", text: `${name}: ${reason ?? "the check failed"}` });
    else if (reason) found.push({ level: "warning", text: `${name}: ${reason}` });
  }
  if (numbers.queueDepth > QUEUE_WARN) {
    const level = numbers.queueDepth > QUEUE_CRITICAL ? "critical" : "warning";
    found.push({ level, text: `${whole(numbers.queueDepth)} messages wait in delivery queues` });
  }
  if (numbers.unhandled > 0) {
    const text = `${whole(numbers.unhandled)} programming errors were caught: search the log for ` +
      `"unhandled rejection"`;
    found.push({ level: "warning", text });
  }
  return found;
}

interface Watched {
  readonly texts: Record<string, string>;
  readonly bar: Bar;
  readonly attention: readonly Attention[];
}

function certificateOf({ numbers, atMs }: Reading): Watched {
  const left = numbers.certificateExpiry - atMs / 1000;
  if (numbers.certificateExpiry === 0) {
    const texts = { certificate: "unknown", certificateMore: "" };
    return { texts, bar: { percent: 0, level: "ok" }, attention: [] };
  }
  const level = left < CERTIFICATE_CRITICAL_S ? "critical" : left < CERTIFICATE_WARN_S ? "warning" : "ok";
  const text = left > 0
    ? `the TLS certificate expires in ${duration(left)}`
    : "the TLS certificate has expired: clients cannot connect";
  return {
    texts: {
      certificate: left > 0 ? duration(left) : "expired",
      certificateMore: `until ${utc(numbers.certificateExpiry)}`,
    },
    bar: { percent: share(left, CERTIFICATE_FULL_S), level },
    attention: level === "ok" ? [] : [{ level, text }],
  };
}

function backupOf({ numbers, atMs }: Reading): Watched {
  const { backupLast: last, backupInterval: interval } = numbers;
  const schedule = interval > 0 ? `every ${duration(interval)}` : "no schedule";
  if (last === 0) {
    const text = "no backup has been made: a lost disk is the loss of everything on it";
    return {
      texts: { backup: "never", backupMore: schedule },
      bar: { percent: 0, level: "warning" },
      attention: [{ level: "warning", text }],
    };
  }
  const age = Math.max(0, atMs / 1000 - last);
  const allowed = interval > 0 ? 2 * interval : BACKUP_BY_HAND_S;
  const level = age > allowed ? "warning" : "ok";
  const text = `the last good backup is ${duration(age)} old`;
  return {
    texts: { backup: `${duration(age)} ago`, backupMore: schedule },
    bar: { percent: share(allowed - age, allowed), level },
    attention: level === "ok" ? [] : [{ level, text }],
  };
}

function headTexts({ numbers, atMs }: Reading): Record<string, string> {
  return {
    version: VERSION,
    uptime: duration(Math.max(0, atMs / 1000 - numbers.startedAt)),
    readAt: `${new Date(atMs).toISOString().slice(11, 19)} UTC`,
  };
}

async function trafficTexts(history: StatusHistory, { numbers }: Reading): Promise<Record<string, string>> {
  const enqueue = (await history.methods()).find(({ method }) => method === "enqueue");
  const lag = history.lastMinute("lag");
  return {
    messages: `${decimal(zero(history.lastMinute("enqueued")))}/s`,
    messagesMore: `${bytes(zero(history.lastMinute("bytes")))}/s · ${
      whole(numbers.enqueued)
    } since the start`,
    queue: whole(numbers.queueDepth),
    queueMore: `${bytes(numbers.queueBytes)} waiting`,
    latency: enqueue ? milliseconds(enqueue.p99Ms) : "–",
    latencyMore: enqueue ? `p99 · p50 ${milliseconds(enqueue.p50Ms)}` : "nothing sent lately",
    logins: `${decimal(zero(history.lastMinute("loginsOk")))}/min`,
    loginsMore: `${decimal(zero(history.lastMinute("loginsFailed")))}/min failed`,
    connections: whole(numbers.connections),
    connectionsMore: `${whole(numbers.sessions)} logged in · ${whole(numbers.subscribers)} subscribed`,
    process: `${decimal(zero(history.lastMinute("cpu")))} %`,
    processMore: `CPU · ${bytes(numbers.memoryBytes)} · lag ${milliseconds(lag)}`,
  };
}

function storeTexts({ numbers }: Reading): Record<string, string> {
  return {
    accounts: whole(numbers.accounts),
    devices: whole(numbers.devices),
    keyPackages: whole(numbers.keyPackages),
    blobs: `${whole(numbers.blobs)} · ${bytes(numbers.blobBytes)}`,
    disk: bytes(numbers.diskBytes),
    waiters: whole(numbers.waiters),
    refused: whole(numbers.refused),
    errors: whole(numbers.errors),
  };
}

function share(part: number, of: number): number {
  return Math.round(Math.min(100, Math.max(0, 100 * part / of)));
}

const zero = (value: number): number => Number.isFinite(value) ? value : 0;

/** 1234567 → 1,234,567 */
export function whole(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** Three digits at most: 0.04, 1.2, 34, 5,600. */
export function decimal(value: number): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return value.toLocaleString("en-US", { maximumFractionDigits: digits });
}

/** 1536 → 1.5 kB, by 1024. */
export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${decimal(value)} ${units[unit]}`;
}

/** 1234 → 1.2 s */
export function milliseconds(value: number): string {
  if (!Number.isFinite(value)) return "–";
  return value >= 1000 ? `${decimal(value / 1000)} s` : `${decimal(value)} ms`;
}

/** The two largest units of seconds: 3 d 4 h. */
export function duration(seconds: number): string {
  const units: [string, number][] = [["d", DAY_S], ["h", HOUR_S], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  const [name, size] = units[first]!;
  const head = `${whole(Math.floor(seconds / size))} ${name}`;
  const next = units[first + 1];
  // Beyond a month hours say nothing.
  if (!next || seconds >= 30 * DAY_S) return head;
  const rest = Math.floor(seconds % size / next[1]);
  return rest === 0 ? head : `${head} ${rest} ${next[0]}`;
}

function utc(seconds: number): string {
  return `${new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

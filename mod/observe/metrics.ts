/**
 * Every metric of the server, on a registry of its own: made once, passed in. The nine without a `qpq_` prefix
 * are the operations contract: their names and that they have no labels never change. Labels are closed sets
 * given to the constructor, and all of them exist, at zero, from the start.
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Clock } from "../base/clock.ts";
import { ERRORS } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { OPAQUE_SUITE_NAMES } from "../base/opaque_suite.ts";
import { registerProcessMetrics } from "./process_metrics.ts";

const log = logger("metrics");

/** How long a scrape waits for the callbacks of onCollect(). */
const COLLECT_TIMEOUT_MS = 5_000;

/** Seconds; the fastest requests take well under a millisecond, a parked FetchWait a minute. */
const REQUEST_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30, 60];
const BATCH_SECONDS_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5];
const BATCH_SIZE_BUCKETS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];

/** Where a label value goes that is not in its closed set. */
const OTHER = "other";

/** Closed label sets, and what the build is called. */
export interface MetricsOptions {
  readonly version: string;
  /** Method names. */
  readonly methods: readonly string[];
  /** Names of the token buckets and other limits. */
  readonly limits: readonly string[];
  readonly clock: Clock;
}

/** Times that peers have to come on: label values of `qpq_deadlines_missed_total`. */
export const DEADLINES = ["handshake", "hello", "login", "frame", "upload"] as const;

/** Name of one. */
export type Deadline = (typeof DEADLINES)[number];

/** How a handshake did not become a connection. */
export type HandshakeFailure = "refused" | "failed";

/** Why another server was not taken for a peer. */
export const PEER_REFUSAL_REASONS = [
  "unknown_domain",
  "blocked",
  "wrong_name",
  "unknown_ca",
  "expired",
  "revoked",
  "bad_signature",
  "wrong_responder",
  "timeout",
  "protocol",
  "rate_limited",
] as const;

/** One of them. */
export type PeerRefusalReason = (typeof PEER_REFUSAL_REASONS)[number];

/** Numbers of the store, as StoreServer.counts() gives them, and bytes on disk. */
export interface StoreGauges {
  readonly accounts: number;
  readonly devices: number;
  /** Entries in all queues: `delivery_queue_depth`. */
  readonly queueEntries: number;
  readonly queueBytes: number;
  readonly keyPackages: number;
  readonly blobs: number;
  readonly blobBytes: number;
}

/** All metrics. Counters and gauges without labels are public as they are; the rest has a method each. */
export class Metrics {
  /** For metrics of other parts of the program; nothing is registered globally. */
  readonly registry = new Registry();

  readonly enqueueTotal = this.#counter("enqueue_total", "Messages enqueued, replays excluded");
  readonly enqueueBytesTotal = this.#counter(
    "enqueue_bytes_total",
    "Payload bytes enqueued, replays excluded",
  );
  readonly fetchTotal = this.#counter("fetch_total", "Replies and push batches that held messages");
  readonly fetchWaitTotal = this.#counter("fetch_wait_total", "Long-poll fetches that waited");
  readonly keyPackageUploadTotal = this.#counter("key_package_upload_total", "MLS KeyPackages uploaded");
  readonly authLoginSuccessTotal = this.#counter("auth_login_success_total", "OPAQUE logins completed");
  readonly authLoginFailureTotal = this.#counter("auth_login_failure_total", "Login attempts that failed");
  readonly rateLimitHitTotal = this.#counter(
    "rate_limit_hit_total",
    "Requests or connections refused by a rate limit",
  );
  readonly deliveryQueueDepth = this.#gauge(
    "delivery_queue_depth",
    "Messages waiting in all delivery queues: one for each recipient and message",
  );

  readonly connections = this.#gauge("qpq_connections", "Open connections");
  readonly connectionsTotal = this.#counter("qpq_connections_total", "Connections accepted");
  readonly streams = this.#gauge("qpq_streams", "Open streams");
  readonly sessions = this.#gauge("qpq_sessions_online", "Connections that are logged in");
  readonly subscribers = this.#gauge("qpq_subscribers", "Open subscriptions");
  readonly waiters = this.#gauge("qpq_fetch_waiters", "Parked FetchWait requests");
  readonly requestsInFlight = this.#gauge("qpq_requests_in_flight", "Requests being worked on");
  readonly requestBytes = this.#gauge(
    "qpq_request_bytes",
    "Bytes of requests being worked on and of those half received, all connections",
  );
  /** Bytes waiting to be sent, all connections; a plain number, since it changes with every write. */
  sendQueueBytes = 0;
  readonly peerConnections = this.#gauge("qpq_federation_connections", "Open connections of other servers");
  readonly peerLinks = this.#gauge("qpq_federation_links", "Open links to other servers");
  readonly federationCertificateExpirySeconds = this.#gauge(
    "qpq_federation_certificate_expiry_timestamp_seconds",
    "When the federation certificate expires, Unix time; 0 when there is none",
  );
  readonly ready = this.#gauge("qpq_ready", "1 while every readiness check passes");
  readonly certificateExpirySeconds = this.#gauge(
    "qpq_tls_certificate_expiry_timestamp_seconds",
    "When the TLS certificate expires, Unix time",
  );
  /** When the newest good backup was made; found again at each start. 0: there is none. */
  readonly backupLastSuccessSeconds = this.#gauge(
    "qpq_backup_last_success_timestamp_seconds",
    "When the newest good backup was made, Unix time; 0 when there is none",
  );
  readonly backupIntervalSeconds = this.#gauge(
    "qpq_backup_interval_seconds",
    "How often the configured schedule makes a backup; 0 without a schedule",
  );
  readonly unhandledRejectionsTotal = this.#counter(
    "qpq_unhandled_rejections_total",
    "Promises rejected without a handler",
  );
  readonly collectFailuresTotal = this.#counter(
    "qpq_collect_failures_total",
    "Scrapes in which a number could not be had",
  );

  readonly #requestSeconds: Histogram<"method" | "outcome">;
  readonly #requests = new Map<string, { ok: (seconds: number) => void; error: (seconds: number) => void }>();
  readonly #requestErrors = this.#labelled(
    "qpq_request_errors_total",
    "Requests answered with an error",
    "code",
  );
  readonly #handshakeFailures = this.#labelled(
    "qpq_handshake_failures_total",
    "Handshakes that did not become a connection",
    "kind",
  );
  readonly #peerRefusals = this.#labelled(
    "qpq_federation_refused_total",
    "Servers that were not taken for the peer that they claim to be, or for a peer",
    "reason",
  );
  readonly #deadlinesMissed = this.#labelled(
    "qpq_deadlines_missed_total",
    "Peers too slow: handshake, hello, login, frame, upload",
    "deadline",
  );
  readonly #limitHits = this.#labelled("qpq_rate_limit_hits_total", "Refusals by each limit", "limit");
  readonly #store = {
    accounts: this.#gauge("qpq_store_accounts", "Accounts"),
    devices: this.#gauge("qpq_store_devices", "Devices"),
    queueBytes: this.#gauge("qpq_store_queue_bytes", "Payload bytes in all delivery queues"),
    keyPackages: this.#gauge("qpq_store_key_packages", "KeyPackages waiting to be claimed"),
    blobs: this.#gauge("qpq_store_blobs", "Blobs"),
    blobBytes: this.#gauge("qpq_store_blob_bytes", "Bytes of all blobs"),
  };
  readonly #opaqueAccounts = new Gauge({
    name: "qpq_opaque_accounts",
    help: "Accounts by the OPAQUE setup that their record was made under",
    labelNames: ["setup"],
    registers: [this.registry],
  });
  readonly #opaqueRefused = new Counter({
    name: "qpq_opaque_refused_total",
    help: "OPAQUE exchanges refused as too many of their suite were waiting",
    labelNames: ["suite"],
    registers: [this.registry],
  });
  readonly storeDiskBytes = this.#gauge("qpq_store_disk_bytes", "Bytes of the store on disk, without blobs");
  readonly #batchSeconds: Histogram;
  readonly #batchSize: Histogram;

  readonly #clock: Clock;
  readonly #collectors = new Set<() => void | Promise<void>>();
  #collecting: Promise<void> | undefined;

  constructor(options: MetricsOptions) {
    this.#clock = options.clock;
    const registers = [this.registry];
    this.#requestSeconds = new Histogram({
      name: "qpq_request_seconds",
      help: "From a whole request to its reply handed to the connection",
      labelNames: ["method", "outcome"],
      buckets: REQUEST_BUCKETS,
      registers,
    });
    this.#batchSeconds = new Histogram({
      name: "qpq_store_batch_seconds",
      help: "Transactions of the store, fsync included",
      buckets: BATCH_SECONDS_BUCKETS,
      registers,
    });
    this.#batchSize = new Histogram({
      name: "qpq_store_batch_size",
      help: "Verbs that shared a transaction of the store",
      buckets: BATCH_SIZE_BUCKETS,
      registers,
    });
    for (const method of [...options.methods, OTHER]) this.#addMethod(method);
    for (const code of Object.keys(ERRORS)) this.#requestErrors.add(code);
    for (const kind of ["refused", "failed"]) this.#handshakeFailures.add(kind);
    for (const deadline of DEADLINES) this.#deadlinesMissed.add(deadline);
    for (const limit of [...options.limits, OTHER]) this.#limitHits.add(limit);
    for (const reason of PEER_REFUSAL_REASONS) this.#peerRefusals.add(reason);
    this.setOpaqueAccounts({ current: 0, retired: 0 });
    for (const suite of OPAQUE_SUITE_NAMES.values()) this.#opaqueRefused.inc({ suite }, 0);
    new Gauge({ name: "qpq_build_info", help: "1, with the version", labelNames: ["version"], registers })
      .set({ version: options.version }, 1);
    const sendQueueBytes = this.#gauge("qpq_send_queue_bytes", "Bytes waiting to be sent, all connections");
    this.onCollect(() => sendQueueBytes.set(this.sendQueueBytes));
    registerProcessMetrics(this.registry);
  }

  /** A request was answered. An unknown method counts as `other`. */
  request(method: string, outcome: "ok" | "error", seconds: number): void {
    (this.#requests.get(method) ?? this.#requests.get(OTHER)!)[outcome](seconds);
  }

  /** A request was answered with this error (a name of base/errors.ts). */
  requestError(code: string): void {
    this.#requestErrors.inc(code, "internal");
  }

  /** A handshake did not become a connection. */
  handshakeFailure(kind: HandshakeFailure): void {
    this.#handshakeFailures.inc(kind, "failed");
  }

  /** Another server was not taken for a peer, here or as it answered there. */
  peerRefused(reason: PeerRefusalReason): void {
    this.#peerRefusals.inc(reason, "protocol");
  }

  /** A peer was too slow. */
  deadlineMissed(deadline: Deadline): void {
    this.#deadlinesMissed.inc(deadline, deadline);
  }

  /** A limit refused a request or connection; also counts in `rate_limit_hit_total`. */
  rateLimitHit(limit: string): void {
    this.rateLimitHitTotal.inc();
    this.#limitHits.inc(limit, OTHER);
  }

  /** A transaction of the store with `size` verbs in it took so long. */
  storeBatch(size: number, seconds: number): void {
    this.#batchSize.observe(size);
    this.#batchSeconds.observe(seconds);
  }

  /** Numbers of the store; cheap, they are kept in its transactions. */
  setStoreCounts(counts: StoreGauges): void {
    this.deliveryQueueDepth.set(counts.queueEntries);
    this.#store.accounts.set(counts.accounts);
    this.#store.devices.set(counts.devices);
    this.#store.queueBytes.set(counts.queueBytes);
    this.#store.keyPackages.set(counts.keyPackages);
    this.#store.blobs.set(counts.blobs);
    this.#store.blobBytes.set(counts.blobBytes);
  }

  /** An OPAQUE exchange was refused as too many of its suite were waiting. */
  opaqueRefused(suiteId: number): void {
    this.#opaqueRefused.inc({ suite: OPAQUE_SUITE_NAMES.get(suiteId) ?? OTHER });
  }

  /** Accounts under the setup that new registrations get, and under older ones, which migrate at the next login. */
  setOpaqueAccounts(accounts: { readonly current: number; readonly retired: number }): void {
    this.#opaqueAccounts.set({ setup: "current" }, accounts.current);
    this.#opaqueAccounts.set({ setup: "retired" }, accounts.retired);
  }

  /** `callback` runs before each scrape, for numbers that must be asked for. Returns a function that ends it. */
  onCollect(callback: () => void | Promise<void>): () => void {
    this.#collectors.add(callback);
    return () => void this.#collectors.delete(callback);
  }

  /** The exposition, after the callbacks; a failing or slow one is counted and its numbers stay as they were. */
  async expose(): Promise<{ contentType: string; body: string }> {
    await this.refresh();
    return await this.render();
  }

  /** The exposition of what is there, without asking for anything. */
  async render(): Promise<{ contentType: string; body: string }> {
    return { contentType: this.registry.contentType, body: await this.registry.metrics() };
  }

  /** Runs the callbacks of onCollect(). One collection at a time, however many ask: the store is asked once. */
  refresh(): Promise<void> {
    return this.#collecting ??= this.#collect().finally(() => this.#collecting = undefined);
  }

  async #collect(): Promise<void> {
    await Promise.all([...this.#collectors].map(async (callback) => {
      let cancel: (() => void) | undefined;
      const timeout = new Promise<never>((_, reject) => {
        cancel = this.#clock.after(
          COLLECT_TIMEOUT_MS,
          () => reject(new Error(`No answer within ${COLLECT_TIMEOUT_MS} ms`)),
        );
      });
      try {
        await Promise.race([callback(), timeout]);
      } catch (error) {
        this.collectFailuresTotal.inc();
        log.warn("Collecting metrics failed", { error });
      } finally {
        cancel?.();
      }
    }));
  }

  #addMethod(method: string): void {
    const timer = (outcome: string) => {
      this.#requestSeconds.zero({ method, outcome });
      const child = this.#requestSeconds.labels({ method, outcome });
      return (seconds: number) => child.observe(seconds);
    };
    this.#requests.set(method, { ok: timer("ok"), error: timer("error") });
  }

  #counter(name: string, help: string): Counter {
    return new Counter({ name, help, registers: [this.registry] });
  }

  #gauge(name: string, help: string): Gauge {
    return new Gauge({ name, help, registers: [this.registry] });
  }

  #labelled(name: string, help: string, label: string): LabelledCounter {
    return new LabelledCounter(
      new Counter({ name, help, labelNames: [label], registers: [this.registry] }),
      label,
    );
  }
}

/** A counter with one label from a closed set. */
class LabelledCounter {
  readonly #counter: Counter;
  readonly #label: string;
  readonly #values = new Map<string, { inc(): void }>();

  constructor(counter: Counter, label: string) {
    this.#counter = counter;
    this.#label = label;
  }

  /** The value exists from now on, at zero. */
  add(value: string): void {
    this.#counter.inc({ [this.#label]: value }, 0);
    this.#values.set(value, this.#counter.labels({ [this.#label]: value }));
  }

  /** Counts `value`, or `otherwise` when it is not in the set. */
  inc(value: string, otherwise: string): void {
    (this.#values.get(value) ?? this.#values.get(otherwise)!).inc();
  }
}

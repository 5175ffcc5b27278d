/** The running server as operations see it. */
import { Counter, Gauge } from "prom-client";
import type { OpaqueSetups } from "../auth/setups.ts";
import type { AccessToken, AccessTokens } from "../auth/tokens.ts";
import type { Clock } from "../base/clock.ts";
import { hideInLogs, logger, parseFilter, setLogFilter } from "../base/log.ts";
import { messageOf } from "../base/errors.ts";
import { VERSION } from "../base/version.ts";
import type { JsonObject } from "../admin/control.ts";
import { AdminError } from "../admin/operations_error.ts";
import type { LimitUse, LiveServer, LiveVitals, ReloadReport } from "../admin/operations_live.ts";
import { dropEndedTokens } from "../admin/rotate_auth_token.ts";
import { lastRotation, readRotations, ROTATED_KEYS, type RotatedKey } from "../admin/rotate_history.ts";
import type { Expiry } from "../delivery/expiry.ts";
import type { Check } from "../observe/health.ts";
import type { Metrics } from "../observe/metrics.ts";
import { fingerprintText } from "../transport/fingerprint.ts";
import type { Listener } from "../transport/transport.ts";
import type { Certificates } from "./certificates.ts";
import type { ServerContext } from "./context.ts";
import type { ServerFederation } from "./federation.ts";
import { liveAccounts, RunningStoreKey } from "./live_accounts.ts";
import { readiness } from "./readiness.ts";
import { Reloader, type ReloadParts } from "./reload.ts";

const log = logger("server");

/** How often tokens whose end has come are taken out of their file; they are refused at once. */
const TOKENS_MS = 60_000;

/** The parts of the running server that requests do not need. */
export interface LiveParts {
  readonly listener: Listener;
  readonly expiry: Expiry;
  readonly settings: ReloadParts["live"];
  readonly load: ReloadParts["load"];
  readonly tokens: AccessTokens;
  readonly setups: OpaqueSetups;
  readonly secrets: readonly string[];
  /** Text of the key that the store is under. */
  readonly storeKey: string;
  /** Aborts when the server is being stopped. */
  readonly stopping: AbortSignal;
  readonly federation: ServerFederation | null;
}

/** Implements what operations ask of a running server. */
export class LiveAdmin implements LiveServer, Disposable {
  readonly certificates: Certificates;
  readonly accounts: LiveServer["accounts"];
  readonly storeKey: RunningStoreKey;
  readonly #context: ServerContext;
  readonly #parts: LiveParts;
  readonly #reloader: Reloader;
  readonly #figures: AdminMetrics;
  readonly #secrets: Set<string>;
  readonly #startedAt: number;
  #lastReload: { at: number; ok: boolean } | null = null;
  #cancel: () => void = () => {};

  constructor(context: ServerContext, parts: LiveParts) {
    this.#context = context;
    this.#parts = parts;
    this.certificates = context.certificates;
    this.accounts = liveAccounts(context, parts.setups);
    this.storeKey = new RunningStoreKey(context, parts);
    this.#secrets = new Set(parts.secrets);
    this.#figures = new AdminMetrics(context.metrics, context.clock);
    this.#startedAt = context.clock.now();
    this.#reloader = new Reloader({
      live: parts.settings,
      load: parts.load,
      certificates: context.certificates,
      tokens: parts.tokens,
      limits: context.limits,
      memory: context.memory,
      onApplied: () => parts.federation?.reloaded(),
      onTokens: (tokens) => this.#hideTokens(tokens),
      onReload: (ok) => {
        this.#lastReload = { at: context.clock.now(), ok };
        this.#figures.reloaded(ok);
      },
    });
  }

  /** Reads the history for the metrics, and begins to tidy up tokens. */
  async start(): Promise<void> {
    const rotations = await readRotations(this.#context.settings.dataDir);
    for (const key of ROTATED_KEYS) this.#figures.lastRotation(key, lastRotation(rotations, key)?.at ?? 0);
    await this.#dropEndedTokens();
    this.#schedule();
  }

  async status(): Promise<JsonObject> {
    const { clock, settings, store, registry, delivery } = this.#context;
    const counts = await store.counts();
    const { info, nextLeafSha256, nextServesAt } = this.certificates;
    const { hostname, port } = this.#parts.listener.address;
    return {
      running: true,
      version: VERSION,
      uptimeMs: clock.now() - this.#startedAt,
      listen: `${hostname}:${port}`,
      dataDir: settings.dataDir,
      production: settings.production,
      draining: this.#context.draining,
      connections: registry.count,
      sessions: registry.loggedInCount,
      subscribers: delivery.subscriptionCount,
      waits: delivery.waiters.count,
      requestsInFlight: this.#context.requestsInFlight.count,
      store: { backend: store.backend, diskBytes: await store.diskBytes(), ...counts },
      certificate: {
        fingerprint: fingerprintText(info.leafSha256),
        names: [...info.names],
        expiresAt: info.notAfter,
        nextFingerprint: nextLeafSha256 && fingerprintText(nextLeafSha256),
        nextServesAt,
      },
      log: this.logFilter,
      lastReloadAt: this.#lastReload?.at ?? null,
      lastReloadOk: this.#lastReload?.ok ?? null,
      expiryPausedBecause: this.expiryPausedBecause,
    };
  }

  health(): Promise<readonly Check[]> {
    return readiness(this.#context, this.#parts);
  }

  reload(): Promise<ReloadReport> {
    return this.#reloader.reload();
  }

  drain(begin: boolean): void {
    if (!this.#parts.listener.accepting) throw new AdminError("The server is shutting down");
    this.#context.draining = begin;
    if (begin) this.#context.delivery.drain();
    else this.#context.delivery.endDrain();
    this.#figures.draining(begin);
    log.info(
      begin ? "draining: nothing new is accepted" : "the drain has ended: everything is accepted again",
    );
  }

  get logFilter(): string {
    return this.#reloader.logFilter;
  }

  setLogFilter(filter: string): readonly string[] {
    const parsed = parseFilter(filter);
    if (!parsed.ok) return parsed.problems;
    const problems = setLogFilter(filter);
    if (problems.length === 0) this.#reloader.logFilter = filter;
    return problems;
  }

  get expiryPausedBecause(): string | null {
    return this.#parts.expiry.pausedBecause;
  }

  resumeExpiry(): void {
    this.#parts.expiry.resume();
    log.info("expiry goes on");
  }

  topLimits(count: number): readonly LimitUse[] {
    return this.#context.limits.top(count);
  }

  hideSecret(secret: string): void {
    if (secret !== "") this.#secrets.add(secret);
    hideInLogs([...this.#secrets]);
  }

  async replaceTokens(tokens: readonly AccessToken[]): Promise<void> {
    this.#hideTokens(tokens);
    const { settings } = this.#parts;
    // A reload that read the file before must not bring the old ones back.
    await this.#reloader.exclusively(async () => {
      const { authToken } = settings.current;
      const lines = tokens.map(({ token }) => token);
      // Nor may a later one take what was rotated for a change of the configuration.
      if (authToken) settings.replace({ ...settings.current, authToken: { ...authToken, lines } });
      await this.#parts.tokens.replace(tokens);
    });
  }

  vitals(): LiveVitals {
    const { registry } = this.#context;
    return {
      udpBufferBytes: this.#parts.listener.udpBufferBytes ?? null,
      connections: registry.count,
      connectionsFromOneAddress: registry.countFromBusiest,
    };
  }

  async configurationProblems(): Promise<readonly string[]> {
    return await this.#reloader.problems();
  }

  keepDeletedBlobs(): () => Promise<void> {
    return this.#context.blobs.keepDeleted();
  }

  get federation(): LiveServer["federation"] {
    return this.#parts.federation;
  }

  get stopping(): AbortSignal {
    return this.#parts.stopping;
  }

  rotated(key: RotatedKey): void {
    this.#figures.rotated(key);
  }

  [Symbol.dispose](): void {
    this.#cancel();
  }

  #hideTokens(tokens: readonly AccessToken[]): void {
    for (const { token } of tokens) this.hideSecret(token);
  }

  async #dropEndedTokens(): Promise<void> {
    const { settings, clock } = this.#context;
    await dropEndedTokens(settings, {
      now: clock.now(),
      onDropped: async (left) => {
        await this.replaceTokens(left);
        log.info("the overlap of the access tokens is over: {count} accepted", { count: left.length });
      },
    });
  }

  #schedule(): void {
    this.#cancel = this.#context.clock.after(TOKENS_MS, () => {
      this.#dropEndedTokens()
        .catch((error) => log.error("taking ended tokens out failed: {reason}", { reason: messageOf(error) }))
        .finally(() => this.#schedule());
    });
  }
}

/** Metrics of administration. */
class AdminMetrics {
  readonly #clock: Clock;
  readonly #rotatedAt: Gauge<"key">;
  readonly #rotations: Counter<"key">;
  readonly #reloadedAt: Gauge;
  readonly #reloadOk: Gauge;
  readonly #draining: Gauge;

  constructor({ registry }: Metrics, clock: Clock) {
    const registers = [registry];
    this.#clock = clock;
    this.#rotatedAt = new Gauge({
      name: "qpq_rotation_timestamp_seconds",
      help: "When a key was last rotated, Unix time; 0: it is what the first start made",
      labelNames: ["key"],
      registers,
    });
    this.#rotations = new Counter({
      name: "qpq_rotations_total",
      help: "Rotations of each key since the start",
      labelNames: ["key"],
      registers,
    });
    for (const key of ROTATED_KEYS) this.#rotations.inc({ key }, 0);
    this.#reloadedAt = new Gauge({
      name: "qpq_config_last_reload_timestamp_seconds",
      help: "When the configuration was last reloaded, or read at the start, Unix time",
      registers,
    });
    this.#reloadedAt.set(clock.now() / 1000);
    this.#reloadOk = new Gauge({
      name: "qpq_config_last_reload_successful",
      help: "1 unless the last reload was refused",
      registers,
    });
    this.#reloadOk.set(1);
    this.#draining = new Gauge({
      name: "qpq_draining",
      help: "1 while an operator drains the server",
      registers,
    });
  }

  lastRotation(key: RotatedKey, at: number): void {
    this.#rotatedAt.set({ key }, at / 1000);
  }

  rotated(key: RotatedKey): void {
    this.lastRotation(key, this.#clock.now());
    this.#rotations.inc({ key });
  }

  reloaded(ok: boolean): void {
    this.#reloadOk.set(ok ? 1 : 0);
    if (ok) this.#reloadedAt.set(this.#clock.now() / 1000);
  }

  draining(begin: boolean): void {
    this.#draining.set(begin ? 1 : 0);
  }
}

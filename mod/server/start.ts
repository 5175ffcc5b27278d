/**
 * Wires a server together and starts it: data folder → store → authentication → delivery → listener → HTTP.
 * Returns it running; `stop()` ends it in the opposite order without losing what was accepted.
 */
import type { NetAddress } from "../base/address.ts";
import { type Clock, delay, systemClock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { hideInLogs, logger } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import { type Loaded, managedSecretPath } from "../config/load.ts";
import type { Secret, Settings } from "../config/options.ts";
import { type ControlHandler, type ControlServer, startControlServer } from "../admin/control.ts";
import type { AdminContext } from "../admin/operations.ts";
import type { LiveServer } from "../admin/operations_live.ts";
import { acceptedTokens } from "../admin/rotate_auth_token.ts";
import { finishAtStart } from "../admin/rotate_db_key_start.ts";
import { recordRotation } from "../admin/rotate_history.ts";
import { localNames } from "../admin/rotate_tls_files.ts";
import { Authenticator } from "../auth/authenticator.ts";
import { OpaquePool } from "../auth/opaque.ts";
import { OpaqueSetups } from "../auth/setups.ts";
import { OPAQUE_SUITE_NAMES, OPAQUE_SUITES } from "../base/opaque_suite.ts";
import { AccessTokens } from "../auth/tokens.ts";
import { Blobs } from "../delivery/blobs.ts";
import { Expiry } from "../delivery/expiry.ts";
import { KeyPackages } from "../delivery/keypackages.ts";
import { Delivery } from "../delivery/queues.ts";
import type { HealthServer } from "../observe/health.ts";
import { Metrics } from "../observe/metrics.ts";
import { watchEventLoop } from "../observe/process_metrics.ts";
import { METHODS } from "../protocol/methods.ts";
import { PEER_METHODS } from "../protocol/peer_methods.ts";
import { BlobFiles } from "../store/blob_files.ts";
import { lockFolder } from "../store/folder_lock.ts";
import { openStoreTellingKey } from "../store/open.ts";
import type { Listener } from "../transport/transport.ts";
import { adminHandlers } from "./admin_handlers.ts";
import { LiveAdmin } from "./admin_handlers_live.ts";
import { BackupSchedule } from "./backup_schedule.ts";
import { Certificates } from "./certificates.ts";
import type { ServerContext } from "./context.ts";
import { findSecrets, makeFolders, removeTemporaryFiles, type Secrets } from "./data_folder.ts";
import { ServerFederation } from "./federation.ts";
import { LIMIT_NAMES, Limits } from "./limits.ts";
import { startHealth, startListener } from "./listening.ts";
import { DiskSpace } from "./disk_space.ts";
import { MemoryBudget } from "./memory_budget.ts";
import { noticeMaker } from "./notices.ts";
import { Registry } from "./registry.ts";
import { certificateFilesOf } from "./reload.ts";
import {
  authLimitsOf,
  blobLimitsOf,
  deliveryLimitsOf,
  expiryTimesOf,
  LiveSettings,
} from "./reload_settings.ts";
import { RequestsInFlight } from "../base/requests_in_flight.ts";

const log = logger("server");

/** What a start may be given beside its settings. */
export interface StartOptions {
  readonly clock?: Clock;
  /** The operator has looked at the clock: expiry goes on although it jumped. */
  readonly resumeExpiry?: boolean;
  /** Reads the configuration again, for a reload. Without it there is none. */
  readonly load?: () => Loaded;
  /** Called between the durable changes of administrative operations; for tests. */
  readonly step?: AdminContext["step"];
}

/** A running server. */
export interface RunningServer extends AsyncDisposable {
  /** Where clients reach it, with the real port. */
  readonly address: NetAddress;
  /** Where metrics and health are; null when they are off. */
  readonly metricsAddress: NetAddress | null;
  /** Where other servers reach it; null when it does not federate. */
  readonly federationAddress: NetAddress | null;
  /** Lower-case hex SHA-256 of the certificate. */
  readonly fingerprint: string;
  /** What this start had to make, in words; empty but for a first start. */
  readonly made: readonly string[];
  readonly context: ServerContext;
  readonly expiry: Expiry;
  /** What administration sees of it; SIGHUP reloads through it. */
  readonly admin: LiveServer;
  /** Stops accepting, answers parked waits, drains, closes the store. Idempotent. */
  stop(): Promise<void>;
}

/** Starts a server. Rejects with an error whose message says what to do; nothing is left running then. */
export async function startServer(settings: Settings, options: StartOptions = {}): Promise<RunningServer> {
  await using cleanup = new AsyncDisposableStack();
  const clock = options.clock ?? systemClock;
  const { secrets, ...prepared } = await prepare(settings, { clock, mayMakeSecrets: !settings.production });
  const certificates = cleanup.use(prepared.certificates);
  warnOfInsecureModes(secrets);

  const metrics = new Metrics({
    version: VERSION,
    methods: [...Object.keys(METHODS), ...Object.keys(PEER_METHODS)],
    limits: LIMIT_NAMES,
    clock,
  });
  const { store, key: openedKey } = await openStoreTellingKey({
    backend: settings.storeBackend,
    dataDir: settings.dataDir,
    keys: secrets.dbKeys,
    onBatch: (size, seconds) => metrics.storeBatch(size, seconds),
  });
  cleanup.use(store);
  const started = await finishAtStart(store, {
    settings: withMadeSecrets(settings, secrets),
    key: openedKey,
    clock,
  });
  const suites = OPAQUE_SUITES.filter((id) => settings.opaqueSuites.includes(OPAQUE_SUITE_NAMES.get(id)!));
  const pool = cleanup.use(
    await OpaquePool.open({
      workers: settings.opaqueWorkers ?? defaultWorkers(),
      pendingMax: OPAQUE_PENDING_MAX,
      suites,
      onRefused: (suiteId) => metrics.opaqueRefused(suiteId),
    }),
  );
  const live = new LiveSettings(started.settings);
  const tokens = await AccessTokens.of(await acceptedTokens(live.current));
  const setups = await OpaqueSetups.open({ store, pool, clock, suites });

  const registry = new Registry();
  const limits = new Limits({ clock, metrics, registry, settings: settings.limits });
  const notice = noticeMaker({ clock, ttlMs: () => live.current.limits.ttlDefaultMs });
  const authenticator = new Authenticator({
    store,
    pool,
    setups,
    tokens,
    clock,
    get invitations() {
      return live.current.invitations;
    },
    limits: live.view((settings) => ({ ...authLimitsOf(settings), pendingMax: OPAQUE_PENDING_MAX * 8 })),
    events: {
      onLoginFailure: () => metrics.authLoginFailureTotal.inc(),
      onLoginSuccess: () => metrics.authLoginSuccessTotal.inc(),
      onPasswordProven: ({ auth, userName }) => {
        const connection = registry.find(auth);
        if (connection) limits.refundLogin(connection, userName);
      },
      onTooManyInvitations: () => limits.hit("invitationsOpen"),
      onSessionsEnded: (ended) => registry.closeEnded(ended),
    },
    deviceAddedNotice: (deviceId) =>
      notice({ case: "deviceAdded", value: { deviceId: Uint8Array.fromHex(deviceId) } }),
    deviceRevokedNotice: (deviceId) =>
      notice({ case: "deviceRevoked", value: { deviceId: Uint8Array.fromHex(deviceId) } }),
    leafHashes: () => certificates.leafHashes(),
  });
  const deliveryLimits = live.view(deliveryLimitsOf);
  const delivery = cleanup.use(new Delivery({ store, clock, metrics, limits: deliveryLimits }));
  const blobFiles = await BlobFiles.open(settings.dataDir);
  const blobs = new Blobs({
    store,
    files: blobFiles,
    clock,
    limits: live.view(blobLimitsOf),
    onNoPlace: (limit) => limits.hit(limit),
  });
  await blobs.removeOrphans();
  const keyPackages = new KeyPackages({
    store,
    clock,
    get perSuiteMax() {
      return live.current.limits.keyPackagesMax;
    },
    get lowBelow() {
      return live.current.limits.keyPackagesLow;
    },
    lowNotice: (suite, count) => notice({ case: "keyPackagesLow", value: { suite, count } }),
    domain: settings.federation.domain ?? "",
  });
  const expiry = cleanup.use(new Expiry({ store, blobs, clock, times: live.view(expiryTimesOf) }));
  await expiry.start();
  if (options.resumeExpiry) expiry.resume();

  const disk = cleanup.use(
    await DiskSpace.watch(settings.dataDir, { clock, reserveBytes: () => live.current.diskReserveBytes }),
  );

  const requestsInFlight = new RequestsInFlight();
  const context: ServerContext = {
    get settings() {
      return live.current;
    },
    clock,
    store,
    metrics,
    authenticator,
    delivery,
    deliveryLimits,
    keyPackages,
    blobs,
    certificates,
    limits,
    memory: new MemoryBudget(settings.limits.memoryBytesMax),
    disk,
    registry,
    requestsInFlight,
    federation: null,
    draining: false,
    rekeying: false,
  };
  const federation = await ServerFederation.start(context, { settings: live, blobFiles });
  cleanup.defer(() => federation?.[Symbol.asyncDispose]());
  const listener = cleanup.use(startListener(context));
  registerGauges(context, setups);
  // The event loop is real under every clock.
  cleanup.defer(watchEventLoop(metrics.registry, systemClock));
  const health = settings.metricsEnabled ? startHealth(context, { listener, expiry }) : null;
  cleanup.defer(() => health?.close());
  const stopped = new AbortController();
  const admin = cleanup.use(
    new LiveAdmin(context, {
      listener,
      expiry,
      settings: live,
      load: options.load ?? null,
      tokens,
      setups,
      secrets: secrets.dbKeys,
      storeKey: started.key,
      stopping: stopped.signal,
      federation,
    }),
  );
  await admin.start();
  certificates.start({
    onReplaced: (certificate) => listener.replaceCertificate(certificate),
    onRotated: (how) => recordTlsRotation(context, { admin, how }),
  });
  const handlers = adminHandlers(context, { live: admin, ...(options.step ? { step: options.step } : {}) });
  const control = await startControl(context, handlers);
  cleanup.defer(() => control?.[Symbol.asyncDispose]());
  const backups = new BackupSchedule(context, {
    create: handlers["backup create"]!,
    prune: handlers["backup prune"]!,
  });
  cleanup.use(backups).start();
  cleanup.defer(() => stopped.abort());

  const running = cleanup.move();
  let stopping: Promise<void> | null = null;
  const stop = () => stopping ??= shutDown(context, { listener, health, running });
  for (const thing of prepared.made) log.info(`made ${thing}`);
  log.info("listening", {
    listen: `${listener.address.hostname}:${listener.address.port}`,
    version: VERSION,
  });
  return {
    address: listener.address,
    metricsAddress: health?.address ?? null,
    federationAddress: federation?.listener.address ?? null,
    fingerprint: certificates.fingerprint,
    made: prepared.made,
    context,
    expiry,
    admin,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Makes what a first start makes and no server needs to run for: folders, secrets, certificate. What was made, in words. */
export async function initDataFolder(settings: Settings, clock: Clock): Promise<string[]> {
  const { certificates, made } = await prepare(settings, { clock, mayMakeSecrets: true });
  certificates[Symbol.dispose]();
  return made;
}

/**
 * Folders, secrets and certificate, with the folder locked: of several servers that start at once in an empty
 * folder, the one that gets the store must be the one whose key, token and CA lie there.
 */
async function prepare(
  settings: Settings,
  options: { clock: Clock; mayMakeSecrets: boolean },
): Promise<{ secrets: Secrets; certificates: Certificates; made: string[] }> {
  const made = await makeFolders(settings.dataDir);
  const lock = await lockFolder(settings.dataDir);
  try {
    for (const path of await removeTemporaryFiles(settings.dataDir)) {
      log.info("removed {path}, which a write that was killed had left", { path });
    }
    const secrets = await findSecrets(settings, options);
    hideInLogs([...secrets.authTokens, ...secrets.dbKeys].filter((secret) => secret !== ""));
    const certificates = await Certificates.open(certificateOptions(settings), options.clock);
    return { secrets, certificates, made: [...made, ...secrets.made, ...certificates.made] };
  } finally {
    lock.release();
  }
}

/** Between the last reply and the end of its connection. */
const LAST_REPLIES_MS = 100;

/** OPAQUE jobs that may wait for a worker: some seconds of work. */
const OPAQUE_PENDING_MAX = 1024;

async function shutDown(
  context: ServerContext,
  parts: { listener: Listener; health: HealthServer | null; running: AsyncDisposableStack },
): Promise<void> {
  context.draining = true;
  parts.listener.stopAccepting();
  context.delivery.drain();
  let cancel = () => {};
  const timeout = new Promise<void>((resolve) => {
    cancel = context.clock.after(context.settings.drainTimeoutMs, resolve);
  });
  await Promise.race([context.requestsInFlight.idle(), timeout]);
  cancel();
  // Closing a connection drops what QUIC has not sent yet: the last replies get a moment of real time.
  await delay(systemClock, LAST_REPLIES_MS);
  context.registry.closeAll("shuttingDown");
  await parts.running.disposeAsync();
  log.info("stopped");
}

function registerGauges(context: ServerContext, setups: OpaqueSetups): void {
  const { store, metrics, registry, delivery, certificates, memory, requestsInFlight } = context;
  metrics.onCollect(async () => {
    metrics.connections.set(registry.count);
    metrics.sessions.set(registry.loggedInCount);
    metrics.requestBytes.set(memory.used);
    metrics.requestsInFlight.set(requestsInFlight.count);
    metrics.waiters.set(delivery.waiters.count);
    metrics.subscribers.set(delivery.subscriptionCount);
    metrics.certificateExpirySeconds.set(certificates.info.notAfter / 1000);
    const counts = await store.counts();
    metrics.setStoreCounts(counts);
    const newest = setups.newestOfEach();
    const underNewest = (await store.accountsBySetup()).filter(({ setupId }) => newest.has(setupId))
      .reduce((sum, { accounts }) => sum + accounts, 0);
    metrics.setOpaqueAccounts({ current: underNewest, retired: counts.accounts - underNewest });
    metrics.storeDiskBytes.set(await store.diskBytes());
  });
}

/** The secrets that this start made are managed ones, as the next start and a reload will find them. */
function withMadeSecrets(settings: Settings, { authTokens, dbKeys }: Secrets): Settings {
  const managed = (key: "auth_token" | "db_key", lines: readonly string[]): Secret | null =>
    lines.some((line) => line !== "")
      ? { lines, from: "managed", path: managedSecretPath(settings.dataDir, key) }
      : null;
  return {
    ...settings,
    authToken: settings.authToken ?? managed("auth_token", authTokens),
    dbKey: settings.dbKey ?? managed("db_key", dbKeys),
  };
}

/** The server also runs where there can be no socket: it is told, and signals remain. */
async function startControl(
  context: ServerContext,
  handlers: Readonly<Record<string, ControlHandler>>,
): Promise<ControlServer | null> {
  try {
    return await startControlServer(context.settings.dataDir, handlers);
  } catch (error) {
    log.warn("there is no control socket: {reason}; commands do not reach this server, signals do", {
      reason: messageOf(error),
    });
    return null;
  }
}

/** The certificate was renewed, or its files changed, without an operation. */
async function recordTlsRotation(
  { settings, clock }: ServerContext,
  { admin, how }: { admin: LiveServer; how: string },
): Promise<void> {
  await recordRotation(settings.dataDir, "tls", { at: clock.now(), via: "running", how });
  admin.rotated("tls");
}

function warnOfInsecureModes(secrets: { authTokens: readonly string[]; dbKeys: readonly string[] }): void {
  if (secrets.authTokens.length === 0) log.warn("running without QPQ_AUTH_TOKEN");
  if (secrets.dbKeys[0] === "") log.warn("db_key is empty; SQL store will be plaintext");
}

function certificateOptions(settings: Settings) {
  const { dataDir, tlsNames } = settings;
  return { dataDir, files: certificateFilesOf(settings), names: tlsNames ?? localNames() };
}

function defaultWorkers(): number {
  return Math.max(1, Math.min(2, navigator.hardwareConcurrency - 1));
}

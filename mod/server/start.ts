/**
 * Wires a server together and starts it: data folder → store → authentication → delivery → listener → HTTP.
 * Returns it running; `stop()` ends it in the opposite order without losing what was accepted.
 */
import { hostname, networkInterfaces } from "node:os";
import { limitKey, maskAddress, type NetAddress } from "../base/address.ts";
import { type Clock, delay, systemClock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { hideInLogs, logger } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import { environmentName, type OptionKey, type Settings } from "../config/options.ts";
import { showAddress } from "../config/values.ts";
import { Authenticator } from "../auth/authenticator.ts";
import { OpaquePool } from "../auth/opaque.ts";
import { OpaqueSetups } from "../auth/setups.ts";
import { AccessTokens } from "../auth/tokens.ts";
import { Blobs } from "../delivery/blobs.ts";
import { Expiry } from "../delivery/expiry.ts";
import { KeyPackages } from "../delivery/keypackages.ts";
import { Delivery, type DeliveryLimits } from "../delivery/queues.ts";
import { type Check, type HealthServer, startHealthServer } from "../observe/health.ts";
import { Metrics } from "../observe/metrics.ts";
import { watchEventLoop } from "../observe/process_metrics.ts";
import { CLOSE_CODES } from "../protocol/close_codes.ts";
import { METHODS } from "../protocol/methods.ts";
import { BlobFiles } from "../store/blob_files.ts";
import { lockFolder } from "../store/folder_lock.ts";
import { openStore } from "../store/open.ts";
import { listen } from "../transport/deno_quic.ts";
import type { Connection, Listener } from "../transport/transport.ts";
import { Certificates } from "./certificates.ts";
import { ServerConnection } from "./connection.ts";
import type { ServerContext } from "./context.ts";
import { findSecrets, makeFolders, type Secrets } from "./data_folder.ts";
import { LIMIT_NAMES, Limits } from "./limits.ts";
import { DiskSpace } from "./disk_space.ts";
import { MemoryBudget } from "./memory_budget.ts";
import { noticeMaker } from "./notices.ts";
import { Registry } from "./registry.ts";
import { RequestsInFlight } from "./requests_in_flight.ts";

const log = logger("server");

/** What a start may be given beside its settings. */
export interface StartOptions {
  readonly clock?: Clock;
  /** The operator has looked at the clock: expiry goes on although it jumped. */
  readonly resumeExpiry?: boolean;
}

/** A running server. */
export interface RunningServer extends AsyncDisposable {
  /** Where clients reach it, with the real port. */
  readonly address: NetAddress;
  /** Where metrics and health are; null when they are off. */
  readonly metricsAddress: NetAddress | null;
  /** Lower-case hex SHA-256 of the certificate. */
  readonly fingerprint: string;
  /** What this start had to make, in words; empty but for a first start. */
  readonly made: readonly string[];
  readonly context: ServerContext;
  readonly expiry: Expiry;
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
    methods: Object.keys(METHODS),
    limits: LIMIT_NAMES,
    clock,
  });
  const store = cleanup.use(
    await openStore({
      backend: settings.storeBackend,
      dataDir: settings.dataDir,
      keys: secrets.dbKeys,
      onBatch: (size, seconds) => metrics.storeBatch(size, seconds),
    }),
  );
  const pool = cleanup.use(
    await OpaquePool.open({
      workers: settings.opaqueWorkers ?? defaultWorkers(),
      pendingMax: OPAQUE_PENDING_MAX,
    }),
  );
  const tokens = await AccessTokens.of(secrets.authTokens.map((token) => ({ token, until: null })));
  const setups = await OpaqueSetups.open({ store, pool, clock });

  const registry = new Registry();
  const limits = new Limits({ clock, metrics, registry, settings: settings.limits });
  const notice = noticeMaker({ clock, ttlMs: () => settings.limits.ttlDefaultMs });
  const authenticator = new Authenticator({
    store,
    pool,
    setups,
    tokens,
    clock,
    invitations: settings.invitations,
    limits: {
      devicesMax: settings.limits.devicesMax,
      sessionIdleMs: settings.sessionIdleTtlMs,
      sessionMs: settings.sessionTtlMs,
      invitationTtlMs: settings.limits.invitationTtlMs,
      invitationsOpenMax: settings.limits.invitationsOpenMax,
      pendingMax: OPAQUE_PENDING_MAX * 8,
    },
    events: {
      onLoginFailure: () => metrics.authLoginFailureTotal.inc(),
      onLoginSuccess: () => metrics.authLoginSuccessTotal.inc(),
      onPasswordProven: ({ auth, userName }) => {
        const connection = registry.find(auth);
        if (connection) limits.refundLogin(connection, userName);
      },
      onSessionsEnded: (ended) => registry.closeEnded(ended),
    },
    deviceAddedNotice: (deviceId) =>
      notice({ case: "deviceAdded", value: { deviceId: Uint8Array.fromHex(deviceId) } }),
    deviceRevokedNotice: (deviceId) =>
      notice({ case: "deviceRevoked", value: { deviceId: Uint8Array.fromHex(deviceId) } }),
    leafHashes: () => certificates.leafHashes(),
  });
  const deliveryLimits = deliveryLimitsOf(settings);
  const delivery = cleanup.use(new Delivery({ store, clock, metrics, limits: deliveryLimits }));
  const blobs = new Blobs({
    store,
    files: await BlobFiles.open(settings.dataDir),
    clock,
    limits: blobLimits(settings),
  });
  await blobs.removeOrphans();
  const keyPackages = new KeyPackages({
    store,
    clock,
    perSuiteMax: settings.limits.keyPackagesMax,
    lowBelow: settings.limits.keyPackagesLow,
    lowNotice: (suite, count) => notice({ case: "keyPackagesLow", value: { suite, count } }),
  });
  const expiry = cleanup.use(new Expiry({ store, blobs, clock, times: expiryTimes(settings) }));
  await expiry.start();
  if (options.resumeExpiry) expiry.resume();

  const disk = cleanup.use(
    await DiskSpace.watch(settings.dataDir, { clock, reserveBytes: () => settings.diskReserveBytes }),
  );

  const requestsInFlight = new RequestsInFlight(metrics);
  const context: ServerContext = {
    settings,
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
    draining: false,
  };
  const listener = cleanup.use(startListener(context));
  registerGauges(context);
  cleanup.defer(watchEventLoop(metrics.registry, clock));
  const health = settings.metricsEnabled ? startHealth(context, { listener, expiry }) : null;
  cleanup.defer(() => health?.close());
  certificates.start((certificate) => listener.replaceCertificate(certificate));

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
    fingerprint: certificates.fingerprint,
    made: prepared.made,
    context,
    expiry,
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

function startListener(context: ServerContext): Listener {
  const { settings, metrics, certificates } = context;
  const listener = atAddress(
    "listen on",
    settings.listen,
    { protocol: "UDP", option: "listen" },
    () =>
      listen({
        hostname: settings.listen.hostname,
        port: settings.listen.port,
        certificate: certificates.current,
        idleTimeoutMs: settings.idleTimeoutMs,
        streamsMax: settings.limits.streamsMax,
        handshakesMax: settings.limits.handshakesMax,
        handshakesPerSecondMax: settings.limits.handshakeRate,
        udpBufferBytesWanted: settings.udpBufferBytes,
        onHandshakeFailure: (kind) => metrics.handshakeFailure(kind),
      }),
  );
  acceptAll(context, listener).catch((error) =>
    log.error("accepting ended: {error}", { error: messageOf(error) })
  );
  return listener;
}

function startHealth(context: ServerContext, parts: { listener: Listener; expiry: Expiry }): HealthServer {
  const { settings, metrics, clock } = context;
  const where = { protocol: "TCP", option: "metrics_listen" } as const;
  return atAddress("serve metrics on", settings.metricsListen, where, () =>
    startHealthServer({
      listen: settings.metricsListen,
      metrics,
      checks: () => readiness(context, parts),
      clock,
    }));
}

/** Runs `open`; an error of the operating system is told with the address and the option that names it. */
function atAddress<Value>(
  action: string,
  address: NetAddress,
  where: { protocol: "UDP" | "TCP"; option: OptionKey },
  open: () => Value,
): Value {
  try {
    return open();
  } catch (cause) {
    const { protocol, option } = where;
    throw new Error(
      `Cannot ${action} ${showAddress(address)} (${protocol}): ${
        messageOf(cause)
      }; end what uses it, or set ` +
        `${option} (${environmentName(option)}) to an address of this machine that is free`,
      { cause },
    );
  }
}

async function acceptAll(context: ServerContext, listener: Listener): Promise<void> {
  for await (const connection of listener.connections()) admit(context, connection);
}

function admit(context: ServerContext, connection: Connection): void {
  const { metrics, limits } = context;
  const { hostname } = connection.remoteAddress;
  const key = limitKey(hostname);
  const refusal = context.draining ? "shuttingDown" : limits.admitConnection(key, maskAddress(hostname));
  if (refusal) return connection.close(CLOSE_CODES[refusal], refusal);
  metrics.connectionsTotal.inc();
  new ServerConnection(context, connection, key).run().catch((error) => {
    log.error("connection failed: {error}", { error: messageOf(error), address: maskAddress(hostname) });
    connection.close(CLOSE_CODES.internal, "internal");
  });
}

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

function registerGauges({ store, metrics, registry, delivery, certificates, memory }: ServerContext): void {
  metrics.onCollect(async () => {
    metrics.connections.set(registry.count);
    metrics.sessions.set(registry.loggedInCount);
    metrics.sendQueueBytes.set(memory.used);
    metrics.waiters.set(delivery.waiters.count);
    metrics.subscribers.set(delivery.subscriptionCount);
    metrics.certificateExpirySeconds.set(certificates.info.notAfter / 1000);
    const counts = await store.counts();
    metrics.setStoreCounts(counts);
    metrics.setOpaqueAccounts({ current: counts.accounts, retired: 0 });
    metrics.storeDiskBytes.set(await store.diskBytes());
  });
}

async function readiness(
  context: ServerContext,
  parts: { listener: Listener; expiry: Expiry },
): Promise<Check[]> {
  const { store, clock, certificates, disk } = context;
  const now = clock.now();
  await disk.look();
  const failure = await store.writeMark(now).then(() => null, messageOf);
  const storeProblem = failure === null ? disk.problem : `the store cannot be written: ${failure}`;
  const { notBefore, notAfter } = certificates.info;
  const check = (name: string, ok: boolean, reason: string): Check =>
    ok ? { name, ok } : { name, ok, reason };
  return [
    check("store", storeProblem === null, storeProblem ?? ""),
    check("listener", parts.listener.accepting, "the QUIC listener is down"),
    check("certificate", now >= notBefore && now < notAfter, "the TLS certificate is not valid now"),
    check("draining", !context.draining, "the server is shutting down"),
    {
      name: "expiry",
      ok: true,
      ...(parts.expiry.pausedBecause ? { reason: parts.expiry.pausedBecause } : {}),
    },
  ];
}

function warnOfInsecureModes(secrets: { authTokens: readonly string[]; dbKeys: readonly string[] }): void {
  if (secrets.authTokens.length === 0) log.warn("running without QPQ_AUTH_TOKEN");
  if (secrets.dbKeys[0] === "") log.warn("db_key is empty; SQL store will be plaintext");
}

function certificateOptions(settings: Settings) {
  const { tlsCert, tlsKey, dataDir } = settings;
  const files = tlsCert !== null && tlsKey !== null ? { certificate: tlsCert, key: tlsKey } : null;
  return { dataDir, files, names: settings.tlsNames ?? localNames() };
}

/** Host name, localhost, and every local address but link-local ones, whose scope no client can name. */
function localNames(): string[] {
  const addresses = Object.values(networkInterfaces()).flat().map((address) => address?.address ?? "");
  const usable = addresses.filter((address) => address !== "" && !address.startsWith("fe80:"));
  return [...new Set([hostname().toLowerCase(), "localhost", "127.0.0.1", "::1", ...usable])];
}

function defaultWorkers(): number {
  return Math.max(1, Math.min(2, navigator.hardwareConcurrency - 1));
}

function deliveryLimitsOf({ limits }: Settings): DeliveryLimits {
  return {
    partsMax: 4,
    recipientsMax: limits.recipientsMax,
    payloadBytesMax: limits.payloadBytesMax,
    enqueueBytesMax: 4 << 20,
    ttlDefaultMs: limits.ttlDefaultMs,
    ttlMaxMs: limits.ttlMaxMs,
    fetchEntriesMax: limits.fetchEntriesMax,
    fetchBytesMax: 4 << 20,
    waitMsMax: limits.waitMaxMs,
    waitersMax: limits.waitersMax,
    enqueue: {
      queueDepthMax: limits.queueDepthMax,
      queueBytesMax: limits.queueBytesMax,
      senderShare: limits.queueSharePercent / 100,
      senderBytesPerDay: limits.senderBytesPerDay,
      idempotencyMs: limits.idempotencyTtlMs,
      idempotencyCountMax: limits.idempotencyCountMax,
      guardsPerDay: limits.guardsPerDay,
    },
  };
}

function blobLimits({ limits }: Settings) {
  return {
    blobBytesMax: limits.blobBytesMax,
    blobQuotaBytes: limits.blobQuotaBytes,
    ttlDefaultMs: limits.ttlDefaultMs,
    ttlMaxMs: limits.ttlMaxMs,
    uploadsMax: limits.blobUploadsMax,
  };
}

function expiryTimes(settings: Settings) {
  return {
    idempotencyMs: settings.limits.idempotencyTtlMs,
    guardIdleMs: settings.limits.guardIdleTtlMs,
    sessionIdleMs: settings.sessionIdleTtlMs,
    sessionMs: settings.sessionTtlMs,
    deviceIdleMs: settings.deviceIdleTtlMs,
  };
}

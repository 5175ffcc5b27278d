/**
 * The server of a simulation: its real parts over a disk, a network and a clock that are not. One machine runs one
 * server after another; each may be killed at any moment, with the power or without.
 */
import { Authenticator } from "../../mod/auth/authenticator.ts";
import { OpaquePool } from "../../mod/auth/opaque.ts";
import { OpaqueSetups } from "../../mod/auth/setups.ts";
import { type AccessToken, AccessTokens } from "../../mod/auth/tokens.ts";
import { type Bytes, concat, randomBytes } from "../../mod/base/bytes.ts";
import type { Clock } from "../../mod/base/clock.ts";
import { SUITE_RISTRETTO255 } from "../../mod/base/opaque_suite.ts";
import { VERSION } from "../../mod/base/version.ts";
import { defaultSettings, type Settings } from "../../mod/config/options.ts";
import { Blobs } from "../../mod/delivery/blobs.ts";
import { Expiry } from "../../mod/delivery/expiry.ts";
import { KeyPackages } from "../../mod/delivery/keypackages.ts";
import { Delivery } from "../../mod/delivery/queues.ts";
import { Metrics } from "../../mod/observe/metrics.ts";
import { METHODS } from "../../mod/protocol/methods.ts";
import type { Certificates } from "../../mod/server/certificates.ts";
import type { ServerContext } from "../../mod/server/context.ts";
import { DiskSpace } from "../../mod/server/disk_space.ts";
import { LIMIT_NAMES, Limits } from "../../mod/server/limits.ts";
import { acceptAll } from "../../mod/server/listening.ts";
import { MemoryBudget } from "../../mod/server/memory_budget.ts";
import { noticeMaker } from "../../mod/server/notices.ts";
import { Registry } from "../../mod/server/registry.ts";
import {
  authLimitsOf,
  blobLimitsOf,
  deliveryLimitsOf,
  expiryTimesOf,
} from "../../mod/server/reload_settings.ts";
import { RequestsInFlight } from "../../mod/base/requests_in_flight.ts";
import { BlobFiles } from "../../mod/store/blob_files.ts";
import { FileStore } from "../../mod/store/file/mod.ts";
import { openJournal } from "../../mod/store/file/recovery.ts";
import type { Store } from "../../mod/store/store.ts";
import { AsyncQueue } from "../../mod/transport/async_queue.ts";
import type { Connection } from "../../mod/transport/transport.ts";
import type { PlantedBug } from "./planted_bugs.ts";
import type { MountedDisk, SimDisk } from "./sim_disk.ts";
import type { Acceptor } from "./sim_network.ts";

const DATA_DIR = "/data";
const KEY = "0123456789abcdef".repeat(4);
/** So small that the journal is compacted now and then. */
const SEGMENT_BYTES = 24 << 10;
const MINUTE_MS = 60_000;
/** An OPAQUE setup is `oprf_seed ‖ private key ‖ dummy public key`. */
const OPRF_SEED_BYTES = 64;

/** Times and bounds that a simulation of some minutes reaches. */
export const SETTINGS: Settings = {
  ...defaultSettings(),
  sessionIdleTtlMs: 40 * MINUTE_MS,
  limits: {
    ...defaultSettings().limits,
    ttlDefaultMs: 12 * MINUTE_MS,
    ttlMaxMs: 30 * MINUTE_MS,
    idempotencyTtlMs: 8 * MINUTE_MS,
    waitMaxMs: MINUTE_MS,
    waitersMax: 32,
    queueDepthMax: 12,
    queueSharePercent: 50,
    keyPackagesMax: 8,
    keyPackagesLow: 2,
    claimRate: 1_000,
    claimBudgetTarget: 1_000,
    claimBudgetClaimer: 1_000,
    guardsPerDay: 4,
  },
};

/** What all simulations of a process share: parts of a server that no promise is about. */
export interface SimSurroundings {
  readonly diskSpace: DiskSpace;
  readonly blobFiles: BlobFiles;
}

/** Makes {@link SimSurroundings} in a folder that exists. */
export async function simSurroundings(folder: string): Promise<SimSurroundings> {
  const still: Clock = { now: () => 0, monotonic: () => 0, after: () => () => {} };
  return {
    diskSpace: await DiskSpace.watch(folder, { reserveBytes: () => 0, clock: still }),
    blobFiles: await BlobFiles.open(folder),
  };
}

/** What outlives a server: its files. */
export interface Configuration {
  tokens: readonly AccessToken[];
  /** Hashes of the present certificate, and of the next if it is announced. */
  leafHashes: readonly Bytes[];
}

/** Timers that end with the program that set them. */
export class ProgramClock implements Clock {
  readonly #clock: Clock;
  readonly #cancels = new Set<() => void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  now(): number {
    return this.#clock.now();
  }

  monotonic(): number {
    return this.#clock.monotonic();
  }

  after(delayMs: number, callback: () => void): () => void {
    const cancelTimer = this.#clock.after(delayMs, () => {
      this.#cancels.delete(cancel);
      callback();
    });
    const cancel = () => {
      this.#cancels.delete(cancel);
      cancelTimer();
    };
    this.#cancels.add(cancel);
    return cancel;
  }

  /** Timers that have not run. */
  get pending(): number {
    return this.#cancels.size;
  }

  kill(): void {
    for (const cancel of [...this.#cancels]) cancel();
  }
}

/** How a server is started. */
export interface BootOptions {
  readonly disk: SimDisk;
  readonly clock: Clock;
  readonly configuration: Configuration;
  readonly surroundings: SimSurroundings;
  readonly bug: PlantedBug | null;
  /** The server is killed within this call of the disk. */
  readonly lastCall: number;
  readonly onLastCall: () => void;
}

/** A running server. */
export class SimServer implements Acceptor {
  readonly #connections = new AsyncQueue<Connection>();
  readonly #clock: ProgramClock;
  readonly #mounted: MountedDisk;
  readonly #tokens: AccessTokens;
  readonly #setups: OpaqueSetups;
  readonly #pool: OpaquePool;
  readonly context: ServerContext;

  private constructor(parts: {
    context: ServerContext;
    clock: ProgramClock;
    mounted: MountedDisk;
    tokens: AccessTokens;
    setups: OpaqueSetups;
    pool: OpaquePool;
  }) {
    this.context = parts.context;
    this.#clock = parts.clock;
    this.#mounted = parts.mounted;
    this.#tokens = parts.tokens;
    this.#setups = parts.setups;
    this.#pool = parts.pool;
    acceptAll(parts.context, { connections: () => this.#connections });
  }

  /** Starts a server as start.ts does. Rejects when the store cannot be opened. Never returns when it was killed. */
  static async boot(options: BootOptions): Promise<SimServer> {
    const { configuration, surroundings, bug } = options;
    const clock = new ProgramClock(options.clock);
    const mounted = options.disk.mount({
      clock,
      lastCall: options.lastCall,
      onLastCall: () => {
        clock.kill();
        options.onLastCall();
      },
    });
    const sound = await openStore(mounted);
    const store = bug?.inStore?.(sound) ?? sound;
    const pool = await OpaquePool.open({ workers: 1, pendingMax: 64 });
    const tokens = await AccessTokens.of(configuration.tokens);
    bug?.inTokens?.(tokens);
    const setups = await OpaqueSetups.open({ store, pool, clock });
    const metrics = new Metrics({
      version: VERSION,
      methods: Object.keys(METHODS),
      limits: LIMIT_NAMES,
      clock,
    });
    const registry = new Registry();
    const notice = noticeMaker({ clock, ttlMs: () => SETTINGS.limits.ttlDefaultMs });
    const limits = new Limits({ clock, metrics, registry, settings: SETTINGS.limits });
    const authenticator = new Authenticator({
      store,
      pool,
      setups,
      tokens,
      clock,
      invitations: SETTINGS.invitations,
      limits: authLimitsOf(SETTINGS),
      events: {
        onLoginFailure: () => {},
        onLoginSuccess: () => {},
        onPasswordProven: () => {},
        onSessionsEnded: (ended) => registry.closeEnded(ended),
      },
      deviceAddedNotice: (deviceId) =>
        notice({ case: "deviceAdded", value: { deviceId: Uint8Array.fromHex(deviceId) } }),
      deviceRevokedNotice: (deviceId) =>
        notice({ case: "deviceRevoked", value: { deviceId: Uint8Array.fromHex(deviceId) } }),
      leafHashes: () => configuration.leafHashes,
    });
    const deliveryLimits = deliveryLimitsOf(SETTINGS);
    const { keyPackagesMax, keyPackagesLow } = SETTINGS.limits;
    const blobs = new Blobs({
      store,
      files: surroundings.blobFiles,
      clock,
      limits: blobLimitsOf(SETTINGS),
    });
    const expiry = new Expiry({ store, blobs, clock, times: expiryTimesOf(SETTINGS) });
    await expiry.start();
    const context: ServerContext = {
      settings: SETTINGS,
      clock,
      store,
      metrics,
      authenticator,
      delivery: new Delivery({ store, clock, metrics, limits: deliveryLimits }),
      deliveryLimits,
      keyPackages: new KeyPackages({
        store,
        clock,
        perSuiteMax: keyPackagesMax,
        lowBelow: keyPackagesLow,
        lowNotice: (suite, count) => notice({ case: "keyPackagesLow", value: { suite, count } }),
      }),
      blobs,
      certificates: certificatesOf(configuration),
      limits,
      memory: new MemoryBudget(SETTINGS.limits.memoryBytesMax),
      disk: surroundings.diskSpace,
      registry,
      requestsInFlight: new RequestsInFlight(),
      draining: false,
      rekeying: false,
      federation: null,
    };
    return new SimServer({ context, clock, mounted, tokens, setups, pool });
  }

  accept(connection: Connection): void {
    this.#connections.push(connection);
  }

  /** The process is no more: nothing of it takes effect from now on. */
  kill(): void {
    this.#mounted.kill();
    this.#clock.kill();
    void this.#pool.close();
  }

  /** `rotate auth-token`: both are accepted until the overlap is over. */
  async replaceTokens(tokens: readonly AccessToken[]): Promise<void> {
    await this.#tokens.replace(tokens);
  }

  /** `rotate opaque`: a new setup with the old seed. */
  async addOpaqueSetup(): Promise<void> {
    const { store, clock } = this.context;
    const newest = (await store.opaqueSetups()).at(-1)!;
    const fresh = await this.#pool.createSetup(SUITE_RISTRETTO255);
    const secret = concat(newest.secret.subarray(0, OPRF_SEED_BYTES), fresh.subarray(OPRF_SEED_BYTES));
    await store.addOpaqueSetup({ suiteId: SUITE_RISTRETTO255, secret, createdAt: clock.now() });
    await this.#setups.refresh();
  }

  /** `rotate opaque --retire`, of the oldest setup unless accounts still need it. */
  async retireOpaqueSetup(): Promise<void> {
    const { store, clock } = this.context;
    const oldest = (await store.opaqueSetups()).find((setup) => setup.retiredAt === null)!;
    await store.retireOpaqueSetup({
      setupId: oldest.setupId,
      force: false,
      namesMax: 0,
      now: clock.now(),
    });
    await this.#setups.refresh();
  }

  /** What is held although no client is connected any more, in words. */
  leftovers(): string[] {
    const { registry, requestsInFlight, delivery, authenticator, memory, metrics } = this.context;
    const counts = {
      connections: registry.count,
      "logged-in connections": registry.loggedInCount,
      requests: requestsInFlight.count,
      waits: delivery.waiters.count,
      subscriptions: delivery.subscriptionCount,
      exchanges: authenticator.pendingCount,
      "request bytes": memory.used,
      "reply bytes": metrics.sendQueueBytes,
    };
    return Object.entries(counts).flatMap(([name, count]) => count === 0 ? [] : [`${count} ${name}`]);
  }

  /** Timers of the server. */
  get timers(): number {
    return this.#clock.pending;
  }
}

/** Like openFileStore(), without the look at the real disk for a change of key that was interrupted. */
export async function openStore(disk: MountedDisk): Promise<Store> {
  const options = { dataDir: DATA_DIR, keys: [KEY] };
  const { state, journal } = await openJournal(options, disk, { queueEntriesMax: 100_000 });
  const store = new FileStore(state, journal, { segmentBytes: SEGMENT_BYTES, onBatch: () => {} });
  await store.tidy();
  return store;
}

/** A new certificate's hash: the simulation has no TLS, only what sessions are bound to. */
export function newLeafHash(): Bytes {
  return randomBytes(32);
}

function certificatesOf(configuration: Configuration): Certificates {
  return {
    get nextLeafSha256() {
      return configuration.leafHashes[1] ?? null;
    },
    info: { chainDer: [] },
  } as unknown as Certificates;
}

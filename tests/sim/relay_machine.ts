/**
 * A machine of the simulation of two servers: a disk, and one program after another that has the real parts of a
 * server that relay: store, delivery, and on the one side the outbox, on the other what answers peers.
 */
import { Registry } from "prom-client";
import { type Clock, delay } from "../../mod/base/clock.ts";
import { QpqError } from "../../mod/base/errors.ts";
import { defaultSettings } from "../../mod/config/options.ts";
import { Delivery } from "../../mod/delivery/queues.ts";
import { Outbox } from "../../mod/federation/outbox.ts";
import type { CallingLink } from "../../mod/federation/outbox_sender.ts";
import { PeerMetrics } from "../../mod/federation/peer_metrics.ts";
import { Relay, type RelayDeps } from "../../mod/federation/relay.ts";
import { Metrics } from "../../mod/observe/metrics.ts";
import { noticeMaker } from "../../mod/server/notices.ts";
import { deliveryLimitsOf } from "../../mod/server/reload_settings.ts";
import type { Store } from "../../mod/store/store.ts";
import { type MountedDisk, SimDisk } from "./sim_disk.ts";
import type { SimRandom } from "./sim_random.ts";
import { openStore, ProgramClock } from "./sim_server.ts";

/** The two servers. */
export const SENDING = "a.example";
export const RECEIVING = "b.example";

const settings = defaultSettings();
const deliveryLimits = deliveryLimitsOf({
  ...settings,
  limits: { ...settings.limits, queueDepthMax: 14, queueSharePercent: 80 },
  federation: { ...settings.federation, outboxDepthMax: 40 },
});
const NOTICE_TTL_MS = 86_400_000;
const still: Clock = { now: () => 0, monotonic: () => 0, after: () => () => {} };
const metrics = new Metrics({ version: "0", methods: [], limits: [], clock: still });
const peerMetrics = new PeerMetrics(new Registry(), [SENDING, RECEIVING]);

/** A running server. */
export interface RelayProgram {
  readonly store: Store;
  readonly delivery: Delivery;
  readonly clock: ProgramClock;
  readonly outbox: Outbox;
  readonly relay: Relay;
  readonly mounted: MountedDisk;
}

/** What surrounds a machine. */
export interface MachineOptions {
  readonly clock: Clock;
  readonly random: SimRandom;
  readonly patch: (store: Store) => Store;
  /** A link to the other machine; rejects while there is none to be had. */
  readonly linkTo: (from: RelayProgram) => Promise<CallingLink>;
}

/** One machine. */
export class RelayMachine {
  readonly disk: SimDisk;
  /** The program; null while the machine is down. */
  running: RelayProgram | null = null;
  /** Share of messages that the store cannot take, for once. */
  failing = 0;
  /** Everything that a peer asks is refused. */
  overloaded = false;
  crashes = 0;
  readonly #options: MachineOptions;

  constructor(options: MachineOptions) {
    this.#options = options;
    this.disk = new SimDisk(options.random.fork());
  }

  /** Starts a program on what the disk holds, again until it works. */
  async boot(): Promise<RelayProgram> {
    while (true) {
      const clock = new ProgramClock(this.#options.clock);
      const mounted = this.disk.mount({ clock, lastCall: Infinity, onLastCall: () => {} });
      try {
        return this.running = await this.#start(await openStore(mounted), { clock, mounted });
      } catch (error) {
        clock.kill();
        mounted.kill();
        if (this.disk.faults.failing === 0) throw error;
        await delay(this.#options.clock, 1_000);
      }
    }
  }

  /** The power goes at this moment, or only the program ends; it comes back after a while. */
  async crash(kind: "powerCut" | "kill"): Promise<void> {
    if (!this.running) return;
    this.crashes++;
    this.running.mounted.kill();
    this.running.clock.kill();
    this.running = null;
    if (kind === "powerCut") this.disk.cutPower();
    await delay(this.#options.clock, this.#options.random.int(100, 5_000));
    await this.boot();
  }

  async #start(sound: Store, { clock, mounted }: { clock: ProgramClock; mounted: MountedDisk }) {
    const { random, linkTo, patch } = this.#options;
    const store = patch(this.#failing(sound));
    const delivery = new Delivery({ store, clock, metrics, limits: deliveryLimits });
    const notice = noticeMaker({ clock, ttlMs: () => NOTICE_TTL_MS });
    const outbox = new Outbox({
      store,
      clock,
      metrics: peerMetrics,
      linkTo: () => linkTo(program),
      standing: () => "peer",
      notice: (failed) => notice({ case: "deliveryFailed", value: failed } as Parameters<typeof notice>[0]),
      ttlMs: () => 3 * 86_400_000,
      random: () => random.int(0, 999) / 1_000,
    });
    const relay = new Relay({
      delivery,
      store,
      clock,
      metrics: peerMetrics,
      limits: { claimsPerMinute: 1, devicesMax: 1 },
      refusal: () => this.overloaded ? new QpqError("overloaded", "It is simulated so") : null,
      onSeen: () => {},
    } as unknown as RelayDeps);
    const program: RelayProgram = { store, delivery, clock, outbox, relay, mounted };
    await outbox.start();
    return program;
  }

  /** A store that has no room for a message now and then, and fails to say what it did. */
  #failing(store: Store): Store {
    const { random } = this.#options;
    const enqueue = store.enqueue.bind(store);
    store.enqueue = async (message) => {
      if (message.origin === null || !random.chance(this.failing)) return await enqueue(message);
      if (random.chance(0.3)) await enqueue(message);
      throw new QpqError(random.pick(["storeFull", "storeUnavailable"]), "It is simulated so");
    };
    return store;
  }
}

/**
 * The world of one simulation: a machine that runs a server, devices, an operator, and what goes wrong. It begins
 * with accounts that are registered and devices that are logged in ({@link SimTemplate}).
 */
import { type Bytes, hex, randomBytes, utf8 } from "../../mod/base/bytes.ts";
import { type Clock, delay } from "../../mod/base/clock.ts";
import type { DeviceId } from "../../mod/base/ids.ts";
import { SUITE_RISTRETTO255 } from "../../mod/base/opaque_suite.ts";
import { ClientConnection } from "../../mod/client/connection.ts";
import { StoreOpenError } from "../../mod/store/store.ts";
import { beginRegistration } from "../support/opaque_client.ts";
import { Model } from "./model.ts";
import type { PlantedBug } from "./planted_bugs.ts";
import { SeededKeyPair } from "./seeded_runtime.ts";
import { SimDevice } from "./sim_device.ts";
import { SimDisk } from "./sim_disk.ts";
import { SimNetwork } from "./sim_network.ts";
import { SimRandom } from "./sim_random.ts";
import type { GuardInit } from "./sim_requests.ts";
import { type Configuration, newLeafHash, SimServer, type SimSurroundings } from "./sim_server.ts";
import type { SimAccount, SimIdentity } from "./sim_uplink.ts";

/** Who there is: an account's name and how many devices it has. */
const PEOPLE = { alice: 2, bob: 2, carol: 1 } as const;
const GROUPS = ["friends", "family"] as const;
const FIRST_TOKEN = "the first token";
/** What a device does in one simulation. */
const ACTIONS_MIN = 8;
const ACTIONS_MAX = 18;

/** A configuration, and the token that a rotation has replaced. */
export type SimConfiguration = Configuration & { stale: { token: string; until: number } | null };

/** A store with accounts and devices, and who they are: every simulation begins with a copy. */
export interface SimTemplate {
  readonly disk: SimDisk;
  readonly configuration: Configuration;
  readonly accounts: readonly { userName: string; accountId: string; keySeed: Bytes; password: string }[];
  readonly devices: readonly { userName: string; name: string; identity: SimIdentity; session: string }[];
}

/** What a world is made of. */
export interface SimWorldOptions {
  readonly clock: Clock;
  readonly random: SimRandom;
  readonly template: SimTemplate | null;
  readonly surroundings: SimSurroundings;
  readonly bug: PlantedBug | null;
}

/** See the head of this file. */
export class SimWorld {
  readonly clock: Clock;
  readonly network: SimNetwork;
  readonly model: Model;
  readonly configuration: SimConfiguration;
  readonly accounts: SimAccount[] = [];
  readonly devices: SimDevice[] = [];
  readonly groups: readonly string[] = GROUPS;
  /** Epochs as clients know them. */
  readonly epochs = new Map<string, number>();
  /** What was sent under which id, by the messages' numbers. */
  readonly sentIds = new Map<number, { id: Bytes; guard: GuardInit | null }>();
  /** Mean time between two actions of a device. */
  pauseMs = 5_000;
  readonly disk: SimDisk;
  readonly #random: SimRandom;
  readonly #surroundings: SimSurroundings;
  readonly #bug: PlantedBug | null;
  #server: SimServer | null = null;
  #booting: Promise<void> | null = null;
  #runs = 0;
  /** The run that ended before it was there. */
  #deadRun = 0;
  #crashes = 0;
  #numbers = 0;
  #tokens = 0;
  /** No more trouble begins. */
  #calm = false;
  #onDeath: () => void = () => {};

  constructor(options: SimWorldOptions) {
    const { clock, random, template } = options;
    this.clock = clock;
    this.#random = random.fork();
    this.network = new SimNetwork(clock, random.fork());
    this.model = new Model(clock);
    this.disk = template ? template.disk.clone(random.fork()) : new SimDisk(random.fork());
    this.#surroundings = options.surroundings;
    this.#bug = options.bug;
    this.configuration = {
      ...template?.configuration ??
        { tokens: [{ token: FIRST_TOKEN, until: null }], leafHashes: [newLeafHash()] },
      stale: null,
    };
    if (template) this.#settle(template, random);
  }

  get crashes(): number {
    return this.#crashes;
  }

  get server(): SimServer | null {
    return this.#server;
  }

  epochOf(group: string): number {
    return Math.max(this.model.epochOf(group), this.epochs.get(group) ?? 0);
  }

  nextNumber(): number {
    return ++this.#numbers;
  }

  #settle(template: SimTemplate, random: SimRandom): void {
    for (const { userName, accountId, keySeed, password } of template.accounts) {
      this.accounts.push({
        userName,
        accountId: accountId as SimAccount["accountId"],
        key: new SeededKeyPair(keySeed),
        passwords: [password],
        changedAt: -Infinity,
        changes: 0,
      });
    }
    for (const [index, { userName, name, identity, session }] of template.devices.entries()) {
      const account = this.accounts.find((one) => one.userName === userName)!;
      const address = `10.0.${index}.1`;
      const device = { account, name, identity, session, address };
      this.devices.push(new SimDevice(this, { ...device, random: random.fork() }));
      this.model.loggedIn(session, { device: identity.deviceId, account: userName, begun: 0, others: null });
    }
  }

  /** Everybody does something while things go wrong; then all is well, and what was promised must be there. */
  async live(): Promise<void> {
    await this.#boot();
    const random = this.#random;
    this.pauseMs = random.pick([300, 3_000, 3_000, 10_000, 60_000, 200_000]);
    this.network.faults = {
      delayMsMax: random.pick([2, 40]), // on a fast network more happens at the same moment
      loss: random.pick([0, 0.005, 0.03]),
      late: random.pick([0, 0.02, 0.1]),
    };
    this.disk.faults = {
      failing: random.pick([0, 0, 0.01, 0.05]),
      slow: random.pick([0, 0, 0.02, 0.1]),
    };
    const trouble = this.#makeTrouble();
    await Promise.all(this.devices.map((device) => device.live(random.int(ACTIONS_MIN, ACTIONS_MAX))));
    this.#calm = true;
    this.network.faults = { delayMsMax: 40, loss: 0, late: 0 };
    this.disk.faults = { failing: 0, slow: 0 };
    await trouble;
    await this.#booting;
    for (const device of this.devices) await device.finish();
    await this.#checkLeftovers();
  }

  /** Operators rotate keys, machines lose power, processes are killed, now and then it is night. */
  async #makeTrouble(): Promise<void> {
    const random = this.#random;
    const meanMs = Math.max(this.pauseMs, random.pick([10_000, 60_000]));
    const kinds = {
      powerCut: random.pick([0, 3]),
      kill: random.pick([0, 2]),
      rotateToken: 1,
      rotateOpaque: 1,
      retireOpaque: 1,
      rotateCertificate: 1,
      nothing: 2,
    };
    for (let left = random.int(0, 6); left > 0; left--) {
      await delay(this.clock, random.wait(meanMs));
      if (this.#calm) return;
      const kind = random.weighted(kinds);
      if (kind === "powerCut" || kind === "kill") this.#crash(kind);
      else if (this.#server) await this.#operate(this.#server, kind);
    }
  }

  async #operate(server: SimServer, kind: string): Promise<void> {
    const { configuration, clock } = this;
    if (kind === "rotateToken") {
      const former = configuration.tokens[0]!.token;
      const until = clock.now() + this.#random.int(0, 60_000);
      configuration.stale = { token: former, until };
      const token = `token ${++this.#tokens}`;
      configuration.tokens = [{ token, until: null }, { token: former, until }];
      return await server.replaceTokens(configuration.tokens);
    }
    if (kind === "rotateCertificate") {
      const [present, next] = configuration.leafHashes;
      configuration.leafHashes = next ? [next] : [present!, newLeafHash()];
      return;
    }
    const work = kind === "rotateOpaque"
      ? server.addOpaqueSetup()
      : kind === "retireOpaque"
      ? server.retireOpaqueSetup()
      : Promise.resolve();
    // A disk that fails refuses it, a crash leaves it without an answer: the operator would try again later.
    await Promise.race([work.catch(() => {}), delay(clock, 10_000)]);
  }

  /** The server is gone at this moment, with or without what its disk had not synced, and comes back. */
  #crash(kind: "powerCut" | "kill"): void {
    if (this.#booting && !this.#server) return;
    this.#crashes++;
    this.#server?.kill();
    this.#server = null;
    this.network.serverGone();
    if (kind === "powerCut") this.disk.cutPower();
    this.#booting = this.#bootLater();
  }

  async #bootLater(): Promise<void> {
    await delay(this.clock, this.#random.int(100, 5_000));
    await this.#boot();
  }

  async #boot(): Promise<void> {
    const run = ++this.#runs;
    const died = new Promise<"died">((resolve) => this.#onDeath = () => resolve("died"));
    const started = await Promise.race([this.#start(run), died]);
    if (started === "died" || this.#deadRun === run) return await this.#bootLater();
    this.#server = started;
    this.network.server = started;
    if (this.#bug?.inDisk) this.disk.lies = this.#bug.inDisk;
  }

  /** Starts a server, again until it works. One that finds its store damaged has broken every promise. */
  async #start(run: number): Promise<SimServer> {
    const random = this.#random;
    const lastCall = !this.#calm && random.chance(0.3) ? random.int(1, 300) : Infinity;
    const onLastCall = () => this.#diedWithin(run, random.chance(0.7) ? "powerCut" : "kill");
    while (true) {
      try {
        return await SimServer.boot({
          disk: this.disk,
          clock: this.clock,
          configuration: this.configuration,
          surroundings: this.#surroundings,
          bug: this.#bug,
          lastCall,
          onLastCall,
        });
      } catch (error) {
        if (error instanceof StoreOpenError && error.problem === "damaged") {
          this.model.cannotStart(error.message);
        }
        await delay(this.clock, 1_000);
      }
    }
  }

  /** The run ended within a call of its disk, while it was starting or later. */
  #diedWithin(run: number, kind: "powerCut" | "kill"): void {
    if (run !== this.#runs) return;
    if (this.#server) return this.#crash(kind);
    this.#deadRun = run;
    this.#crashes++;
    if (kind === "powerCut") this.disk.cutPower();
    this.#onDeath();
  }

  async #checkLeftovers(): Promise<void> {
    let server: SimServer | null = null;
    while (!server) {
      await delay(this.clock, 90_000);
      server = this.#server; // null after a late crash: it starts again
    }
    const leftovers = server.leftovers();
    if (leftovers.length > 0) this.model.unbounded(leftovers.join(", "));
    // Expiry's own, and nothing for each of those who were here.
    if (server.timers > 2) this.model.unbounded(`${server.timers} timers`);
    if (this.network.linkCount > 0) this.model.unbounded(`${this.network.linkCount} connections`);
  }

  /** Waits for a moment at which others may want to do the same. */
  async rendezvous(): Promise<void> {
    const everyMs = Math.max(2_000, this.pauseMs);
    await delay(this.clock, everyMs - this.clock.monotonic() % everyMs);
  }

  /** Registers everybody and logs the devices in, on a machine where nothing goes wrong. */
  async makeTemplate(): Promise<SimTemplate> {
    await this.#boot();
    const accounts: SimTemplate["accounts"][number][] = [];
    const devices: SimTemplate["devices"][number][] = [];
    for (const [userName, deviceCount] of Object.entries(PEOPLE)) {
      const password = `password of ${userName}`;
      const keySeed = randomBytes(32);
      const accountId = await this.#register({ userName, password, key: new SeededKeyPair(keySeed) });
      accounts.push({ userName, accountId, keySeed, password });
      for (let count = 1; count <= deviceCount; count++) {
        const name = `${userName} ${count}`;
        devices.push({ userName, name, ...await this.#logIn(accounts.at(-1)!, name) });
      }
    }
    this.#server!.kill();
    this.network.serverGone();
    const { tokens, leafHashes } = this.configuration;
    return { disk: this.disk, configuration: { tokens, leafHashes }, accounts, devices };
  }

  async #register(account: { userName: string; password: string; key: SeededKeyPair }): Promise<string> {
    const connection = await this.network.connect({ hostname: "10.0.9.1", port: 4000 });
    await using link = await ClientConnection.open(connection, { clock: this.clock });
    const { realmId } = await link.call("hello", { accessToken: FIRST_TOKEN });
    const client = beginRegistration(account.password, realmId);
    const { handle, registrationResponse } = await link.call("registerStart", {
      userName: account.userName,
      suiteId: SUITE_RISTRETTO255,
      registrationRequest: client.request,
    });
    const { accountId } = await link.call("registerFinish", {
      handle,
      registrationRecord: client.finish(registrationResponse).record,
      accountKey: account.key.publicKey,
      wrappedAccountKey: utf8("wrapped"),
    });
    return hex(accountId);
  }

  async #logIn(
    account: SimTemplate["accounts"][number],
    name: string,
  ): Promise<{ identity: SimIdentity; session: string }> {
    const { userName, accountId, keySeed, password } = account;
    const key = new SeededKeyPair(keySeed);
    const identity = {
      deviceId: hex(randomBytes(16)) as DeviceId,
      key: new SeededKeyPair(randomBytes(32)),
      signed: false,
    };
    const device = new SimDevice(this, {
      account: {
        userName,
        accountId: accountId as SimAccount["accountId"],
        key,
        passwords: [password],
        changedAt: -Infinity,
        changes: 0,
      },
      name,
      identity,
      session: null,
      random: this.#random.fork(),
      address: "10.0.9.1",
    });
    await device.finish();
    return { identity: device.uplink.identity, session: device.uplink.session! };
  }
}

/**
 * A device of a simulation: it sends, receives, commits, claims KeyPackages and so on over the library's own
 * ClientConnection, and now and then tries what nobody may. What it asks and hears goes to the model.
 */
import { type Bytes, fromHex, hex, randomBytes, utf8 } from "../../mod/base/bytes.ts";
import { delay } from "../../mod/base/clock.ts";
import { QpqError } from "../../mod/base/errors.ts";
import type { DeviceId } from "../../mod/base/ids.ts";
import { MLS_SUITE_X25519 } from "../../mod/base/mls_suites.ts";
import { signContent } from "../../mod/base/sign_with_label.ts";
import type { ClientConnection } from "../../mod/client/connection.ts";
import type { SharedMethodName } from "../../mod/protocol/methods.ts";
import { RecipientStatus } from "../../mod/protocol/qpq_pb.ts";
import type { SimMessage } from "./model.ts";
import { makeKeyPackage } from "./sim_key_packages.ts";
import { SimQueue } from "./sim_queue.ts";
import type { SimRandom } from "./sim_random.ts";
import {
  commitBytes,
  type GuardInit,
  guardOf,
  type IdentifiedMessage,
  requestOf,
  tokenOf,
} from "./sim_requests.ts";
import { CALL_MS, GaveUp, ignoreTransient, type SimDeviceOptions, SimUplink, TRY_MS } from "./sim_uplink.ts";
import type { SimWorld } from "./sim_world.ts";

const STATUS_NAMES: Record<RecipientStatus, string> = {
  [RecipientStatus.UNSPECIFIED]: "unspecified",
  [RecipientStatus.OK]: "ok",
  [RecipientStatus.UNKNOWN_DEVICE]: "unknownDevice",
  [RecipientStatus.QUEUE_FULL]: "queueFull",
  [RecipientStatus.BLOCKED]: "blocked",
  [RecipientStatus.RELAYING]: "relaying",
  [RecipientStatus.UNKNOWN_DOMAIN]: "unknownDomain",
};

/** How often a device does what. */
const ACTIONS = {
  send: 30,
  receive: 24,
  follow: 6,
  commit: 10,
  resend: 6,
  upload: 9,
  claim: 14,
  forge: 3,
  trespass: 2,
  disconnect: 3,
  logOut: 2,
  changePassword: 1,
  revoke: 1,
} as const;

/** See the head of this file. */
export class SimDevice {
  readonly uplink: SimUplink;
  readonly queue: SimQueue;
  readonly #world: SimWorld;
  readonly #random: SimRandom;
  #uploaded: { device: DeviceId; bytes: Bytes; lastResort: boolean }[] = [];

  constructor(world: SimWorld, options: SimDeviceOptions) {
    this.#world = world;
    this.#random = options.random;
    this.uplink = new SimUplink(world, options);
    this.queue = new SimQueue(world, { uplink: this.uplink, random: options.random });
  }

  get deviceId(): DeviceId {
    return this.uplink.deviceId;
  }

  /** Does so many things, one after another or two at a time; before, it gives others KeyPackages to claim. */
  async live(actions: number): Promise<void> {
    await this.#act("upload");
    for (let done = 0; done < actions;) {
      await delay(this.#world.clock, this.#random.wait(this.#world.pauseMs));
      const atOnce = this.#random.chance(0.3) ? 2 : 1;
      await Promise.all(Array.from({ length: atOnce }, () => this.#act(this.#random.weighted(ACTIONS))));
      done += atOnce;
    }
  }

  /** Sees everything that waits, and leaves. The network and the store are well again. */
  async finish(): Promise<void> {
    const device = this.deviceId;
    try {
      await this.uplink.trying(async () => {
        while (!await this.queue.fetch("all"));
        await this.queue.fetchAgain();
      });
      await this.uplink.trying((link) => this.queue.ack(link));
      await this.uplink.disconnect();
    } catch (error) {
      if (!(error instanceof GaveUp) || this.deviceId === device) throw error;
      await this.finish(); // as the device that took the place of a revoked one
    }
  }

  async #act(action: keyof typeof ACTIONS): Promise<void> {
    try {
      await this.#do(action);
    } catch (error) {
      if (!(error instanceof GaveUp)) throw error;
    }
  }

  #do(action: keyof typeof ACTIONS): Promise<unknown> {
    switch (action) {
      case "send":
        return this.#send();
      case "receive":
        return this.queue.receive();
      case "follow":
        return this.queue.follow();
      case "commit":
        return this.#commit();
      case "resend":
        return this.#resend();
      case "upload":
        return this.#upload();
      case "claim":
        return this.#claim();
      case "forge":
        return this.#forge();
      case "trespass":
        return this.#trespass();
      case "disconnect":
        return this.uplink.disconnect();
      case "logOut":
        return this.uplink.logOut();
      case "changePassword":
        return this.uplink.changePassword();
      case "revoke":
        return this.uplink.revokeAnother();
    }
  }

  #message(text: Uint8Array, commit: SimMessage["commit"], number: number): IdentifiedMessage {
    const others = this.#world.devices.filter((device) => device !== this).map((device) => device.deviceId);
    const count = this.#random.int(1, commit ? others.length : 3);
    const recipients = new Set(Array.from({ length: count }, () => this.#random.pick(others)));
    const sender = this.deviceId;
    return { number, sender, recipients: [...recipients], payload: text, commit, id: randomBytes(16) };
  }

  async #send(): Promise<void> {
    const number = this.#world.nextNumber();
    const padding = "x".repeat(
      this.#random.chance(0.1) ? this.#random.int(500, 3_000) : this.#random.int(0, 60),
    );
    const message = this.#message(utf8(`#${number}#${padding}`), null, number);
    await this.#deliver(message, null);
  }

  /** Sends until there is an answer, now and then twice at once. */
  async #deliver(message: IdentifiedMessage, guard: GuardInit | null): Promise<void> {
    const { model } = this.#world;
    this.#world.sentIds.set(message.number, { id: message.id, guard });
    model.sending(message);
    const attempts = this.#random.chance(0.1) ? 2 : 1;
    await Promise.all(Array.from({ length: attempts }, () => this.#enqueue(message, guard)));
  }

  async #enqueue(message: IdentifiedMessage, guard: GuardInit | null): Promise<void> {
    const { model } = this.#world;
    try {
      const answer = await this.uplink.call("enqueue", requestOf(message, guard));
      model.accepted(message.number, {
        statuses: answer.statuses.map((status) => STATUS_NAMES[status]),
        acceptedAt: Number(answer.acceptedAtMs),
        ttlMs: answer.ttlS * 1000,
        replayed: answer.replayed,
      });
    } catch (error) {
      if (!(error instanceof QpqError) || error.code !== "wrongEpoch" || !message.commit) throw error;
      const { group, epoch } = message.commit;
      const current = error.details.currentEpoch!;
      model.toldEpoch(group, { epoch, current });
      model.refused(message.number);
      this.#world.epochs.set(group, Math.max(current, this.#world.epochOf(group)));
    }
  }

  /** The same request once more, or another one under the same id: a client that forgot what it had sent. */
  async #resend(): Promise<void> {
    const { model } = this.#world;
    const known = model.remembered(this.deviceId, TRY_MS / 2);
    if (known.length === 0) return;
    const message = this.#random.pick(known);
    const { id, guard } = this.#world.sentIds.get(message.number)!;
    if (this.#random.chance(0.5)) return await this.#enqueue({ ...message, id }, guard);
    const other = { ...message, id, payload: utf8(`#${message.number}# something else`), commit: null };
    try {
      await this.uplink.call("enqueue", requestOf(other, null));
    } catch (error) {
      if (error instanceof QpqError && error.code === "idConflict") return;
      throw error;
    }
    model.conflictingIdAccepted(message.number);
  }

  // --- commits ----------------------------------------------------------------------------------------------

  async #commit(): Promise<void> {
    if (this.#random.chance(0.5)) await this.#world.rendezvous();
    const group = this.#random.pick(this.#world.groups);
    const epoch = this.#world.epochOf(group);
    const number = this.#world.nextNumber();
    const message = this.#message(commitBytes(group, epoch, number), { group, epoch }, number);
    await this.#deliver(message, guardOf(group, epoch));
  }

  /** A commit by somebody who is no member: with a wrong token, or with no guard at all. */
  async #forge(): Promise<void> {
    const { model } = this.#world;
    const group = this.#random.pick(this.#world.groups);
    const epoch = model.epochOf(group);
    if (epoch === 0) return; // the first guard of a group sets it
    const bare = this.#random.chance(0.5);
    const number = this.#world.nextNumber();
    const message = this.#message(commitBytes(group, epoch, number), null, number);
    const guard = { ...guardOf(group, epoch), token: tokenOf("another group", epoch) };
    try {
      await this.uplink.call("enqueue", requestOf(message, bare ? null : guard));
    } catch (error) {
      if (error instanceof QpqError && ["guardRequired", "wrongEpoch"].includes(error.code)) return;
      throw error;
    }
    model.forgedCommitAccepted(bare ? "without a guard" : "with a wrong token");
  }

  // --- KeyPackages ------------------------------------------------------------------------------------------

  async #upload(): Promise<void> {
    const { model, clock } = this.#world;
    const device = this.deviceId;
    const owner = {
      accountId: this.uplink.account.accountId,
      deviceId: device,
      key: this.uplink.identity.key,
    };
    const fresh = Array.from({ length: this.#random.int(1, 3) }, () => ({
      bytes: makeKeyPackage(owner, clock.now()),
      lastResort: this.#random.chance(0.15),
    }));
    const earlier = this.#uploaded.filter((one) => one.device === device);
    const again = earlier.length > 0 && this.#random.chance(0.3) ? [this.#random.pick(earlier)] : [];
    const packages = [...fresh, ...again];
    model.uploading(device, packages);
    // It may be signed, on another connection, while a refusal is on its way.
    const wasSigned = this.uplink.identity.signed;
    try {
      const { counts } = await this.uplink.call("uploadKeyPackages", {
        keyPackages: packages.map(({ bytes, lastResort }) => ({ keyPackage: bytes, lastResort })),
      });
      for (const { count } of counts) model.counted(device, count);
    } catch (error) {
      const expected = ["keyPackageLimit", "keyPackageInvalid", "notFound", "deviceUnsigned"];
      const isNew = device !== this.deviceId || !wasSigned;
      if (!(error instanceof QpqError) || !expected.includes(error.code)) throw error;
      if (error.code !== "keyPackageLimit" && !isNew) throw error;
    }
    this.#uploaded.push(...fresh.map((one) => ({ device, ...one })));
  }

  async #claim(): Promise<void> {
    const { model, accounts } = this.#world;
    const others = accounts.filter((account) => account !== this.uplink.account);
    const together = this.#random.chance(0.6);
    if (together) await this.#world.rendezvous();
    const { userName } = together ? others[0]! : this.#random.pick(others);
    const begun = model.place();
    const claims = Array.from({ length: this.#random.int(1, 2) }, async () => {
      const request = { userName, suite: MLS_SUITE_X25519 };
      const answer = await this.uplink.call("fetchKeyPackages", request);
      for (const { deviceId, keyPackage, lastResort } of answer.keyPackages) {
        model.claimed({ device: hex(deviceId), bytes: keyPackage, lastResort, begun });
      }
    });
    for (const claim of await Promise.allSettled(claims)) {
      if (claim.status === "fulfilled") continue;
      if (!(claim.reason instanceof QpqError) || claim.reason.code !== "noKeyPackages") throw claim.reason;
    }
  }

  // --- what nobody may --------------------------------------------------------------------------------------

  async #trespass(): Promise<void> {
    const { model, configuration, clock, devices } = this.#world;
    const stale = configuration.stale;
    const now = clock.now();
    const token = this.#random.pick(["wrong token", stale?.token ?? "", configuration.tokens[0]!.token]);
    const isStale = token === stale?.token && now >= stale.until;
    const hello = await this.uplink.hello(token).catch((error) => {
      if (!(error instanceof QpqError) || error.code !== "invalidToken") return ignoreTransient(error);
      const accepted = configuration.tokens.some((one) => one.token === token && one.until === null);
      if (accepted) model.lockedOut("connect with the present access token");
    });
    if (!hello) return;
    if (token === "wrong token" || isStale) model.trespassed("connect with a wrong access token");
    try {
      await this.#refused(hello.link, "fetch", {}, ["loginRequired"]);
      await this.#refused(hello.link, "listDevices", {}, ["loginRequired"]);
      const victim = this.#random.pick(devices.filter((device) => device !== this));
      if (victim.uplink.session === null) return;
      const content = [hello.nonce, fromHex(victim.uplink.session), new Uint8Array(32)];
      const signature = this.uplink.identity.key.sign(signContent("qpq resume", ...content));
      const request = { sessionId: fromHex(victim.uplink.session), signature };
      await this.#refused(hello.link, "resume", request, ["loginFailed"]);
      const foreign = { messageId: randomBytes(16), parts: [], ttlS: 0 };
      await this.#refused(hello.link, "enqueue", foreign, ["loginRequired"]);
    } catch (error) {
      ignoreTransient(error);
    } finally {
      await hello.link.close();
    }
  }

  async #refused(
    link: ClientConnection,
    name: SharedMethodName,
    request: object,
    codes: readonly string[],
  ): Promise<void> {
    try {
      await link.call(name, request as never, { timeoutMs: CALL_MS });
    } catch (error) {
      if (error instanceof QpqError && codes.includes(error.code)) return;
      throw error;
    }
    this.#world.model.trespassed(`call ${name} without a login`);
  }
}

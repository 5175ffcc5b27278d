/**
 * The world of a simulation of two servers: devices of the one that send to devices of the other, machines that lose
 * power, disks and links that fail. In the end all is well, and what was promised must be there.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { fromHex, hex, randomBytes, utf8, utf8Text } from "../../mod/base/bytes.ts";
import { type Clock, delay } from "../../mod/base/clock.ts";
import { QpqError } from "../../mod/base/errors.ts";
import { type AccountId, type DeviceId, type MessageId, randomId } from "../../mod/base/ids.ts";
import type { Caller, Delivery } from "../../mod/delivery/queues.ts";
import { RelayedMessageSchema } from "../../mod/protocol/federation_pb.ts";
import { NoticeSchema } from "../../mod/protocol/qpq_pb.ts";
import type { Entry, ServerNotice } from "../../mod/store/store.ts";
import { newCredential } from "../contract/store/world.ts";
import type { RelayBug } from "./relay_bugs.ts";
import { type LinkFaults, RelayLink } from "./relay_link.ts";
import { RECEIVING, RelayMachine } from "./relay_machine.ts";
import { BrokenRelayPromise, RelayModel } from "./relay_model.ts";
import type { SimRandom } from "./sim_random.ts";

const SENDERS = 3;
const RECIPIENTS = 3;
const CALM: LinkFaults = { delayMsMax: 20, lost: 0 };
/** With pauses of a minute and replies of half a one, everything has been sent by then. */
const CALM_MS_MAX = 3_600_000;

/** A device with its place in its queue. */
interface RelayDevice extends Caller {
  after: number;
}

/** See the head of this file. */
export class RelayWorld {
  readonly model = new RelayModel();
  readonly sending: RelayMachine;
  readonly receiving: RelayMachine;
  readonly #clock: Clock;
  readonly #random: SimRandom;
  readonly #bug: RelayBug | null;
  #faults = CALM;
  #link: RelayLink | null = null;
  #calm = false;
  #pauseMs = 0;
  #ackShare = 1;
  /** Share of messages that may expire on the way. */
  #shortLived = 0;

  constructor({ clock, random, bug }: { clock: Clock; random: SimRandom; bug: RelayBug | null }) {
    this.#clock = clock;
    this.#random = random;
    this.#bug = bug;
    const machine = (patch: RelayBug["inSender"]) =>
      new RelayMachine({
        clock,
        random: random.fork(),
        patch: patch ?? ((store) => store),
        linkTo: (from) => this.#linkTo(from),
      });
    this.sending = machine(bug?.inSender);
    this.receiving = machine(bug?.inReceiver);
  }

  /** Everybody sends and reads while things go wrong; then all is well, and what was promised must be there. */
  async live(): Promise<void> {
    const random = this.#random;
    await this.sending.boot();
    await this.receiving.boot();
    const senders = await this.#people(this.sending, SENDERS);
    const recipients = await this.#people(this.receiving, RECIPIENTS);
    this.#pauseMs = random.pick([1, 30, 300, 3_000]);
    this.#ackShare = random.pick([1, 0.7, 0.1]);
    this.#shortLived = random.pick([0, 0, 0.2]);
    this.#faults = { delayMsMax: random.pick([5, 200, 2_000]), lost: random.pick([0, 0.02, 0.2]) };
    this.receiving.failing = random.pick([0, 0.02, 0.2]);
    for (const { disk } of [this.sending, this.receiving]) {
      disk.faults = { failing: random.pick([0, 0, 0.01]), slow: random.pick([0, 0.05]) };
    }
    const trouble = this.#makeTrouble();
    const reading = [
      ...recipients.map((device) =>
        this.#read(device, this.receiving, (entry) => this.#received(device, entry))
      ),
      ...senders.map((device) => this.#read(device, this.sending, (entry) => this.#told(entry))),
    ];
    await Promise.race([
      Promise.all(senders.map((device) => this.#send(device, recipients, random.int(8, 24)))),
      Promise.all(reading), // rejects when a promise is broken
    ]);
    await trouble;
    await this.#calmDown();
    await Promise.all(reading);
    this.model.check();
  }

  /** Nothing of it goes on. */
  end(): void {
    this.#calm = true;
    for (const machine of [this.sending, this.receiving]) {
      machine.running?.mounted.kill();
      machine.running?.clock.kill();
    }
  }

  async #linkTo(from: RelayMachine["running"] & object) {
    if (from !== this.sending.running) return await new Promise<never>(() => {});
    await delay(from.clock, this.#random.int(1, this.#faults.delayMsMax));
    if (!this.receiving.running) throw new QpqError("peerUnavailable", "It is down");
    this.#link = new RelayLink({
      from,
      sender: this.sending,
      receiver: this.receiving,
      faults: () => this.#faults,
      random: this.#random,
      forgets: this.#bug?.forgetsOrder === true,
    });
    return this.#link.calling;
  }

  async #people({ running }: RelayMachine, count: number): Promise<RelayDevice[]> {
    const devices: RelayDevice[] = [];
    for (let index = 0; index < count; index++) {
      const ids = { accountId: randomId<AccountId>(), deviceId: randomId<DeviceId>() };
      const now = this.#clock.now();
      const account = {
        accountId: ids.accountId,
        userName: `person-${index}`,
        credential: newCredential(),
        now,
      };
      await running!.store.createAccount({
        ...account,
        accountKey: randomBytes(32),
        invitationSha256: null,
      });
      await running!.store.createSession({
        ...ids,
        sessionId: randomId(),
        deviceKey: randomBytes(32),
        deviceName: "laptop",
        devicesMax: 10,
        deviceAddedNotice: {} as ServerNotice,
        now,
      });
      devices.push({ ...ids, after: 0 });
    }
    return devices;
  }

  async #makeTrouble(): Promise<void> {
    const random = this.#random;
    for (let left = random.int(0, 6); left > 0; left--) {
      await delay(this.#clock, random.wait(Math.max(500, 6 * this.#pauseMs)));
      const machine = random.pick([this.sending, this.receiving]);
      switch (random.pick(["powerCut", "kill", "linkLost", "overloaded", "retry"])) {
        case "powerCut":
          await machine.crash("powerCut");
          break;
        case "kill":
          await machine.crash("kill");
          break;
        case "linkLost":
          this.#link?.close();
          break;
        case "overloaded":
          this.receiving.overloaded = true;
          await delay(this.#clock, random.int(1, 3_000));
          this.receiving.overloaded = false;
          break;
        case "retry":
          await this.sending.running?.outbox.retry(null);
      }
    }
  }

  /** Sends one message after another, each again under its id until it is accepted. */
  async #send(from: RelayDevice, recipients: readonly RelayDevice[], count: number): Promise<void> {
    const random = this.#random;
    for (let number = 1; number <= count; number++) {
      await delay(this.#clock, random.wait(this.#pauseMs));
      const some = recipients.filter(() => random.chance(0.5));
      const to = (some.length > 0 ? some : [random.pick(recipients)]).map(({ deviceId }) => deviceId);
      const messageId = randomId<MessageId>();
      const ttlMs = random.chance(this.#shortLived) ? random.int(1_000, 30_000) : 0;
      this.model.sending(messageId, { sender: from.deviceId, number, to, mayExpire: ttlMs > 0 });
      while (true) {
        const { running } = this.sending;
        const done = running && await this.#enqueue(running.delivery, from, { messageId, to, ttlMs });
        if (done) break;
        await delay(this.#clock, random.int(10, 1_000));
      }
    }
  }

  /** False: no answer, or a temporary failure. */
  async #enqueue(
    delivery: Delivery,
    from: RelayDevice,
    { messageId, to, ttlMs }: { messageId: MessageId; to: readonly DeviceId[]; ttlMs: number },
  ): Promise<boolean> {
    const payload = utf8(messageId);
    const body = create(RelayedMessageSchema, {
      messageId: fromHex(messageId),
      senderAccountId: fromHex(from.accountId),
      senderDeviceId: fromHex(from.deviceId),
      parts: [{ payload, recipients: to.map(fromHex) }],
    });
    const asked = delivery.enqueue(from, {
      messageId,
      parts: [{ payload, recipients: [] }],
      remote: [{ domain: RECEIVING, recipients: [to], body: toBinary(RelayedMessageSchema, body) }],
      ttlMs,
      guard: null,
      commits: [],
    }).catch(expectedFailure);
    const result = await Promise.race([asked, delay(this.#clock, 10_000)]);
    if (!result) return false;
    if (result.remote[0] === "relaying") this.model.relaying();
    else this.model.refused(messageId);
    return true;
  }

  /** Reads a queue now and then, and in the end all of it. */
  async #read(device: RelayDevice, machine: RelayMachine, tell: (entry: Entry) => void): Promise<void> {
    while (true) {
      const wasCalm = this.#calm;
      await delay(this.#clock, this.#random.wait(500));
      const { running } = machine;
      if (!running) continue;
      const window = { after: device.after, entriesMax: 0, bytesMax: 0 };
      const asked = running.delivery.fetch(device, window).catch(expectedFailure);
      const fetched = await Promise.race([asked, delay(this.#clock, 10_000)]);
      for (const entry of fetched?.entries ?? []) {
        device.after = entry.seq;
        tell(entry);
      }
      if (device.after > 0 && this.#random.chance(this.#ackShare)) {
        const acked = running.delivery.ack(device, device.after).catch(expectedFailure);
        await Promise.race([acked, delay(this.#clock, 10_000)]);
      }
      if (wasCalm && fetched?.empty) return;
    }
  }

  #received(device: RelayDevice, entry: Entry): void {
    this.model.received(device.deviceId, utf8Text(entry.payload));
  }

  #told(entry: Entry): void {
    const { notice } = fromBinary(NoticeSchema, entry.payload);
    if (notice.case !== "deliveryFailed") return;
    const { messageId, deviceIds } = notice.value;
    for (const deviceId of deviceIds) this.model.notDelivered(hex(deviceId), hex(messageId));
  }

  /** Nothing goes wrong any more until the outbox is empty. */
  async #calmDown(): Promise<void> {
    this.#faults = CALM;
    this.receiving.failing = 0;
    for (const machine of [this.sending, this.receiving]) machine.disk.faults = { failing: 0, slow: 0 };
    const deadline = this.#clock.monotonic() + CALM_MS_MAX;
    while (true) {
      await delay(this.#clock, 1_000);
      const { running } = this.sending;
      const outboxes = running ? await running.store.outboxes() : null;
      if (outboxes?.length === 0) break;
      if (this.#clock.monotonic() < deadline) continue;
      throw new BrokenRelayPromise(`${outboxes?.[0]?.depth} messages still wait after an hour`);
    }
    this.#calm = true;
  }
}

/** What a client tries again after. */
function expectedFailure(error: unknown): null {
  if (error instanceof QpqError && error.code !== "internal") return null;
  throw error;
}

/** A device's queue as it sees it: fetching, waiting, following, acknowledging. What comes goes to the model. */
import { hex } from "../../mod/base/bytes.ts";
import { QpqError } from "../../mod/base/errors.ts";
import type { DeviceId } from "../../mod/base/ids.ts";
import type { ClientConnection } from "../../mod/client/connection.ts";
import { type Entry, EntryKind } from "../../mod/protocol/qpq_pb.ts";
import type { SimRandom } from "./sim_random.ts";
import { numberIn } from "./sim_requests.ts";
import { CALL_MS, ignoreEnd, ignoreTransient, type SimUplink } from "./sim_uplink.ts";
import type { SimWorld } from "./sim_world.ts";

/** Where a device is in its queue: the highest number seen, and the highest that an Ack was sent for. */
interface Position {
  readonly device: DeviceId;
  after: number;
  ackAsked: number;
}

/** See the head of this file. */
export class SimQueue {
  readonly #world: SimWorld;
  readonly #random: SimRandom;
  readonly #uplink: SimUplink;
  #last: Position | null = null;
  #receiving = false;
  /** Some rarely acknowledge: their queues become full. */
  readonly #ackShare: number;

  constructor(world: SimWorld, options: { uplink: SimUplink; random: SimRandom }) {
    this.#world = world;
    this.#uplink = options.uplink;
    this.#random = options.random;
    this.#ackShare = this.#random.pick([0.7, 0.7, 0.05]);
  }

  /** A device that takes the place of a revoked one begins anew. */
  get #position(): Position {
    const device = this.#uplink.deviceId;
    if (this.#last?.device !== device) this.#last = { device, after: 0, ackAsked: 0 };
    return this.#last;
  }

  /** Fetches or waits, perhaps looks again at what was not acknowledged, perhaps acknowledges. */
  async receive(): Promise<void> {
    if (this.#receiving) return;
    this.#receiving = true;
    try {
      await this.#uplink.trying(async () =>
        void await this.fetch(this.#random.chance(0.3) ? "wait" : "next")
      );
      if (this.#random.chance(0.2)) await this.#uplink.trying(() => this.fetchAgain());
      if (this.#random.chance(this.#ackShare)) await this.#uplink.trying((link) => this.ack(link));
    } finally {
      this.#receiving = false;
    }
  }

  /** One Fetch or FetchWait behind what was seen; true when nothing waits any more. */
  async fetch(how: "next" | "wait" | "all"): Promise<boolean> {
    const { model, clock } = this.#world;
    const link = await this.#uplink.connected();
    const device = this.#uplink.deviceId;
    const [after, begun, begunAt] = [this.#position.after, model.place(), clock.now()];
    const window = { after: BigInt(after), entriesMax: how === "all" ? 0 : this.#random.int(0, 6) };
    const timeoutMs = this.#random.int(1_000, 50_000);
    const answer = how === "wait"
      ? await link.call("fetchWait", { fetch: window, timeoutMs }, { timeoutMs: timeoutMs + CALL_MS })
      : await link.call("fetch", window, { timeoutMs: CALL_MS });
    this.#took(device, answer.entries, after);
    const quietMs = how === "wait" && answer.entries.length === 0 ? clock.now() - begunAt : 0;
    if (answer.empty && device === this.#uplink.deviceId) model.sawAll(device, begun, quietMs);
    return answer.empty;
  }

  /** What was not acknowledged comes again. */
  async fetchAgain(): Promise<void> {
    const { model } = this.#world;
    const link = await this.#uplink.connected();
    const device = this.#uplink.deviceId;
    const after = this.#position.ackAsked;
    const answer = await link.call("fetch", { after: BigInt(after) }, { timeoutMs: CALL_MS });
    this.#took(device, answer.entries, after);
    model.held(device, answer.entries.filter((entry) => entry.kind === EntryKind.MESSAGE).length);
    if (!answer.empty || device !== this.#uplink.deviceId) return;
    model.sawAgain(device, { after, seqs: new Set(answer.entries.map((entry) => Number(entry.seq))) });
  }

  #took(device: DeviceId, entries: readonly Entry[], after: number): void {
    const { model } = this.#world;
    for (const entry of entries) {
      const seq = Number(entry.seq);
      const number = entry.kind === EntryKind.MESSAGE ? numberIn(entry.payload) : null;
      const { payload } = entry;
      const sender = hex(entry.senderDeviceId);
      model.delivered(device, { seq, entryId: hex(entry.entryId), sender, payload, number }, { after });
      if (device === this.#uplink.deviceId) this.#position.after = Math.max(this.#position.after, seq);
    }
  }

  /** Acknowledges what was seen; now and then also what was not even assigned. */
  async ack(link: ClientConnection): Promise<void> {
    const { model } = this.#world;
    const through = this.#position.after;
    this.#position.ackAsked = through;
    const device = this.#uplink.deviceId;
    const { cursor } = await link.call("ack", { through: BigInt(through) }, { timeoutMs: CALL_MS })
      .catch((error) => {
        if (error instanceof QpqError && error.code === "ackBeyondEnd") model.forgot(device, through);
        throw error;
      });
    if (!this.#random.chance(0.1)) return;
    try {
      await link.call("ack", { through: cursor!.nextSeq + 100n }, { timeoutMs: CALL_MS });
      model.trespassed("acknowledge what was not assigned yet");
    } catch (error) {
      if (!(error instanceof QpqError) || error.code !== "ackBeyondEnd") throw error;
    }
  }

  /** A subscription for a while. */
  async follow(): Promise<void> {
    if (this.#receiving) return;
    this.#receiving = true;
    const { clock, model } = this.#world;
    const link = await this.#uplink.connected().catch(ignoreTransient);
    const ended = new AbortController();
    const [device, begunAt] = [this.#uplink.deviceId, clock.now()];
    const cancel = clock.after(this.#random.int(1_000, 90_000), () => ended.abort());
    try {
      if (!link) return;
      const request = { after: BigInt(this.#position.after), creditBytes: this.#random.int(500, 100_000) };
      for await (const { entries } of link.subscribe(request, { signal: ended.signal })) {
        this.#took(device, entries, Number(request.after));
        await this.ack(link);
      }
      if (link.isOpen && device === this.#uplink.deviceId) model.sawAll(device, 0, clock.now() - begunAt);
    } catch (error) {
      ignoreEnd(error);
    } finally {
      cancel();
      this.#receiving = false;
    }
  }
}

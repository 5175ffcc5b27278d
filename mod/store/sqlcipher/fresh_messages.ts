/**
 * What a transaction put into queues, made of the messages that were sent to the worker and the numbers that it
 * answered: a subscriber who has all before it gets its message without another way to the database and back.
 */
import type { DeviceId } from "../../base/ids.ts";
import type { Entry, FreshEntries, NewMessage } from "../store.ts";
import { STANDING_NUMBERS, type Touched } from "./touched_queues.ts";

type UnnumberedEntry = Omit<Entry, "seq">;

/** The entries of one transaction by device. */
export class FreshMessages {
  readonly #touched: Touched;
  readonly #messages: readonly NewMessage[];
  #byDevice: Map<DeviceId, UnnumberedEntry[]> | undefined;

  /** `messages`: those of the transaction that every recipient of theirs got, in the order of their acceptance. */
  constructor(touched: Touched, messages: readonly NewMessage[]) {
    this.#touched = touched;
    this.#messages = messages;
  }

  /** Null when other entries than those of the messages came as well: their place among them is not known here. */
  of(deviceId: DeviceId): FreshEntries | null {
    const waiting = (this.#byDevice ??= this.#sort()).get(deviceId);
    const at = this.#touched.devices.indexOf(deviceId) * STANDING_NUMBERS;
    if (!waiting || at < 0) return null;
    const [added, nextSeq, ackedThrough, droppedThrough, droppedCount] = this.#touched.standing.subarray(at);
    if (added !== waiting.length) return null;
    const first = nextSeq! - added;
    return {
      entries: waiting.map((entry, index) => ({ seq: first + index, ...entry })),
      cursor: {
        ackedThrough: ackedThrough!,
        nextSeq: nextSeq!,
        droppedThrough: droppedThrough!,
        droppedCount: droppedCount!,
      },
    };
  }

  #sort(): Map<DeviceId, UnnumberedEntry[]> {
    const byDevice = new Map<DeviceId, UnnumberedEntry[]>();
    for (const message of this.#messages) {
      for (const { payload, recipients } of message.parts) {
        const entry: UnnumberedEntry = {
          kind: "message",
          entryId: message.entryId,
          senderAccount: message.senderAccount,
          senderDevice: message.senderDevice,
          senderDomain: message.origin,
          payload,
          acceptedAt: message.now,
          expiresAt: message.expiresAt,
        };
        // A device named twice in one part gets one entry for it.
        for (const deviceId of new Set(recipients)) {
          const entries = byDevice.get(deviceId);
          if (entries) entries.push(entry);
          else byDevice.set(deviceId, [entry]);
        }
      }
    }
    return byDevice;
  }
}

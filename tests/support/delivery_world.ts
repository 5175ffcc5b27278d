/** Delivery over a real store with a fake clock, and accounts with devices made directly in the store. */
import { utf8 } from "../../mod/base/bytes.ts";
import {
  type AccountId,
  type DeviceId,
  type EntryId,
  type MessageId,
  randomId,
  type SessionId,
} from "../../mod/base/ids.ts";
import {
  type Caller,
  Delivery,
  type DeliveryLimits,
  type EnqueueRequest,
} from "../../mod/delivery/queues.ts";
import { Metrics } from "../../mod/observe/metrics.ts";
import { openStore } from "../../mod/store/open.ts";
import type { Store } from "../../mod/store/store.ts";
import { FakeClock } from "./fake_clock.ts";

const ENQUEUE_LIMITS = {
  queueDepthMax: 100,
  queueBytesMax: 100_000,
  senderShare: 1,
  senderBytesPerDay: 1_000_000,
  idempotencyMs: 3_600_000,
  idempotencyCountMax: 100,
  guardsPerDay: 3,
  outboxDepthMax: 1000,
  outboxBytesMax: 10_000_000,
};

/** Bounds that tests can reach. */
export const LIMITS: DeliveryLimits = {
  partsMax: 4,
  recipientsMax: 8,
  payloadBytesMax: 1000,
  enqueueBytesMax: 2500,
  ttlDefaultMs: 60_000,
  ttlMaxMs: 120_000,
  fetchEntriesMax: 100,
  fetchBytesMax: 100_000,
  waitMsMax: 60_000,
  waitersMax: 10,
  enqueue: ENQUEUE_LIMITS,
  relayed: { ...ENQUEUE_LIMITS, idempotencyMs: 4 * 86_400_000 },
};

/** `await using world = await DeliveryWorld.open()` */
export class DeliveryWorld implements AsyncDisposable {
  readonly metrics: Metrics;
  readonly delivery: Delivery;

  private constructor(readonly store: Store, readonly dataDir: string, readonly clock: FakeClock) {
    this.metrics = new Metrics({ version: "test", methods: [], limits: [], clock });
    this.delivery = new Delivery({ store, clock, metrics: this.metrics, limits: LIMITS });
  }

  static async open(): Promise<DeliveryWorld> {
    const dataDir = await Deno.makeTempDir({ prefix: "qpq-delivery-" });
    const store = await openStore({ backend: "sqlcipher", dataDir, keys: ["key of tests"] });
    return new DeliveryWorld(store, dataDir, new FakeClock());
  }

  /** A new account with one device. */
  async caller(userName: string): Promise<Caller> {
    const accountId = randomId<AccountId>();
    const now = this.clock.now();
    await this.store.createAccount({
      accountId,
      userName,
      credential: { suiteId: 1, setupId: 1, record: utf8("record"), wrappedAccountKey: utf8("wrapped") },
      accountKey: new Uint8Array(32),
      invitationSha256: null,
      now,
    });
    const deviceId = randomId<DeviceId>();
    await this.store.createSession({
      sessionId: randomId<SessionId>(),
      accountId,
      deviceId,
      deviceKey: new Uint8Array(32),
      deviceName: "phone",
      devicesMax: 10,
      deviceAddedNotice: { entryId: randomId<EntryId>(), payload: utf8("added"), expiresAt: now + 1000 },
      now,
    });
    return { accountId, deviceId };
  }

  /** An Enqueue of one part, with what is given instead of the usual. */
  request(
    to: readonly DeviceId[],
    changes: Partial<EnqueueRequest> & { text?: string } = {},
  ): EnqueueRequest {
    const { text, ...rest } = changes;
    return {
      messageId: randomId<MessageId>(),
      parts: [{ payload: utf8(text ?? "hello"), recipients: to }],
      ttlMs: 0,
      guard: null,
      commits: [],
      ...rest,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.delivery[Symbol.dispose]();
    await this.store.close();
    await Deno.remove(this.dataDir, { recursive: true });
  }
}

/**
 * What must reach the server. A request is saved with the state that made it, so that after a crash it is
 * sent again with the same message id, which the server carries out once. Requests go out in the order they
 * were saved.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { copy, equal, fromHex, hex } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { type ErrorCode, QpqError } from "../base/errors.ts";
import { type DeviceId, type GroupId, idOf, type MessageId, newMessageId } from "../base/ids.ts";
import { KeyedMutex } from "../base/keyed_mutex.ts";
import {
  type EnqueueRequest,
  EnqueueRequestSchema,
  type EnqueueResponse,
  RecipientStatus,
} from "../protocol/qpq_pb.ts";
import type { GroupStore } from "./messenger_group_store.ts";
import type { Uplink } from "./messenger_uplink.ts";
import type { MlsCommitGuard } from "./mls_commits.ts";
import type { ClientState, StateTransaction } from "./state.ts";
import type { OutboxRecord } from "./state_records.ts";

/** Refusals after which the same request may be accepted later: it stays in the outbox. */
const LATER: readonly ErrorCode[] = [
  "rateLimited",
  "overloaded",
  "shuttingDown",
  "quotaExceeded",
  "storeUnavailable",
  "storeFull",
  "internal",
  "loginRequired",
  "loginFailed",
  "sessionExpired",
  "accountDisabled",
];
const SETTLED_MAX = 256;
const RETRY_ATTEMPTS_MAX = 8;
const RETRY_FIRST_MS = 15_000;

/** A recipient that did not get a message. */
export interface DeliveryFailure {
  readonly deviceId: DeviceId;
  /**
   * `queueFull`: tried again later. `unknownDevice`: revoked or deleted. `blocked`: they block this account.
   */
  readonly reason: "queueFull" | "unknownDevice" | "blocked";
}

/** What the server did with a request. */
export interface Delivered {
  /** Server's time of acceptance, Unix ms. */
  readonly acceptedAt: number;
  readonly failures: readonly DeliveryFailure[];
}

/** One part of a request: bytes and who gets them. */
export interface OutboxPart {
  readonly payload: Uint8Array;
  readonly recipients: readonly DeviceId[];
}

/** Puts a request into the outbox, with whatever else `tx` saves. */
export function addToOutbox(
  tx: StateTransaction,
  request: {
    parts: readonly OutboxPart[];
    now: number;
    groupId?: GroupId;
    guard?: MlsCommitGuard;
    commit?: NonNullable<OutboxRecord["commit"]>;
    retry?: NonNullable<OutboxRecord["retry"]>;
  },
): MessageId {
  const messageId = newMessageId(request.now);
  const message = create(EnqueueRequestSchema, {
    messageId: fromHex(messageId),
    parts: request.parts.map(({ payload, recipients }) => ({ payload, recipients: recipients.map(fromHex) })),
    ...(request.guard ? { guard: request.guard } : {}),
  });
  tx.put("outbox", messageId, {
    messageId,
    request: copy(toBinary(EnqueueRequestSchema, message)),
    createdMs: request.now,
    ...(request.groupId ? { groupId: request.groupId } : {}),
    ...(request.commit ? { commit: request.commit } : {}),
    ...(request.retry ? { retry: request.retry } : {}),
  });
  return messageId;
}

/** The request in a row. */
export function requestIn(row: OutboxRecord): EnqueueRequest {
  return fromBinary(EnqueueRequestSchema, row.request);
}

/** The row of an own commit whose payload is `commit`, if it is still waiting for its answer. */
export function pendingCommit(
  rows: readonly OutboxRecord[],
  commit: Uint8Array,
): OutboxRecord | undefined {
  return rows.find((row) => row.commit && equal(requestIn(row).parts[0]?.payload ?? EMPTY, commit));
}

const EMPTY = new Uint8Array(0);

/** Sends what waits. */
export class Outbox {
  readonly #state: ClientState;
  readonly #uplink: Uplink;
  readonly #groups: GroupStore;
  readonly #clock: Clock;
  readonly #mutex = new KeyedMutex();
  /** How the last requests ended, for those who ask after somebody else has sent theirs. */
  readonly #settled = new Map<MessageId, Promise<Delivered>>();

  constructor(deps: { state: ClientState; uplink: Uplink; groups: GroupStore; clock: Clock }) {
    this.#state = deps.state;
    this.#uplink = deps.uplink;
    this.#groups = deps.groups;
    this.#clock = deps.clock;
  }

  /**
   * Sends everything up to `messageId` and resolves with its result. Rejects with the server's refusal; for a
   * temporary one the request stays and goes out with the next that is sent.
   */
  deliver(messageId: MessageId): Promise<Delivered> {
    return this.#mutex.run("", async () => {
      for (const row of this.#due()) {
        if (row.messageId === messageId) return await this.#send(row);
        await this.#sendEarlier(row);
      }
      // Without a result it was a commit that came back through the queue: accepted.
      return await this.#settled.get(messageId) ?? { acceptedAt: this.#clock.now(), failures: [] };
    });
  }

  /** Sends everything that is due. */
  flush(): Promise<void> {
    return this.#mutex.run("", async () => {
      for (const row of this.#due()) await this.#sendEarlier(row);
    });
  }

  /** When the next retry is due, Unix ms; undefined when nothing waits for its time. */
  nextRetryAt(): number | undefined {
    const times = this.#state.all("outbox").flatMap((row) => row.retry ? [row.retry.notBeforeMs] : []);
    return times.length > 0 ? Math.min(...times) : undefined;
  }

  #due(): OutboxRecord[] {
    const now = this.#clock.now();
    return this.#state.all("outbox").filter((row) => !row.retry || row.retry.notBeforeMs <= now);
  }

  /** A row that somebody saved before: if it is refused for good, nobody waits to be told. */
  async #sendEarlier(row: OutboxRecord): Promise<void> {
    if (!this.#state.get("outbox", row.messageId)) return;
    try {
      await this.#send(row);
    } catch (error) {
      if (!(error instanceof QpqError) || this.#state.get("outbox", row.messageId)) throw error;
    }
  }

  #send(row: OutboxRecord): Promise<Delivered> {
    const sending = this.#exchange(row);
    sending.catch(() => {}); // awaited by the caller, and perhaps by nobody else
    this.#settled.set(row.messageId, sending);
    if (this.#settled.size > SETTLED_MAX) this.#settled.delete(this.#settled.keys().next().value!);
    return sending;
  }

  async #exchange(row: OutboxRecord): Promise<Delivered> {
    const request = requestIn(row);
    let response: EnqueueResponse;
    try {
      response = await this.#uplink.call("enqueue", request);
    } catch (error) {
      if (error instanceof QpqError && !LATER.includes(error.code)) {
        await this.#state.transaction((tx) => tx.delete("outbox", row.messageId));
      }
      throw error;
    }
    const failures = failuresOf(request, response);
    await this.#state.transaction(async (tx) => {
      tx.delete("outbox", row.messageId);
      if (row.commit) await this.#groups.adopt(tx, row);
      this.#retryLater(tx, { row, request, failures });
    });
    return { acceptedAt: Number(response.acceptedAtMs), failures };
  }

  /** What found a full queue is tried again under a new id; a commit cannot be: its epoch is over. */
  #retryLater(
    tx: StateTransaction,
    sent: { row: OutboxRecord; request: EnqueueRequest; failures: readonly DeliveryFailure[] },
  ): void {
    const { row, request } = sent;
    const attempts = (row.retry?.attempts ?? 0) + 1;
    const full = new Set(
      sent.failures.filter((one) => one.reason === "queueFull").map((one) => one.deviceId),
    );
    if (full.size === 0 || attempts > RETRY_ATTEMPTS_MAX) return;
    const parts = request.parts.slice(row.commit ? 1 : 0)
      .map(({ payload, recipients }) => ({
        payload,
        recipients: recipients.map((one) => idOf<DeviceId>(one)).filter((one) => full.has(one)),
      }))
      .filter((part) => part.recipients.length > 0);
    if (parts.length === 0) return;
    const now = this.#clock.now();
    addToOutbox(tx, {
      parts,
      now,
      ...(row.groupId ? { groupId: row.groupId } : {}),
      retry: { attempts, notBeforeMs: now + RETRY_FIRST_MS * 2 ** (attempts - 1) },
    });
  }
}

const REASONS: Partial<Record<RecipientStatus, DeliveryFailure["reason"]>> = {
  [RecipientStatus.QUEUE_FULL]: "queueFull",
  [RecipientStatus.UNKNOWN_DEVICE]: "unknownDevice",
  [RecipientStatus.BLOCKED]: "blocked",
};

function failuresOf(request: EnqueueRequest, response: EnqueueResponse): DeliveryFailure[] {
  const recipients = request.parts.flatMap((part) => part.recipients);
  const failures = new Map<string, DeliveryFailure>();
  for (const [index, recipient] of recipients.entries()) {
    const reason = REASONS[response.statuses[index] ?? RecipientStatus.UNSPECIFIED];
    if (reason) failures.set(hex(recipient), { deviceId: idOf(recipient), reason });
  }
  return [...failures.values()];
}

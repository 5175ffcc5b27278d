/**
 * What must reach the server. A request is saved with the state that made it, so that after a crash it is
 * sent again with the same message id, which the server carries out once. Requests go out in the order they
 * were saved; only a commit whose group's hub, another server, cannot be reached lets the others pass.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { copy, equal, fromHex } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { type ErrorCode, messageOf, QpqError } from "../base/errors.ts";
import { type DeviceId, type GroupId, idOf, type MessageId, newMessageId } from "../base/ids.ts";
import { KeyedMutex } from "../base/keyed_mutex.ts";
import { logger } from "../base/log.ts";
import {
  type EnqueueRequest,
  EnqueueRequestSchema,
  type EnqueueResponse,
  RecipientStatus,
} from "../protocol/qpq_pb.ts";
import { addNotice } from "./inbox_rows.ts";
import type { GroupStore } from "./messenger_group_store.ts";
import type { Uplink } from "./messenger_uplink.ts";
import type { MlsCommitGuard } from "./mls_commits.ts";
import type { ClientState, StateTransaction } from "./state.ts";
import type { OutboxRecord } from "./state_records.ts";

const log = logger("client");

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
  "peerUnavailable",
];
const SETTLED_MAX = 256;
const RETRY_ATTEMPTS_MAX = 8;
const RETRY_FIRST_MS = 15_000;
/** A commit waits for the group's hub so long between attempts, unless the server says otherwise. */
const HUB_RETRY_MS = 15_000;
const HUB_RETRY_MS_MAX = 300_000;
/** Messages for other servers whose groups are remembered, for a notice that says one was not delivered. */
const RELAYED_MAX = 1_000;

/** A recipient that did not get a message. */
export interface DeliveryFailure {
  readonly deviceId: DeviceId;
  /** Of the device's server; empty: this account's own one. */
  readonly domain: string;
  /**
   * `queueFull`: tried again later. `unknownDevice`: revoked or deleted. `blocked`: they block this account.
   * `unknownDomain`: this account's server does not exchange messages with theirs.
   */
  readonly reason: "queueFull" | "unknownDevice" | "blocked" | "unknownDomain";
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
  /** Devices of this account's server. */
  readonly recipients: readonly DeviceId[];
  /** Devices of other servers, each domain once. */
  readonly remote?: readonly { readonly domain: string; readonly recipients: readonly DeviceId[] }[];
}

/** `payload` for `devices`; `foreign` gives the domain of another server, and nothing for the own one. */
export function outboxPart(
  payload: Uint8Array,
  devices: readonly { readonly deviceId: DeviceId; readonly domain: string }[],
  foreign: (domain: string) => string,
): OutboxPart {
  const byDomain = Map.groupBy(devices, ({ domain }) => foreign(domain));
  const idsIn = (domain: string) => (byDomain.get(domain) ?? []).map((one) => one.deviceId);
  const remote = [...byDomain.keys()].filter((domain) => domain !== "")
    .map((domain) => ({ domain, recipients: idsIn(domain) }));
  return { payload, recipients: idsIn(""), ...(remote.length > 0 ? { remote } : {}) };
}

/** Puts a request into the outbox, with whatever else `tx` saves. */
export function addToOutbox(
  tx: StateTransaction,
  request: {
    parts: readonly OutboxPart[];
    now: number;
    groupId?: GroupId;
    guard?: MlsCommitGuard & { readonly hub: string };
    commit?: NonNullable<OutboxRecord["commit"]>;
    retry?: NonNullable<OutboxRecord["retry"]>;
  },
): MessageId {
  const messageId = newMessageId(request.now);
  const message = create(EnqueueRequestSchema, {
    messageId: fromHex(messageId),
    parts: request.parts.map(({ payload, recipients, remote = [] }) => ({
      payload,
      recipients: recipients.map(fromHex),
      remote: remote.map((one) => ({ domain: one.domain, recipients: one.recipients.map(fromHex) })),
    })),
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
  readonly #onAdopted: () => Promise<void>;
  /** How the last requests ended, for those who ask after somebody else has sent theirs. */
  readonly #settled = new Map<MessageId, Promise<Delivered>>();

  constructor(deps: {
    state: ClientState;
    uplink: Uplink;
    groups: GroupStore;
    clock: Clock;
    /** A group has entered the epoch of an own commit. */
    onAdopted?: () => Promise<void>;
  }) {
    this.#onAdopted = deps.onAdopted ?? (() => Promise.resolve());
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
        await this.#sendPassing(row);
      }
      // Without a result it was a commit that came back through the queue: accepted.
      return await this.#settled.get(messageId) ?? { acceptedAt: this.#clock.now(), failures: [] };
    });
  }

  /** Sends everything that is due. */
  flush(): Promise<void> {
    return this.#mutex.run("", async () => {
      for (const row of this.#due()) await this.#sendPassing(row);
    });
  }

  /**
   * A commit of this group that waits for the group's hub is tried now: as long as it waits, another one could only
   * overtake it. Rejects when the hub still cannot be reached; a refusal for good is told as an event.
   */
  settleCommit(groupId: GroupId): Promise<void> {
    return this.#mutex.run("", async () => {
      for (const row of this.#state.all("outbox")) {
        if (row.groupId === groupId && row.commit) await this.#sendEarlier(row);
      }
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

  /** Like {@link #sendEarlier}; a commit whose hub cannot be reached holds nothing else up. */
  async #sendPassing(row: OutboxRecord): Promise<void> {
    try {
      await this.#sendEarlier(row);
    } catch (error) {
      if (!isHubTrouble(error)) throw error;
    }
  }

  /** A row that somebody saved before: if it is refused for good, nobody waits to be told. */
  async #sendEarlier(row: OutboxRecord): Promise<void> {
    if (!this.#state.get("outbox", row.messageId)) return;
    try {
      await this.#send(row);
    } catch (error) {
      if (!(error instanceof QpqError) || this.#state.get("outbox", row.messageId)) throw error;
      await this.#tellDropped(row);
    }
  }

  /** A change of a group that had been left to wait is refused for good: somebody else's came first. */
  async #tellDropped({ commit, retry, groupId }: OutboxRecord): Promise<void> {
    if (!commit || !retry || !groupId) return;
    const notice = { notice: { kind: "changeDropped" as const }, groupId, acceptedMs: this.#clock.now() };
    await this.#state.transaction((tx) => addNotice(tx, notice));
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
      } else if (isHubTrouble(error)) await this.#waitForHub(row, error.details.retryAfterMs);
      throw error;
    }
    const { failures, isRelayed } = outcomeOf(request, response);
    await this.#state.transaction(async (tx) => {
      tx.delete("outbox", row.messageId);
      if (row.commit) await this.#groups.adopt(tx, row);
      this.#retryLater(tx, { row, request, failures });
      if (isRelayed && row.groupId) rememberRelayed(tx, { ...row, groupId: row.groupId });
    });
    if (row.commit) {
      // The commit is accepted whatever comes of what waited for it, which is tried again with the next entries.
      await this.#onAdopted().catch((error) =>
        log.debug("early messages: {reason}", { reason: messageOf(error) })
      );
    }
    return { acceptedAt: Number(response.acceptedAtMs), failures };
  }

  async #waitForHub(row: OutboxRecord, retryAfterMs = HUB_RETRY_MS): Promise<void> {
    const notBeforeMs = this.#clock.now() + Math.min(retryAfterMs, HUB_RETRY_MS_MAX);
    const retry = { attempts: (row.retry?.attempts ?? 0) + 1, notBeforeMs };
    await this.#state.transaction((tx) => tx.put("outbox", row.messageId, { ...row, retry }));
  }

  /** What found a full queue is tried again under a new id; a commit cannot be: its epoch is over. */
  #retryLater(
    tx: StateTransaction,
    sent: { row: OutboxRecord; request: EnqueueRequest; failures: readonly DeliveryFailure[] },
  ): void {
    const { row, request } = sent;
    const attempts = row.commit ? 1 : (row.retry?.attempts ?? 0) + 1;
    const full = new Set(
      sent.failures.filter((one) => one.reason === "queueFull").map((one) => one.deviceId),
    );
    if (full.size === 0 || attempts > RETRY_ATTEMPTS_MAX) return;
    const parts = request.parts.slice(row.commit ? 1 : 0)
      .map((part) => ({
        payload: part.payload,
        devices: devicesIn(part).filter((one) => full.has(one.deviceId)),
      }))
      .filter(({ devices }) => devices.length > 0)
      .map(({ payload, devices }) => outboxPart(payload, devices, (domain) => domain));
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
  [RecipientStatus.UNKNOWN_DOMAIN]: "unknownDomain",
};

/** The devices of a part in the order of their statuses. */
function devicesIn({ recipients, remote }: EnqueueRequest["parts"][number]) {
  const inDomain = (domain: string, ids: readonly Uint8Array[]) =>
    ids.map((id) => ({ deviceId: idOf<DeviceId>(id), domain }));
  return [...inDomain("", recipients), ...remote.flatMap((one) => inDomain(one.domain, one.recipients))];
}

/** Who did not get it, and whether a part of it is on its way to another server. */
function outcomeOf(
  request: EnqueueRequest,
  { statuses }: EnqueueResponse,
): { failures: DeliveryFailure[]; isRelayed: boolean } {
  const failures = new Map<DeviceId, DeliveryFailure>();
  for (const [index, device] of request.parts.flatMap(devicesIn).entries()) {
    const reason = REASONS[statuses[index] ?? RecipientStatus.UNSPECIFIED];
    if (reason) failures.set(device.deviceId, { ...device, reason });
  }
  return { failures: [...failures.values()], isRelayed: statuses.includes(RecipientStatus.RELAYING) };
}

/** Which group a message for another server belongs to, forgetting the oldest of too many. */
function rememberRelayed(
  tx: StateTransaction,
  { messageId, groupId }: { messageId: MessageId; groupId: GroupId },
): void {
  const known = tx.all("relayed");
  for (const old of known.slice(0, Math.max(0, known.length + 1 - RELAYED_MAX))) {
    tx.delete("relayed", old.messageId);
  }
  tx.put("relayed", messageId, { messageId, groupId });
}

/** The server that owns the group's commit guard cannot be reached: the commit waits. */
function isHubTrouble(error: unknown): error is QpqError {
  return error instanceof QpqError && error.code === "peerUnavailable";
}

/**
 * What other servers ask of this one: take their users' messages, judge commits to groups whose guard is here, give
 * out KeyPackages, keys and blobs. The peer's domain comes from its link, never from a message: a server speaks for its
 * own users only.
 */
import type { Clock } from "../base/clock.ts";
import { ERRORS, QpqError } from "../base/errors.ts";
import { type AccountId, type BlobHash, type DeviceId, idOf, type MessageId } from "../base/ids.ts";
import { logger } from "../base/log.ts";
import { RateLimiter } from "../base/rate_limiter.ts";
import { normaliseUserName } from "../base/user_name.ts";
import type { Blobs } from "../delivery/blobs.ts";
import type { KeyPackages } from "../delivery/keypackages.ts";
import type { Delivery, EnqueueResult } from "../delivery/queues.ts";
import { expectedError } from "../protocol/bodies.ts";
import { boundedList, bytesField, idField, numberField } from "../protocol/fields.ts";
import type { RelayedMessage } from "../protocol/federation_pb.ts";
import { type PeerRequestOf, type PeerResponseInit, RELAY_MESSAGES_MAX } from "../protocol/peer_methods.ts";
import type { Part } from "../protocol/qpq_pb.ts";
import type { Store } from "../store/store.ts";
import {
  claimedMessage,
  errorMessage,
  readCommits,
  readGuard,
  STATUSES,
  strangersAccount,
} from "./messages.ts";
import type { PeerBlob } from "./link.ts";
import type { Peer, PeerHandlers } from "./peer_handlers.ts";
import type { PeerMetrics } from "./peer_metrics.ts";
import { type Ordered, takeInOrder } from "./relay_order.ts";

const log = logger("federation");

/** Peers that have buckets; more share by eviction. */
const PEERS_MAX = 10_000;
/** Bounds for each peer. */
export interface RelayLimits {
  readonly claimsPerMinute: number;
  readonly devicesMax: number;
}

/** What answers are made from. */
export interface RelayDeps {
  readonly delivery: Delivery;
  readonly keyPackages: KeyPackages;
  readonly blobs: Blobs;
  readonly store: Store;
  readonly clock: Clock;
  readonly metrics: PeerMetrics;
  readonly limits: RelayLimits;
  /** Why nothing is taken now, for lack of disk or because the server is shutting down; null: it is. */
  readonly refusal: () => QpqError | null;
  /** May a fresh KeyPackage of `target` be claimed by users of `domain`? Charged. */
  readonly mayClaim: (domain: string, target: string) => boolean;
  /** Something was heard of a peer. */
  readonly onSeen: (domain: string) => void;
  /** A peer has claimed too much. */
  readonly onClaimLimit: () => void;
}

/** Answers peers. */
export class Relay implements PeerHandlers {
  readonly #deps: RelayDeps;
  readonly #claims: RateLimiter;

  constructor(deps: RelayDeps) {
    this.#deps = deps;
    this.#claims = new RateLimiter({ ...claimRate(deps.limits), clock: deps.clock, keysMax: PEERS_MAX });
  }

  /** The limits have changed. */
  updateLimits(): void {
    this.#claims.setRate(claimRate(this.#deps.limits));
  }

  /** Takes messages in order. One that is refused stops no other; one that is put off, those to its recipients. */
  async relay(peer: Peer, request: PeerRequestOf<"relay">): Promise<PeerResponseInit<"relay">> {
    this.#admit(peer);
    const messages = boundedList(request.messages, "messages", RELAY_MESSAGES_MAX).map(readIncoming);
    // All begin before one ends: the store takes them in this order, and in few transactions.
    const taken = await takeInOrder(messages, {
      order: peer.order,
      take: (message, behind) => this.#take(peer, message, behind),
    });
    return { results: taken.map((result) => this.#resultOf(peer, result)) };
  }

  /** Judges a commit to a group whose guard is here, and delivers it to the devices that are. */
  async submitCommit(
    peer: Peer,
    { message, guard }: PeerRequestOf<"submitCommit">,
  ): Promise<PeerResponseInit<"submitCommit">> {
    this.#admit(peer);
    if (!message || !guard) throw new QpqError("malformedRequest", "A commit needs a message and a guard");
    const { recipients, replayed } = await this.#deps.delivery.enqueueFrom(peer.domain, {
      ...readRelayed(message),
      guard: readGuard(guard),
    });
    if (!replayed) this.#deps.metrics.relayed(peer.domain, "in");
    return { statuses: recipients.map((status) => STATUSES[status]), replayed };
  }

  /** Gives out KeyPackages: fresh ones within the limits, else the last-resort ones. */
  async claim(peer: Peer, request: PeerRequestOf<"peerClaim">): Promise<PeerResponseInit<"peerClaim">> {
    this.#admit(peer);
    const { keyPackages, limits } = this.#deps;
    const { claim } = request;
    if (!claim) throw new QpqError("malformedRequest", "The claim is missing");
    idField(request.claimerAccountId, "claimer_account_id");
    const devices = boundedList(claim.deviceIds, "device_ids", limits.devicesMax)
      .map((bytes) => idField<DeviceId>(bytes, "device_ids"));
    const claimed = await keyPackages.claim({
      target: claim.userName !== ""
        ? { userName: normaliseUserName(claim.userName) }
        : { accountId: idField<AccountId>(claim.accountId, "account_id") },
      suite: claim.suite,
      devices: devices.length > 0 ? devices : null,
      mayTakeFresh: (target) => this.#mayClaim(peer, target),
      fromPeer: true,
    });
    return claimedMessage(claimed);
  }

  /** An account's keys, as strangers see them. */
  async getAccount(
    peer: Peer,
    request: PeerRequestOf<"peerGetAccount">,
  ): Promise<PeerResponseInit<"peerGetAccount">> {
    this.#admit(peer);
    const { store } = this.#deps;
    const account = await store.findAccount(idField<AccountId>(request.accountId, "account_id"));
    if (!account) throw new QpqError("notFound", "Cannot find the account: never there or deleted");
    const devices = await store.listDevices(account.accountId);
    return strangersAccount(account, devices.filter((device) => device.accountSignature));
  }

  /** A blob, for whoever knows its hash. */
  async getBlob(peer: Peer, request: PeerRequestOf<"peerGetBlob">): Promise<PeerBlob> {
    this.#admit(peer);
    return await this.#deps.blobs.get({
      hash: idOf<BlobHash>(bytesField(request.sha256, "sha256", 32)),
      offset: numberField(request.offset, "offset"),
      length: numberField(request.length, "length"),
    });
  }

  async #take(
    { domain }: Peer,
    { request }: Incoming,
    behind: readonly MessageId[],
  ): Promise<EnqueueResult | QpqError> {
    if (request instanceof QpqError) return request;
    try {
      return await this.#deps.delivery.enqueueFrom(domain, { ...request, guard: null, behind });
    } catch (error) {
      return expectedError(error);
    }
  }

  #resultOf(peer: Peer, taken: EnqueueResult | QpqError): RelayResultInit {
    if (taken instanceof QpqError) return this.#refuse(peer, taken);
    if (!taken.replayed) this.#deps.metrics.relayed(peer.domain, "in");
    const statuses = taken.recipients.map((status) => STATUSES[status]);
    return { code: 0, statuses, replayed: taken.replayed };
  }

  /** Throws when nothing is taken now: it is to be sent again later. */
  #admit({ domain }: Peer): void {
    this.#deps.onSeen(domain);
    const error = this.#deps.refusal();
    if (error) throw error;
  }

  #refuse(peer: Peer, error: QpqError): RelayResultInit {
    const properties = { peer: peer.domain, code: error.code, reason: error.message };
    if (error.code === "internal") {
      log.error("a message of {peer} failed: {reason}", { ...properties, error: error.cause ?? error });
    } else log.debug("a message of {peer} is refused with {code}: {reason}", properties);
    return { code: ERRORS[error.code].number, error: errorMessage(error) };
  }

  #mayClaim({ domain }: Peer, target: string): boolean {
    if (this.#claims.take(domain) === 0) return this.#deps.mayClaim(domain, target);
    this.#deps.onClaimLimit();
    return false;
  }
}

type RelayResultInit = NonNullable<PeerResponseInit<"relay">["results"]>[number];

/** A message of a Relay. */
interface Incoming extends Ordered {
  /** The error of one that cannot be read: it keeps nothing back. */
  readonly request: ReturnType<typeof readRelayed> | QpqError;
}

function readIncoming(message: RelayedMessage): Incoming {
  try {
    const request = readRelayed(message);
    const { messageId, parts } = request;
    return { request, messageId, recipients: new Set(parts.flatMap(({ recipients }) => recipients)) };
  } catch (error) {
    return { request: expectedError(error), messageId: idOf(message.messageId), recipients: new Set() };
  }
}

/** A message as a peer relays it. Throws `malformedRequest`. */
function readRelayed(message: RelayedMessage) {
  if (message.parts.some(({ remote }) => remote.length > 0)) {
    throw new QpqError("malformedRequest", "A relayed message goes no further");
  }
  return {
    senderAccount: idField<AccountId>(message.senderAccountId, "sender_account_id"),
    senderDevice: idField<DeviceId>(message.senderDeviceId, "sender_device_id"),
    messageId: idField<MessageId>(message.messageId, "message_id"),
    parts: message.parts.map(readPart),
    ttlMs: message.ttlS * 1000,
    commits: readCommits(message.parts),
  };
}

function readPart({ payload, recipients }: Part) {
  return { payload, recipients: recipients.map((bytes) => idField<DeviceId>(bytes, "recipients")) };
}

function claimRate({ claimsPerMinute }: RelayLimits) {
  return { perSecond: claimsPerMinute / 60, burst: claimsPerMinute };
}

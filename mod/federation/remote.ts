/**
 * What this server asks of others for its own clients: to judge a commit, for KeyPackages, keys and blobs. What a peer
 * answers is passed on as far as it concerns the client; all else is `peerUnavailable`.
 */
import type { Clock } from "../base/clock.ts";
import { type ErrorCode, messageOf, QpqError } from "../base/errors.ts";
import type { AccountId } from "../base/ids.ts";
import { idBytes } from "../protocol/fields.ts";
import type { RelayedMessage } from "../protocol/federation_pb.ts";
import type { PeerCallName, PeerRequestInit, PeerResponseOf } from "../protocol/peer_methods.ts";
import type {
  CommitGuard,
  FetchKeyPackagesRequest,
  FetchKeyPackagesResponse,
  GetAccountResponse,
  RecipientStatus,
} from "../protocol/qpq_pb.ts";
import type { CallingLink } from "./outbox_sender.ts";

/** A client waits for it. */
const REPLY_MS = 10_000;
const RETRY_AFTER_MS = 2_000;

/** Refusals that concern the client. */
const PASSED_ON: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "malformedRequest",
  "rateLimited",
  "noKeyPackages",
  "notFound",
  "wrongEpoch",
  "guardRequired",
  "guardMismatch",
  "idConflict",
  "quotaExceeded",
  "payloadTooLarge",
  "userNameInvalid",
  "blobNotFound",
  "rangeInvalid",
]);

/** What asking needs. */
export interface RemoteDeps {
  readonly clock: Clock;
  readonly linkTo: (domain: string) => Promise<CallingLink>;
  readonly isPeer: (domain: string) => boolean;
}

/** Asks other servers. */
export class Remote {
  readonly #deps: RemoteDeps;

  constructor(deps: RemoteDeps) {
    this.#deps = deps;
  }

  /**
   * Asks a group's hub for its commit. Resolves when the hub has accepted it, now or before: after an error of the link
   * it may have all the same, and the same message may be sent again.
   */
  async submitCommit(
    hub: string,
    { message, guard, ttlMs }: { message: RelayedMessage; guard: CommitGuard; ttlMs: number },
  ): Promise<readonly RecipientStatus[]> {
    const { statuses } = await this.#ask(hub, "submitCommit", {
      message: { ...message, ttlS: Math.ceil(ttlMs / 1000), acceptedAtMs: BigInt(this.#deps.clock.now()) },
      guard: { ...guard, hub: "" },
    });
    return statuses;
  }

  /** KeyPackages of a user of `domain`. */
  claim(
    domain: string,
    { request, claimer }: { request: FetchKeyPackagesRequest; claimer: AccountId },
  ): Promise<FetchKeyPackagesResponse> {
    return this.#ask(domain, "peerClaim", {
      claim: { ...request, domain: "" },
      claimerAccountId: idBytes(claimer),
    });
  }

  /** The keys of an account of `domain`. */
  account(domain: string, accountId: Uint8Array): Promise<GetAccountResponse> {
    return this.#ask(domain, "peerGetAccount", { accountId });
  }

  async #ask<M extends PeerCallName>(
    domain: string,
    method: M,
    request: PeerRequestInit<M>,
  ): Promise<PeerResponseOf<M>> {
    if (!this.#deps.isPeer(domain)) throw new QpqError("unknownDomain", `${domain} is no peer`);
    try {
      const link = await this.#deps.linkTo(domain);
      return await link.call(method, request, { timeoutMs: REPLY_MS });
    } catch (error) {
      throw asToldToClients(domain, error);
    }
  }
}

/** What a client is told of a peer's failure. */
export function asToldToClients(domain: string, error: unknown): QpqError {
  if (error instanceof QpqError && PASSED_ON.has(error.code)) return error;
  const retryAfterMs = error instanceof QpqError ? error.details.retryAfterMs : undefined;
  return new QpqError("peerUnavailable", `${domain} cannot be asked: ${messageOf(error)}`, {
    retryAfterMs: Math.max(RETRY_AFTER_MS, retryAfterMs ?? 0),
    cause: error,
  });
}

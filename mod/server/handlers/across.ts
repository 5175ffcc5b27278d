/** What clients ask that other servers have a part in. Without federation every other domain is unknown. */
import { QpqError } from "../../base/errors.ts";
import type { BlobHash } from "../../base/ids.ts";
import type { Caller } from "../../delivery/queues.ts";
import { foreign, type KnownDomains, splitEnqueue } from "../../federation/enqueue_split.ts";
import type { Federation } from "../../federation/federation.ts";
import { readCommits, readGuard } from "../../federation/messages.ts";
import type { PeerBlob } from "../../federation/link.ts";
import { idField } from "../../protocol/fields.ts";
import type { ResponseInit } from "../../protocol/methods.ts";
import type { EnqueueRequest, FetchKeyPackagesRequest, RecipientStatus } from "../../protocol/qpq_pb.ts";
import { callerOf, type RequestContext, type ServerContext } from "../context.ts";

const CLAIM_RETRY_MS = 60_000;

/** Does an Enqueue concern devices or a guard of other servers? */
export function goesAcross(request: EnqueueRequest): boolean {
  return request.parts.some((part) => part.remote.length > 0) || (request.guard?.hub ?? "") !== "";
}

/** The domain of another server that a field names; null for this one. Throws `malformedRequest`. */
export function otherDomain({ federation }: ServerContext, named: string): string | null {
  return foreign(named, { own: federation?.domain ?? "" }) || null;
}

/**
 * Accepts an Enqueue that other servers have a part in. The hub of the group is asked first: what it refuses goes
 * nowhere, and when its answer is lost the client sends the same again.
 */
export async function enqueueAcross(
  { server }: RequestContext,
  { caller, request }: { caller: Caller; request: EnqueueRequest },
): Promise<ResponseInit<"enqueue">> {
  const domains = server.federation?.domains ?? NO_DOMAINS;
  const split = splitEnqueue(request, { sender: caller, domains });
  const guard = request.guard ? readGuard(request.guard) : null;
  const enqueue = {
    messageId: idField<never>(request.messageId, "message_id"),
    parts: split.parts,
    remote: split.remote,
    ttlMs: request.ttlS * 1000,
    guard,
    commits: readCommits(request.parts),
  };
  let hub: readonly RecipientStatus[] = [];
  if (split.hub) {
    // What would be refused here must not have been accepted there.
    server.delivery.check(enqueue);
    const { domain, message } = split.hub;
    hub = await federationOf(server, domain).remote.submitCommit(domain, {
      message,
      guard: request.guard!,
      ttlMs: server.delivery.ttlOf(enqueue.ttlMs),
    });
  }
  const rest = split.hub ? { ...enqueue, guard: null, commits: [] } : enqueue;
  const accepted = await server.delivery.enqueue(caller, rest);
  return {
    statuses: split.statuses({ local: accepted.recipients, remote: accepted.remote, hub }),
    acceptedAtMs: BigInt(accepted.acceptedAt),
    ttlS: Math.floor(accepted.ttlMs / 1000),
    replayed: accepted.replayed,
  };
}

/** Claims KeyPackages of another server's user, at most as many as of a local one. */
export async function claimAcross(
  context: RequestContext,
  { domain, request }: { domain: string; request: FetchKeyPackagesRequest },
): Promise<ResponseInit<"fetchKeyPackages">> {
  const { server, connection } = context;
  const federation = federationOf(server, domain);
  const target = request.userName !== "" ? request.userName : idField<never>(request.accountId, "account_id");
  if (!server.limits.claim(connection, `${target}@${domain}`)) {
    throw new QpqError("rateLimited", "Too many claims", { retryAfterMs: CLAIM_RETRY_MS });
  }
  return await federation.remote.claim(domain, { request, claimer: callerOf(context).accountId });
}

/** The keys of another server's account. */
export async function accountAcross(
  { server }: RequestContext,
  { domain, accountId }: { domain: string; accountId: Uint8Array },
): Promise<ResponseInit<"getAccount">> {
  idField(accountId, "account_id");
  return await federationOf(server, domain).remote.account(domain, accountId);
}

/** A blob that another server has. */
export async function blobAcross(
  { server }: RequestContext,
  { domain, ...range }: { domain: string; hash: BlobHash; offset: number; length: number },
): Promise<PeerBlob> {
  return await federationOf(server, domain).blob(domain, range);
}

const NO_DOMAINS: KnownDomains = { own: "", isPeer: () => false, domainsMax: 1024 };

function federationOf({ federation }: ServerContext, domain: string): Federation {
  if (federation?.domains.isPeer(domain)) return federation;
  throw new QpqError("unknownDomain", `${domain} is no peer`);
}

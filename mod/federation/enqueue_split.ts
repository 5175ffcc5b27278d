/**
 * An Enqueue of a client taken apart: what is for devices of this server, one message for each other server, what the
 * group's hub gets ahead of all others; and the statuses put together again, in the order of the request.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import { QpqError } from "../base/errors.ts";
import type { AccountId, DeviceId } from "../base/ids.ts";
import { tryNormaliseDomain } from "../base/user_address.ts";
import type { RemoteRequest } from "../delivery/queues.ts";
import { type RelayedMessage, RelayedMessageSchema } from "../protocol/federation_pb.ts";
import { idBytes, idField } from "../protocol/fields.ts";
import { type EnqueueRequest, type Part, RecipientStatus } from "../protocol/qpq_pb.ts";
import type { EnqueuePart, RecipientStatus as StoredStatus, RemoteStatus } from "../store/store.ts";
import { readCommits, STATUSES } from "./messages.ts";

/** Who sends. */
export interface Sender {
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
}

/** Which domains there are. */
export interface KnownDomains {
  /** Empty: this server does not federate. */
  readonly own: string;
  readonly isPeer: (domain: string) => boolean;
  /** Other servers that one message may go to. */
  readonly domainsMax: number;
}

/** An Enqueue by where its parts go. */
export interface SplitEnqueue {
  /** The request's parts, with the devices of this server. */
  readonly parts: readonly EnqueuePart[];
  /** Their devices on other servers; a body for what goes into the outbox. */
  readonly remote: readonly RemoteRequest[];
  /** The hub and its message, when the guard is with another server. */
  readonly hub: { readonly domain: string; readonly message: RelayedMessage } | null;
  /** The statuses in the order of the request. */
  statuses(results: SplitResults): RecipientStatus[];
}

/** What became of the parts of a {@link SplitEnqueue}. */
export interface SplitResults {
  readonly local: readonly StoredStatus[];
  /** One for each of its `remote` that has a body. */
  readonly remote: readonly RemoteStatus[];
  readonly hub: readonly RecipientStatus[];
}

/** Takes a request apart. Throws `malformedRequest`, and `unknownDomain` for a hub that is no peer. */
export function splitEnqueue(
  request: EnqueueRequest,
  { sender, domains }: { sender: Sender; domains: KnownDomains },
): SplitEnqueue {
  const hub = foreign(request.guard?.hub ?? "", domains);
  if (hub !== "" && !domains.isPeer(hub)) {
    throw new QpqError("unknownDomain", `The hub ${hub} is no peer`);
  }
  const split = new Splitter(request.parts.length, hub);
  request.parts.forEach((part, index) => split.add(part, { index, domains }));
  if (split.remote.size > domains.domainsMax) {
    throw new QpqError("malformedRequest", `A message may go to ${domains.domainsMax} other servers`);
  }
  const messageFor = (domain: string) =>
    create(RelayedMessageSchema, {
      messageId: request.messageId,
      senderAccountId: idBytes(sender.accountId),
      senderDeviceId: idBytes(sender.deviceId),
      parts: partsFor(request.parts, { recipients: split.remote.get(domain) ?? [], isHub: domain === hub }),
    });
  const remote = [...split.remote].map(([domain, recipients]) => {
    const queued = domain !== hub && domains.isPeer(domain);
    return { domain, recipients, body: queued ? toBinary(RelayedMessageSchema, messageFor(domain)) : null };
  });
  const queued = remote.filter(({ body }) => body).map(({ domain }) => domain);
  return {
    parts: split.local,
    remote,
    hub: hub === "" ? null : { domain: hub, message: messageFor(hub) },
    statuses: (results) => statusesOf(split.slots, { ...results, queued, hubDomain: hub }),
  };
}

/** The domain of another server; empty for this one. Throws `malformedRequest` unless it is in normal form. */
export function foreign(domain: string, { own }: Pick<KnownDomains, "own">): string {
  if (domain === "" || domain === own) return "";
  if (tryNormaliseDomain(domain) !== domain) {
    throw new QpqError("malformedRequest", `Not a domain in normal form: ${domain.length} characters`);
  }
  return domain;
}

/** Gathers recipients by where they are. */
class Splitter {
  readonly local: EnqueuePart[] = [];
  /** By domain, then by part. */
  readonly remote = new Map<string, DeviceId[][]>();
  /** Where each of the request's recipients is, in order; empty: here. */
  readonly slots: string[] = [];
  readonly #parts: number;

  constructor(parts: number, hub: string) {
    this.#parts = parts;
    // Known to the request's identity, also when none of its devices gets anything.
    if (hub !== "") this.#of(hub);
  }

  add(part: Part, { index, domains }: { index: number; domains: KnownDomains }): void {
    const here = part.recipients.map((id) => idField<DeviceId>(id, "recipients"));
    for (let i = 0; i < here.length; i++) this.slots.push("");
    const named = new Set<string>();
    for (const { domain: text, recipients } of part.remote) {
      const domain = foreign(text, domains);
      if (named.has(domain) || recipients.length === 0) {
        throw new QpqError("malformedRequest", `A part names a domain twice, or nobody there: ${domain}`);
      }
      named.add(domain);
      const into = domain === "" ? here : this.#of(domain)[index]!;
      for (const id of recipients) {
        into.push(idField<DeviceId>(id, "remote.recipients"));
        this.slots.push(domain);
      }
    }
    this.local.push({ payload: part.payload, recipients: here });
  }

  #of(domain: string): DeviceId[][] {
    const known = this.remote.get(domain);
    if (known) return known;
    const recipients = Array.from({ length: this.#parts }, (): DeviceId[] => []);
    this.remote.set(domain, recipients);
    return recipients;
  }
}

/** Parts that a server gets; the hub judges the commit also when none of its devices gets it. */
function partsFor(
  parts: readonly Part[],
  { recipients, isHub }: { recipients: readonly DeviceId[][]; isHub: boolean },
) {
  return parts.flatMap(({ payload }, index) => {
    const devices = (recipients[index] ?? []).map(idBytes);
    const wanted = devices.length > 0 || (isHub && readCommits([{ payload }]).length > 0);
    return wanted ? [{ payload, recipients: devices }] : [];
  });
}

function statusesOf(
  slots: readonly string[],
  results: SplitResults & { queued: readonly string[]; hubDomain: string },
): RecipientStatus[] {
  let local = 0;
  let hub = 0;
  return slots.map((domain) => {
    if (domain === "") return STATUSES[results.local[local++]!];
    if (domain === results.hubDomain) return results.hub[hub++] ?? RecipientStatus.UNSPECIFIED;
    const status = results.remote[results.queued.indexOf(domain)];
    if (status === undefined) return RecipientStatus.UNKNOWN_DOMAIN;
    return status === "relaying" ? RecipientStatus.RELAYING : RecipientStatus.QUEUE_FULL;
  });
}

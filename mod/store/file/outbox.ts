/** Outboxes and peers in memory: verbs of {@link PeerStore}. Tables and indexes are in queue_index.ts. */
import type { EntryId, MessageId } from "../../base/ids.ts";
import type {
  NewMessage,
  OutboxEntry,
  OutboxSums,
  PeerStore,
  RemoteMessage,
  RemoteStatus,
} from "../store.ts";
import { enqueueNotice, newBody } from "./queues.ts";
import type { BodyRow, OutboxRow } from "./rows.ts";
import type { State } from "./state.ts";
import { numberKey } from "./table.ts";

/** Puts the message's remote parts into their outboxes. */
export function addToOutboxes(state: State, message: NewMessage): RemoteStatus[] {
  return message.remote.map((remote) => addToOutbox(state, message, remote));
}

function addToOutbox(state: State, message: NewMessage, remote: RemoteMessage): RemoteStatus {
  const { limits, now, expiresAt, senderAccount, senderDevice, messageId } = message;
  const { domain, body: bytes, recipients } = remote;
  const { queues, limits: { queueEntriesMax } } = state;
  const load = state.queueIndex.outboxLoad(domain);
  const full = queues.entries.size + queues.outbox.size >= queueEntriesMax ||
    load.entries + 1 > limits.outboxDepthMax || load.bytes + bytes.length > limits.outboxBytesMax;
  if (full) return "queueFull";
  notePeer(state, domain);
  const body = newBody(state, {
    kind: "outbox",
    // An outbox has no entry ids: the message's stands there.
    entryId: messageId as string as EntryId,
    senderAccount,
    senderDevice,
    senderDomain: null,
    acceptedAt: now,
    expiresAt,
    length: bytes.length,
  });
  state.put(queues.outbox, { bodyId: body.bodyId, domain, recipients });
  state.stagePayload(numberKey(body.bodyId), bytes);
  return "relaying";
}

/** The peer has a row from now on. */
export function notePeer(state: State, domain: string): void {
  if (!state.queues.peers.has(domain)) state.put(state.queues.peers, { domain, blockedAt: null });
}

/** See {@link PeerStore.outboxes}. */
export function outboxes(state: State): OutboxSums[] {
  return state.queueIndex.outboxDomains().map((domain) => {
    const { entries: depth, bytes } = state.queueIndex.outboxLoad(domain);
    const [oldest] = state.queueIndex.outboxIds(domain);
    return {
      domain,
      depth,
      bytes,
      oldestAcceptedAt: state.queues.bodies.get(numberKey(oldest!))!.acceptedAt,
    };
  });
}

/** An outbox entry whose bytes are still to be read. */
export interface FoundOutboxEntry {
  readonly row: OutboxRow;
  readonly body: BodyRow;
}

/** Finds what {@link PeerStore.outboxAfter} answers. */
export function findOutboxEntries(
  state: State,
  { domain, after, entriesMax, bytesMax }: Parameters<PeerStore["outboxAfter"]>[0],
): FoundOutboxEntry[] {
  const found: FoundOutboxEntry[] = [];
  let bytes = 0;
  for (const id of state.queueIndex.outboxIds(domain)) {
    if (id <= after) continue;
    const body = state.queues.bodies.get(numberKey(id))!;
    bytes += body.length;
    if (found.length > 0 && (found.length >= entriesMax || bytes > bytesMax)) break;
    found.push({ row: state.queues.outbox.get(numberKey(id))!, body });
  }
  return found;
}

/** The entry with its bytes. */
export function toOutboxEntry({ row, body }: FoundOutboxEntry, bytes: Uint8Array): OutboxEntry {
  return {
    id: row.bodyId,
    body: bytes,
    senderAccount: body.senderAccount!,
    senderDevice: body.senderDevice!,
    messageId: messageIdOf(body),
    recipients: row.recipients,
    acceptedAt: body.acceptedAt,
    expiresAt: body.expiresAt,
  };
}

/** The message id that a body in an outbox has. */
export function messageIdOf(body: BodyRow): MessageId {
  return body.entryId as string as MessageId;
}

/** See {@link PeerStore.settleOutbox}. */
export function settleOutbox(
  state: State,
  { domain, settled, now }: Parameters<PeerStore["settleOutbox"]>[0],
): void {
  for (const { id, failures } of settled) {
    const key = numberKey(id);
    if (state.queues.outbox.get(key)?.domain !== domain) continue;
    const { senderDevice } = state.queues.bodies.get(key)!;
    state.remove(state.queues.outbox, key);
    state.remove(state.queues.bodies, key);
    for (const failure of failures) enqueueNotice(state, senderDevice!, failure, now);
  }
}

/** See {@link PeerStore.setPeerBlocked}. */
export function setPeerBlocked(
  state: State,
  { domain, blocked }: { domain: string; blocked: boolean },
  now: number,
): void {
  const { peers } = state.queues;
  const wasBlocked = (peers.get(domain)?.blockedAt ?? null) !== null;
  if (blocked !== wasBlocked) state.put(peers, { domain, blockedAt: blocked ? now : null });
}

/** See {@link PeerStore.blockedPeers}. */
export function blockedPeers(state: State): string[] {
  return [...state.queues.peers.rows()].filter((row) => row.blockedAt !== null).map((row) => row.domain)
    .sort();
}

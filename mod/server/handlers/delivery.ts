/** Enqueue, Fetch, FetchWait, Ack, Subscribe. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Fetched, FetchWindow } from "../../delivery/queues.ts";
import { readCommits, readGuard, STATUSES } from "../../federation/messages.ts";
import { CODE_OK, encodeFrame } from "../../protocol/frame.ts";
import {
  type CursorSchema,
  EntryKind,
  type EntrySchema,
  type FetchRequest,
  PushBatchSchema,
  type SubscribeRequest,
} from "../../protocol/qpq_pb.ts";
import type { Cursor, Entry } from "../../store/store.ts";
import { callerOf, type RequestContext } from "../context.ts";
import { encodeMessage } from "../../protocol/bodies.ts";
import { idBytes, idField, numberField } from "../../protocol/fields.ts";
import { enqueueAcross, goesAcross } from "./across.ts";
import type { Handlers, OwnStreamHandler } from "./types.ts";

/** Credit of a subscriber that names none, and the most one gets. */
const CREDIT_BYTES_DEFAULT = 1 << 20;
const CREDIT_BYTES_MAX = 16 << 20;

/** Methods on shared streams. */
export const deliveryHandlers: Pick<Handlers, "enqueue" | "fetch" | "fetchWait" | "ack"> = {
  async enqueue(context, request) {
    const caller = callerOf(context);
    if (goesAcross(request)) return await enqueueAcross(context, { caller, request });
    const accepted = await context.server.delivery.enqueue(caller, {
      messageId: idField(request.messageId, "message_id"),
      parts: request.parts.map((part) => ({
        payload: part.payload,
        recipients: part.recipients.map((recipient) => idField(recipient, "recipients")),
      })),
      ttlMs: request.ttlS * 1000,
      guard: request.guard ? readGuard(request.guard) : null,
      commits: readCommits(request.parts),
    });
    return {
      statuses: accepted.recipients.map((status) => STATUSES[status]),
      acceptedAtMs: BigInt(accepted.acceptedAt),
      ttlS: Math.floor(accepted.ttlMs / 1000),
      replayed: accepted.replayed,
    };
  },

  async fetch(context, request) {
    await context.turn.take();
    return fetchResponse(
      context,
      await context.server.delivery.fetch(callerOf(context), readWindow(request)),
    );
  },

  async fetchWait(context, request) {
    const fetched = await context.server.delivery.fetchWait(callerOf(context), {
      window: readWindow(request.fetch),
      timeoutMs: request.timeoutMs,
      cancelled: context.connection.gone,
      turn: context.turn,
    });
    return fetchResponse(context, fetched);
  },

  async ack(context, request) {
    const { deleted, cursor } = await context.server.delivery.ack(
      callerOf(context),
      numberField(request.through, "through"),
    );
    return { deleted: BigInt(deleted), cursor: cursorMessage(context, cursor) };
  },
};

/** Subscribe: the first reply says where the queue stands, then batches follow on the same stream. */
export const subscribe: OwnStreamHandler<SubscribeRequest> = async (
  context,
  { request, frame, stream, writer },
) => {
  const { delivery } = context.server;
  const caller = callerOf(context);
  const after = numberField(request.after, "after");
  const gone = new AbortController();
  const end = () => gone.abort();
  const send = (entries: Entry[], cursor: Cursor) => {
    const batch = { entries: entries.map(entryMessage), cursor: cursorMessage(context, cursor) };
    writer.write(encodeFrame(frame.requestId, CODE_OK, encodeMessage(PushBatchSchema, batch)));
    if (writer.failed) end(); // the client reads no more
    return writer.drained();
  };
  await send([], await delivery.cursor(caller));
  context.connection.gone.addEventListener("abort", end, { once: true });
  // The client ends the subscription by ending its side of the stream.
  (async () => {
    while (await stream.read());
  })().then(end, end);
  try {
    await delivery.subscribe(caller, {
      after,
      creditBytes: Math.min(request.creditBytes || CREDIT_BYTES_DEFAULT, CREDIT_BYTES_MAX),
      push: send,
      gone: gone.signal,
    });
  } finally {
    context.connection.gone.removeEventListener("abort", end);
  }
};

function readWindow(request: FetchRequest | undefined): FetchWindow {
  if (!request) return { after: 0, entriesMax: 0, bytesMax: 0 };
  return {
    after: numberField(request.after, "after"),
    entriesMax: request.entriesMax,
    bytesMax: request.bytesMax,
  };
}

function fetchResponse(context: RequestContext, { entries, cursor, empty }: Fetched) {
  return { entries: entries.map(entryMessage), cursor: cursorMessage(context, cursor), empty };
}

function cursorMessage({ server }: RequestContext, cursor: Cursor): MessageInitShape<typeof CursorSchema> {
  return {
    incarnation: server.store.incarnation,
    ackedThrough: BigInt(cursor.ackedThrough),
    nextSeq: BigInt(cursor.nextSeq),
    droppedThrough: BigInt(cursor.droppedThrough),
    droppedCount: BigInt(cursor.droppedCount),
  };
}

function entryMessage(entry: Entry): MessageInitShape<typeof EntrySchema> {
  return {
    seq: BigInt(entry.seq),
    kind: entry.kind === "message" ? EntryKind.MESSAGE : EntryKind.NOTICE,
    entryId: idBytes(entry.entryId),
    ...(entry.senderAccount ? { senderAccountId: idBytes(entry.senderAccount) } : {}),
    ...(entry.senderDevice ? { senderDeviceId: idBytes(entry.senderDevice) } : {}),
    payload: entry.payload,
    acceptedAtMs: BigInt(entry.acceptedAt),
    expiresAtMs: BigInt(entry.expiresAt),
    senderDomain: entry.senderDomain ?? "",
  };
}

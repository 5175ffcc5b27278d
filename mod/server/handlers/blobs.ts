/** PutBlob and GetBlob, whose bytes follow their frame on the same stream, and DeleteBlob. */
import { QpqError } from "../../base/errors.ts";
import { type BlobHash, idOf } from "../../base/ids.ts";
import { CODE_OK, encodeFrame } from "../../protocol/frame.ts";
import {
  type GetBlobRequest,
  GetBlobResponseSchema,
  type PutBlobRequest,
  PutBlobResponseSchema,
} from "../../protocol/qpq_pb.ts";
import type { Stream } from "../../transport/transport.ts";
import { callerOf, type ServerContext } from "../context.ts";
import { encodeMessage } from "../../protocol/bodies.ts";
import { bytesField, numberField } from "../../protocol/fields.ts";
import { blobAcross, otherDomain } from "./across.ts";
import type { Handlers, OwnStream, OwnStreamHandler } from "./types.ts";

/** Methods on shared streams. */
export const blobHandlers: Pick<Handlers, "deleteBlob"> = {
  async deleteBlob(context, request) {
    await context.server.blobs.delete({
      owner: callerOf(context).accountId,
      hash: hashField(request.sha256),
    });
    return {};
  },
};

/** Takes exactly `size` bytes behind the frame. */
export const putBlob: OwnStreamHandler<PutBlobRequest> = async (context, own) => {
  const { request, frame, writer } = own;
  const bytes = numberField(request.size, "size");
  const { expiresAt } = await context.server.blobs.put({
    owner: callerOf(context).accountId,
    hash: hashField(request.sha256),
    bytes,
    ttlMs: request.ttlS * 1000,
    body: body(own, { bytes, server: context.server }),
  });
  const response = encodeMessage(PutBlobResponseSchema, { expiresAtMs: BigInt(expiresAt) });
  writer.write(encodeFrame(frame.requestId, CODE_OK, response));
};

/** Sends the size, then exactly `length` bytes. */
export const getBlob: OwnStreamHandler<GetBlobRequest> = async (context, own) => {
  const { request, frame, writer } = own;
  const range = {
    hash: hashField(request.sha256),
    offset: numberField(request.offset, "offset"),
    length: numberField(request.length, "length"),
  };
  const domain = otherDomain(context.server, request.domain);
  const blob = domain === null
    ? await context.server.blobs.get(range)
    : await blobAcross(context, { domain, ...range });
  const response = encodeMessage(GetBlobResponseSchema, {
    size: BigInt(blob.size),
    length: BigInt(blob.length),
  });
  writer.write(encodeFrame(frame.requestId, CODE_OK, response));
  own.rawBytesBegun = true;
  for await (const chunk of blob.body) {
    if (context.connection.gone.aborted || writer.failed) return;
    writer.write(chunk);
    await writer.drained();
  }
};

/** The blob's bytes: what came with the frame, then the stream. Throws when they end early or go on. */
async function* body(
  { rest, stream }: OwnStream<PutBlobRequest>,
  { bytes, server }: { bytes: number; server: ServerContext },
): AsyncGenerator<Uint8Array> {
  let left = bytes;
  let chunk: Uint8Array | null = rest;
  while (true) {
    if (chunk.length > left) {
      throw new QpqError("malformedRequest", `More than the announced ${bytes} bytes came`);
    }
    left -= chunk.length;
    if (chunk.length > 0) yield chunk;
    if (left === 0) return;
    chunk = await readInTime(stream, server);
    if (!chunk) throw new QpqError("malformedRequest", `The stream ended ${left} bytes early`);
  }
}

/** Uploads are few for all accounts together: one that stands still does not keep its place. Null: too late. */
async function readInTime(stream: Stream, server: ServerContext): Promise<Uint8Array | null> {
  const cancel = server.clock.after(server.settings.limits.uploadDeadlineMs, () => {
    server.metrics.deadlineMissed("upload");
    stream.stopReading();
  });
  try {
    return await stream.read();
  } finally {
    cancel();
  }
}

function hashField(bytes: Uint8Array): BlobHash {
  return idOf(bytesField(bytes, "sha256", 32));
}

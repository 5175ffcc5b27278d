/** Bodies of frames ↔ messages, on both sides and for clients and servers alike. */
import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { type ErrorCode, errorCodeOf, ERRORS, messageOf, QpqError } from "../base/errors.ts";
import type { Bytes } from "../base/bytes.ts";
import { CODE_OK, encodeFrame, type Frame } from "./frame.ts";
import { ErrorResponseSchema } from "./qpq_pb.ts";

/** The bytes of a message made from `init`. */
export function encodeMessage(schema: DescMessage, init: unknown): Uint8Array {
  return toBinary(schema, create(schema, init as MessageShape<DescMessage>));
}

/** The message of a request's body; throws `malformedRequest`. */
export function decodeMessage<Desc extends DescMessage>(schema: Desc, body: Uint8Array): MessageShape<Desc> {
  try {
    return fromBinary(schema, body, { readUnknownFields: false });
  } catch (cause) {
    throw new QpqError("malformedRequest", `Cannot decode ${schema.name}: ${messageOf(cause)}`, { cause });
  }
}

/** Anything thrown as the failure that the peer is told: `internal` unless it was expected. */
export function expectedError(error: unknown): QpqError {
  return error instanceof QpqError ? error : new QpqError("internal", messageOf(error), { cause: error });
}

/** What an error says beside its number. */
export function errorBody({ code, details }: QpqError) {
  return {
    text: ERRORS[code].text,
    retryAfterMs: Math.ceil(details.retryAfterMs ?? 0),
    ...(details.currentEpoch === undefined ? {} : { currentEpoch: BigInt(details.currentEpoch) }),
  };
}

/** Bodies that say nothing but the table's text: a flood of bad frames must not have each of them made anew. */
const PLAIN_BODIES = new Map<ErrorCode, Uint8Array>();

function encodedErrorBody(error: QpqError): Uint8Array {
  const { code, details } = error;
  const isPlain = (details.retryAfterMs ?? 0) === 0 && details.currentEpoch === undefined;
  const known = isPlain ? PLAIN_BODIES.get(code) : undefined;
  if (known) return known;
  const body = encodeMessage(ErrorResponseSchema, errorBody(error));
  if (isPlain) PLAIN_BODIES.set(code, body);
  return body;
}

/** The reply frame for a failure. */
export function encodeErrorFrame(requestId: number, error: QpqError): Bytes {
  return encodeFrame(requestId, ERRORS[error.code].number, encodedErrorBody(error));
}

/** The message in a reply; throws the QpqError that an error frame stands for. */
export function decodeReply<Desc extends DescMessage>(schema: Desc, frame: Frame): MessageShape<Desc> {
  if (frame.code === CODE_OK) return fromBinary(schema, frame.body);
  const error = fromBinary(ErrorResponseSchema, frame.body);
  // A newer server may know errors that this program does not: its text still says what happened.
  throw new QpqError(errorCodeOf(frame.code) ?? "internal", error.text, {
    ...(error.retryAfterMs > 0 ? { retryAfterMs: error.retryAfterMs } : {}),
    ...(error.currentEpoch !== undefined ? { currentEpoch: Number(error.currentEpoch) } : {}),
  });
}

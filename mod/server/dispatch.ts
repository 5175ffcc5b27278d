/**
 * One request frame → its method's row → access, rate and shape checked → handler → reply frame. The only place
 * that turns errors into wire numbers, log levels and metrics.
 */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { AssertionError } from "../base/assert.ts";
import { type ErrorCode, QpqError } from "../base/errors.ts";
import { shortId } from "../base/ids.ts";
import { logger } from "../base/log.ts";
import { decodeMessage, encodeErrorFrame, encodeMessage, expectedError } from "../protocol/bodies.ts";
import { CODE_OK, encodeFrame, type Frame } from "../protocol/frame.ts";
import type { Method, MethodName } from "../protocol/methods.ts";
import { isBadRequest } from "./bad_requests.ts";
import type { RequestContext } from "./context.ts";
import { HANDLERS } from "./handlers/table.ts";

const log = logger("server");

/** Answers one request on a shared stream; never rejects. */
export async function dispatch(context: RequestContext, method: Method, frame: Frame): Promise<Uint8Array> {
  const { metrics, clock } = context.server;
  const startedAt = clock.monotonic();
  let outcome: "ok" | "error" = "ok";
  try {
    const request = readRequest(context, method, frame);
    const handler = HANDLERS[method.name as keyof typeof HANDLERS] as Handler;
    const response = await handler(context, request);
    return encodeFrame(frame.requestId, CODE_OK, encodeMessage(method.response, response));
  } catch (error) {
    outcome = "error";
    return errorFrame(context, method.name, frame.requestId, error);
  } finally {
    metrics.request(method.name, outcome, (clock.monotonic() - startedAt) / 1000);
  }
}

type Handler = (context: RequestContext, request: unknown) => unknown;

/** Checks whether the caller may send this request now, and decodes it. Throws QpqError. */
export function readRequest<Desc extends DescMessage>(
  context: RequestContext,
  method: Method & { readonly request: Desc },
  frame: Frame,
): MessageShape<Desc> {
  checkAccess(context, method);
  context.server.limits.charge(method.rate, context.connection);
  const full = context.server.disk.refusal(method.name);
  if (full) throw full;
  return decodeMessage(method.request, frame.body);
}

function checkAccess({ connection, server }: RequestContext, method: Method): void {
  if (method.access === "anyone") return;
  if (!connection.helloDone) throw new QpqError("helloRequired", `${method.name} came before Hello`);
  if (server.draining && method.name !== "ack") {
    throw new QpqError("shuttingDown", `${method.name} came while draining`, { retryAfterMs: 2000 });
  }
  if (connection.sessionEnded) {
    throw new QpqError("sessionExpired", `${method.name} came after the session's end`);
  }
  if (method.access === "hello") return;
  const { login, admitted } = connection.auth;
  if (method.access === "admitted") {
    if (!login && !admitted) {
      throw new QpqError("tokenRequired", `${method.name} came without token or login`);
    }
    return;
  }
  if (!login) throw new QpqError("loginRequired", `${method.name} came without a login`);
  if (method.access === "freshLogin" && server.clock.monotonic() > login.freshUntil) {
    throw new QpqError("freshLoginRequired", `${method.name} needs a fresh login`);
  }
}

/** The reply for a failed request; logs and counts it. A broken invariant also ends the connection. */
export function errorFrame(
  context: RequestContext,
  method: MethodName | "unknown",
  requestId: number,
  error: unknown,
): Uint8Array {
  const { connection, server } = context;
  const expected = expectedError(error);
  const { code } = expected;
  server.metrics.requestError(code);
  if (isBadRequest(code)) connection.badRequests.count();
  const properties = {
    method,
    code,
    reason: expected.message,
    address: connection.maskedAddress,
    device: connection.auth.login ? shortId(connection.auth.login.deviceId) : undefined,
  };
  if (isOurFault(code)) log.error("{method} failed: {reason}", { ...properties, error });
  else log.debug("{method} refused with {code}: {reason}", properties);
  if (error instanceof AssertionError) connection.close("internal");
  return encodeErrorFrame(requestId, expected);
}

function isOurFault(code: ErrorCode): boolean {
  return code === "internal" || code === "storeUnavailable" || code === "storeFull";
}

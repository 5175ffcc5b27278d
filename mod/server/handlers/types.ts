/** Shapes of handlers: wire message → a call of auth or delivery → wire message. */
import type { MethodName, RequestOf, ResponseInit } from "../../protocol/methods.ts";
import type { Frame } from "../../protocol/frame.ts";
import type { CoalescingWriter } from "../../transport/coalescing_writer.ts";
import type { Stream } from "../../transport/transport.ts";
import type { RequestContext } from "../context.ts";

/** Methods that have a stream of their own. */
export type OwnStreamMethod = "subscribe" | "putBlob" | "getBlob";

/** Handler of a method on a shared stream. */
export type Handler<M extends MethodName> = (
  context: RequestContext,
  request: RequestOf<M>,
) => ResponseInit<M> | Promise<ResponseInit<M>>;

/** All handlers of shared streams, by method. */
export type Handlers = { readonly [M in Exclude<MethodName, OwnStreamMethod>]: Handler<M> };

/** The stream that a method has to itself. */
export interface OwnStream<Request> {
  readonly request: Request;
  readonly frame: Frame;
  /** Bytes that came behind the request's frame. */
  readonly rest: Uint8Array;
  readonly stream: Stream;
  readonly writer: CoalescingWriter;
  /** Set once bytes that are no frames follow: an error can then only end the stream. */
  rawBytesBegun: boolean;
}

/** Handler of a method with its own stream; writes its replies itself. */
export type OwnStreamHandler<Request> = (context: RequestContext, own: OwnStream<Request>) => Promise<void>;

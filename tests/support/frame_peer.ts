/**
 * A server of frames whose every answer a test writes itself: real QUIC and certificates, no rules of its
 * own.
 */
import { create, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { type ErrorCode, ERRORS } from "../../mod/base/errors.ts";
import { CODE_OK, encodeFrame, FRAME_BODY_BYTES_MAX, FrameDecoder } from "../../mod/protocol/frame.ts";
import { type MethodName, methodOf, METHODS } from "../../mod/protocol/methods.ts";
import { ErrorResponseSchema } from "../../mod/protocol/qpq_pb.ts";
import { listen } from "../../mod/transport/deno_quic.ts";
import { inspectCertificate, makeCa, makeLeaf } from "../../mod/transport/tls.ts";
import type { Connection, Listener, ServerCertificate, Stream } from "../../mod/transport/transport.ts";

/** A request as the test's handler sees it. */
export interface Exchange {
  readonly name: MethodName;
  readonly request: Message & Record<string, unknown>;
  readonly requestId: number;
  readonly connection: Connection;
  readonly stream: Stream;
  /** Bytes behind the frame, of an own stream. */
  readonly rest: Uint8Array;
  /** Answers; may be called again for pushes. */
  reply(fields: Record<string, unknown>): Promise<void>;
  /** Answers with an error, by name or by any number. */
  refuse(code: ErrorCode | number, details?: Record<string, unknown>): Promise<void>;
}

/** What a test makes a peer with. */
export interface FramePeerOptions {
  readonly onRequest: (exchange: Exchange) => void | Promise<void>;
  /** Default: a CA and a leaf for 127.0.0.1 made for this peer. */
  readonly certificate?: ServerCertificate;
  readonly port?: number;
}

/** A running peer. */
export interface FramePeer extends AsyncDisposable {
  readonly server: { readonly hostname: string; readonly port: number };
  readonly listener: Listener;
  readonly ca: ServerCertificate;
  readonly leafSha256: Uint8Array;
}

/** Starts a peer on a free port of the loopback address. */
export async function startFramePeer(options: FramePeerOptions): Promise<FramePeer> {
  const ca = await makeCa({ commonName: "test CA", now: Date.now() });
  const certificate = options.certificate ??
    await makeLeaf({ ca, names: ["127.0.0.1", "localhost"], now: Date.now() });
  const listener = listen({
    hostname: "127.0.0.1",
    port: options.port ?? 0,
    certificate,
    idleTimeoutMs: 30_000,
    streamsMax: 16,
    handshakesMax: 16,
  });
  const serving = serve(listener, options.onRequest);
  return {
    server: { hostname: "127.0.0.1", port: listener.address.port },
    listener,
    ca,
    leafSha256: inspectCertificate(certificate.certificatePem).leafSha256,
    async [Symbol.asyncDispose]() {
      await listener.close();
      await serving;
    },
  };
}

type Handler = FramePeerOptions["onRequest"];

async function serve(listener: Listener, onRequest: Handler): Promise<void> {
  const running: Promise<void>[] = [];
  for await (const connection of listener.connections()) running.push(serveConnection(connection, onRequest));
  await Promise.all(running);
}

async function serveConnection(connection: Connection, onRequest: Handler): Promise<void> {
  const running: Promise<void>[] = [];
  for await (const stream of connection.incomingStreams()) {
    running.push(serveStream(connection, stream, onRequest));
  }
  await Promise.all(running);
}

async function serveStream(connection: Connection, stream: Stream, onRequest: Handler): Promise<void> {
  const decoder = new FrameDecoder(() => FRAME_BODY_BYTES_MAX);
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
    for (const decoded of decoder.push(chunk)) {
      if (decoded.kind !== "frame") continue;
      const { requestId, code, body } = decoded.frame;
      const { name, request, response, stream: use } = methodOf(code)!;
      const write = (bytes: Uint8Array) => stream.write(bytes).catch(() => {});
      const rest = use === "own" ? decoder.takeRest() : new Uint8Array(0);
      await onRequest({
        name,
        request: fromBinary(request, body) as Exchange["request"],
        requestId,
        connection,
        stream,
        rest,
        reply: (fields) =>
          write(encodeFrame(requestId, CODE_OK, toBinary(response, create(response, fields)))),
        refuse: (error, details = {}) => {
          const row = typeof error === "number" ? { number: error, text: "from the future" } : ERRORS[error];
          const message = create(ErrorResponseSchema, { text: row.text, ...details });
          return write(encodeFrame(requestId, row.number, toBinary(ErrorResponseSchema, message)));
        },
      });
      if (METHODS[name].stream === "own") return;
    }
  }
}

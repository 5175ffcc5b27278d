/** A stream of frames that a test writes by hand, right or wrong. */
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type ErrorCode, errorCodeOf } from "../../mod/base/errors.ts";
import {
  CODE_OK,
  encodeFrame,
  type Frame,
  FRAME_BODY_BYTES_MAX,
  FrameDecoder,
} from "../../mod/protocol/frame.ts";
import { type MethodName, METHODS } from "../../mod/protocol/methods.ts";
import { ErrorResponseSchema } from "../../mod/protocol/qpq_pb.ts";
import { connect } from "../../mod/transport/deno_quic.ts";
import { parseFingerprint } from "../../mod/transport/fingerprint.ts";
import type { Connection, Stream } from "../../mod/transport/transport.ts";

/** What came back: a frame's request id, and `ok` or the error's name. */
export interface RawReply {
  readonly requestId: number;
  readonly outcome: "ok" | ErrorCode | "unknown";
  readonly frame: Frame;
}

/** Where a server is. */
export interface RawTarget {
  readonly hostname: string;
  readonly port: number;
  readonly fingerprint: string;
}

/** The bytes of a request. */
export function requestFrame<M extends MethodName>(
  requestId: number,
  method: M,
  request: MessageInitShape<(typeof METHODS)[M]["request"]>,
): Uint8Array {
  const { number, request: schema } = METHODS[method];
  return encodeFrame(requestId, number, toBinary(schema, create(schema, request as never)));
}

/** One stream of one connection, without any client logic. */
export class RawStream implements AsyncDisposable {
  readonly #decoder = new FrameDecoder(() => FRAME_BODY_BYTES_MAX);
  readonly #replies: RawReply[] = [];

  constructor(readonly connection: Connection, readonly stream: Stream) {}

  /** A connection of its own with one stream. */
  static async open(server: RawTarget): Promise<RawStream> {
    const connection = await connect({
      hostname: server.hostname,
      port: server.port,
      identity: { kind: "pinned", leafSha256: [parseFingerprint(server.fingerprint)!] },
      idleTimeoutMs: 30_000,
    });
    return new RawStream(connection, await connection.openStream());
  }

  /** Like open, after a Hello with the access token. */
  static async afterHello(server: RawTarget & { readonly accessToken: string }): Promise<RawStream> {
    const raw = await RawStream.open(server);
    await raw.write(requestFrame(1, "hello", { accessToken: server.accessToken }));
    const { outcome } = await raw.reply();
    if (outcome !== "ok") throw new Error(`Hello was refused: ${outcome}`);
    return raw;
  }

  /** Another stream of the same connection. */
  async another(): Promise<RawStream> {
    return new RawStream(this.connection, await this.connection.openStream());
  }

  write(...parts: readonly Uint8Array[]): Promise<void> {
    return this.stream.write(new Uint8Array(parts.flatMap((part) => [...part])));
  }

  /** The next reply; throws when the stream ends before. */
  async reply(): Promise<RawReply> {
    while (this.#replies.length === 0) {
      const chunk = await this.stream.read();
      if (!chunk) throw new Error("The stream ended");
      for (const decoded of this.#decoder.push(chunk)) {
        if (decoded.kind !== "frame") throw new Error("An oversized reply");
        const { frame } = decoded;
        const outcome = frame.code === CODE_OK ? "ok" : errorCodeOf(frame.code) ?? "unknown";
        this.#replies.push({ requestId: frame.requestId, outcome, frame });
      }
    }
    return this.#replies.shift()!;
  }

  /** Outcomes of the next `count` replies, by request id. */
  async outcomes(count: number): Promise<Record<number, string>> {
    const outcomes: Record<number, string> = {};
    for (let i = 0; i < count; i++) {
      const { requestId, outcome } = await this.reply();
      outcomes[requestId] = outcome;
    }
    return outcomes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.connection[Symbol.asyncDispose]();
  }
}

/** Text of an error reply. */
export function errorText(reply: RawReply): string {
  return fromBinary(ErrorResponseSchema, reply.frame.body).text;
}

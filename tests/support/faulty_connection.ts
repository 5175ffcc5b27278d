/**
 * A client's connection that breaks at the worst moments: when a request has been written (its answer is
 * lost), or just before (it never leaves). What is under it is real.
 */
import { FRAME_BODY_BYTES_MAX, FrameDecoder } from "../../mod/protocol/frame.ts";
import { type MethodName, METHODS } from "../../mod/protocol/methods.ts";
import { ConnectError } from "../../mod/transport/connect_error.ts";
import { connect } from "../../mod/transport/deno_quic.ts";
import type { Connection, ConnectOptions, Stream } from "../../mod/transport/transport.ts";

/** Where a connection breaks. */
export interface Fault {
  readonly method: MethodName;
  /** `answer`: the server has carried the request out, its answer is lost. `request`: it never leaves. */
  readonly lose: "answer" | "request";
}

/** Makes connections, and breaks them when told. */
export class FaultyNetwork {
  /** The next request of this kind breaks its connection. */
  fault: Fault | null = null;
  /** Nobody answers any more. */
  isDown = false;
  /** Connections that were broken. */
  broken = 0;
  /** Stay down after the next break, as after a crash of the client. */
  staysDown = false;

  /** For ClientOptions.connect. */
  readonly connect = async (options: ConnectOptions): Promise<Connection> => {
    if (this.isDown) throw new ConnectError("unreachable", "The network is down in this test");
    return this.#wrap(await connect(options));
  };

  #wrap(connection: Connection): Connection {
    return {
      remoteAddress: connection.remoteAddress,
      closed: connection.closed,
      incomingStreams: () => connection.incomingStreams(),
      close: (code, reason) => connection.close(code, reason),
      openStream: async () => this.#wrapStream(connection, await connection.openStream()),
      [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
    };
  }

  #wrapStream(connection: Connection, stream: Stream): Stream {
    const decoder = new FrameDecoder(() => FRAME_BODY_BYTES_MAX);
    let losesAnswer = false;
    return {
      read: async () => {
        const bytes = await stream.read();
        if (!losesAnswer) return bytes;
        this.#break(connection, stream); // the answer is here, so the request was carried out
        return null;
      },
      write: async (bytes) => {
        const fault = this.fault;
        const isHit = fault !== null && this.#contains(decoder, bytes, METHODS[fault.method].number);
        if (isHit && fault.lose === "request") {
          this.#break(connection, stream);
          throw new Error("The connection broke in this test");
        }
        losesAnswer ||= isHit;
        await stream.write(bytes);
      },
      closeWrite: () => stream.closeWrite(),
      stopReading: () => stream.stopReading(),
      abort: () => stream.abort(),
    };
  }

  #contains(decoder: FrameDecoder, bytes: Uint8Array, code: number): boolean {
    let found = false;
    for (const decoded of decoder.push(bytes)) found ||= decoded.frame.code === code;
    return found;
  }

  #break(connection: Connection, stream: Stream): void {
    this.fault = null;
    this.broken++;
    this.isDown = this.staysDown;
    stream.abort();
    connection.close(0, "broken in this test");
  }
}

/**
 * Connections and streams of Deno's QUIC behind the interfaces of transport.ts. What Deno leaves to its users is
 * done here: every promise that can reject has a catch (one that has none ends the process), reads use small
 * buffers of their own, an ended connection reads as the end of its streams, and `closed` never rejects.
 *
 * quinn holds a close frame back while the congestion window is full, and after a close it fills no more room: a
 * connection closed in the middle of bulk data often ends at the peer only with the peer's next packet (a
 * keep-alive, at most a third of the idle timeout later), as a reset by transport instead of code and reason.
 */
import type { NetAddress } from "../base/address.ts";
import type { Bytes } from "../base/bytes.ts";
import { messageOf } from "../base/errors.ts";
import { unmapIpv4 } from "./host_names.ts";
import type { CloseReason, Connection, Stream } from "./transport.ts";

/** A waiting read pins its buffer: 2 kB cost 2,000 idle connections 179 MB, Deno's default of 64 kB 381 MB. */
const READ_BYTES_MIN = 2 * 1024;
const READ_BYTES_MAX = 64 * 1024;
/** Close frames need this long to leave; a process that exits earlier loses them. */
const CLOSE_FRAMES_MS = 50;
/** Close reasons are cut so that they fit into one packet. */
const REASON_CHARS_MAX = 200;

/** Waits until close frames have likely left. */
export function closeFramesSent(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, CLOSE_FRAMES_MS));
}

/** Marks a promise as looked after: its rejection is known to its other users, or of no interest. */
function handled(promise: Promise<unknown>): void {
  promise.catch(() => {});
}

/** One connection of Deno's QUIC. */
export class DenoQuicConnection implements Connection {
  readonly remoteAddress: NetAddress;
  readonly closed: Promise<CloseReason>;
  readonly #conn: Deno.QuicConn;
  #localReason: CloseReason | undefined;

  constructor(conn: Deno.QuicConn) {
    this.#conn = conn;
    const { hostname, port } = conn.remoteAddr;
    this.remoteAddress = { hostname: unmapIpv4(hostname), port };
    this.closed = conn.closed.then(
      // Deno reports a local close as code 0 without a reason.
      (info) =>
        this.#localReason ?? { code: Number(info.closeCode), reason: info.reason, by: "peer" as const },
      (error) => this.#localReason ?? lostReason(error),
    );
  }

  async openStream(): Promise<Stream> {
    try {
      return new DenoQuicStream(await this.#conn.createBidirectionalStream({ waitUntilAvailable: true }));
    } catch (cause) {
      throw new Error(`Cannot open a stream as the connection is gone: ${messageOf(cause)}`, { cause });
    }
  }

  async *incomingStreams(): AsyncGenerator<Stream> {
    const reader = this.#conn.incomingBidirectionalStreams.getReader();
    handled(reader.closed);
    try {
      while (true) {
        const next = await reader.read().catch(() => undefined);
        if (!next || next.done) return;
        yield new DenoQuicStream(next.value);
      }
    } finally {
      // Not cancelled: that would wait for the next stream. A connection's streams are iterated once.
      reader.releaseLock();
    }
  }

  close(code: number, reason: string): void {
    this.#localReason ??= { code, reason, by: "local" };
    try {
      this.#conn.close({ closeCode: code, reason: reason.slice(0, REASON_CHARS_MAX) });
    } catch {
      // Already gone, which is what was wanted.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close(0, "");
    await this.closed;
    await closeFramesSent();
  }
}

function lostReason(error: unknown): CloseReason {
  const reason = messageOf(error);
  return { code: 0, reason, by: reason === "timed out" ? "timeout" : "transport" };
}

/** One bidirectional stream of Deno's QUIC. */
export class DenoQuicStream implements Stream {
  readonly #reader: ReadableStreamBYOBReader;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #readBytes = READ_BYTES_MIN;
  #ended = false;

  constructor(stream: Deno.QuicBidirectionalStream) {
    this.#reader = stream.readable.getReader({ mode: "byob" });
    this.#writer = stream.writable.getWriter();
    handled(this.#reader.closed);
    handled(this.#writer.closed);
    handled(this.#writer.ready);
  }

  async read(): Promise<Bytes | null> {
    if (this.#ended) return null;
    const size = this.#readBytes;
    const { value, done } = await this.#reader.read(new Uint8Array(size)).catch(() => GONE);
    if (done || !value) {
      this.#ended = true;
      return null;
    }
    const length = value.byteLength;
    this.#readBytes = length === size ? Math.min(READ_BYTES_MAX, size * 4) : readBytesFor(length);
    // A few bytes must not pin a large buffer for as long as their reader keeps them.
    return length * 2 < size && size > READ_BYTES_MIN ? value.slice() : value;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    try {
      await this.#writer.write(bytes);
    } catch (cause) {
      throw new Error(`Cannot write to the stream as it is gone: ${messageOf(cause)}`, { cause });
    }
  }

  async closeWrite(): Promise<void> {
    await this.#writer.close().catch(() => {});
  }

  stopReading(): void {
    this.#ended = true;
    handled(this.#reader.cancel());
  }

  abort(): void {
    this.stopReading();
    handled(this.#writer.abort(new Error("aborted here")));
  }
}

const GONE = { value: undefined, done: true } as const;

/** The buffer for a stream whose last read gave `length` bytes: room for twice that. */
function readBytesFor(length: number): number {
  let size = READ_BYTES_MIN;
  while (size < length * 2 && size < READ_BYTES_MAX) size *= 2;
  return size;
}

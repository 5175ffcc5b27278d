/** Streams of quiche behind the interface of transport.ts. Bytes stay in quiche, under its flow control, until read. */
import type { Bytes } from "../base/bytes.ts";
import { messageOf } from "../base/errors.ts";
import type { NativeConnection } from "./quiche_native.ts";
import type { Stream } from "./transport.ts";

const READ = 0;
const WRITE = 1;
/** Reads are synchronous: one buffer serves all, what was read is copied. */
const SCRATCH = new Uint8Array(64 * 1024);
const NOTHING = new Uint8Array(0);

/** What a stream needs of its connection. */
export interface StreamOwner {
  readonly native: NativeConnection;
  readonly ended: boolean;
  /** Something may have to be sent. */
  touch(): void;
  /** Both directions of the stream have ended. */
  finished(id: number): void;
}

/** One bidirectional stream. */
export class QuicheStream implements Stream {
  readonly id: number;
  readonly #owner: StreamOwner;
  #readEnded = false;
  #writeEnded = false;
  /** The write before this one; FIN waits for it. */
  #writing: Promise<void> = Promise.resolve();
  #wakeReader: (() => void) | undefined;
  #wakeWriter: (() => void) | undefined;

  constructor(owner: StreamOwner, id: number) {
    this.#owner = owner;
    this.id = id;
  }

  /** The connection has news: whoever waits looks again. */
  wake(): void {
    this.#wakeReader?.();
    this.#wakeWriter?.();
  }

  async read(): Promise<Bytes | null> {
    while (!this.#readEnded && !this.#owner.ended) {
      const bytes = this.#receive();
      if (bytes) return bytes;
      if (this.#readEnded) break;
      await new Promise<void>((resolve) => this.#wakeReader = resolve);
      this.#wakeReader = undefined;
    }
    return null;
  }

  #receive(): Bytes | null {
    try {
      const received = this.#owner.native.streamRecv(this.id, SCRATCH);
      if (!received) return null;
      const [length, fin] = received;
      this.#owner.touch();
      if (fin) this.#endRead();
      return length > 0 ? SCRATCH.slice(0, length) : null;
    } catch {
      this.#endRead(); // reset by the peer, or gone
      return null;
    }
  }

  write(bytes: Uint8Array): Promise<void> {
    const writing = this.#writing.then(() => this.#send(bytes));
    this.#writing = writing.catch(() => {});
    return writing;
  }

  async #send(bytes: Uint8Array): Promise<void> {
    for (let offset = 0; offset < bytes.length;) {
      if (this.#writeEnded || this.#owner.ended) throw new Error("Cannot write to the stream as it is gone");
      let sent: number | null;
      try {
        // After STOP_SENDING streamSend pretends to have sent all; only this call throws.
        this.#owner.native.streamCapacity(this.id);
        sent = this.#owner.native.streamSend(this.id, bytes.subarray(offset), false);
      } catch (cause) {
        this.#endWrite();
        throw new Error(`Cannot write to the stream as it is gone: ${messageOf(cause)}`, { cause });
      }
      this.#owner.touch();
      offset += sent ?? 0;
      if (offset >= bytes.length) return;
      await new Promise<void>((resolve) => this.#wakeWriter = resolve);
      this.#wakeWriter = undefined;
    }
  }

  async closeWrite(): Promise<void> {
    await this.#writing;
    if (this.#writeEnded || this.#owner.ended) return;
    try {
      this.#owner.native.streamSend(this.id, NOTHING, true);
    } catch {
      // The peer wants no more.
    }
    this.#endWrite();
  }

  stopReading(): void {
    if (this.#readEnded || this.#owner.ended) return;
    this.#shutdown(READ);
    this.#endRead();
  }

  abort(): void {
    if (!this.#owner.ended) {
      this.stopReading();
      if (!this.#writeEnded) this.#shutdown(WRITE);
    }
    this.#endWrite();
  }

  #shutdown(direction: typeof READ | typeof WRITE): void {
    try {
      this.#owner.native.streamShutdown(this.id, direction, 0);
    } catch {
      // Already ended, which is what was wanted.
    }
  }

  #endRead(): void {
    this.#readEnded = true;
    this.#end();
  }

  #endWrite(): void {
    this.#writeEnded = true;
    this.#end();
  }

  #end(): void {
    this.wake();
    if (this.#readEnded && this.#writeEnded) this.#owner.finished(this.id);
    this.#owner.touch();
  }
}

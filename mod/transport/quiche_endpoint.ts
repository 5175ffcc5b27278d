/** One UDP socket with its connections of quiche: packets in and out, one timer for all. */
import { clearImmediate, setImmediate } from "node:timers";
import { hex } from "../base/bytes.ts";
import { PACKET_BYTES } from "./quiche_native.ts";
import type { QuicheConnection } from "./quiche_connection.ts";

/** Length of the connection ids that are given out here. */
export const ID_BYTES = 16;
const FREE_BUFFERS_MAX = 256;

/** An address as quiche writes it. */
export interface Host {
  host: string;
  port: number;
}

/** A socket, and what arrives there. */
export class QuicheEndpoint {
  readonly local: Host;
  readonly connections = new Map<string, QuicheConnection>();
  /** Packets of no known connection. */
  onStranger: (packet: Uint8Array, from: Host) => void = () => {};
  /** Called when a connection has ended. */
  onEnded: (connection: QuicheConnection) => void = () => {};
  readonly #socket: Deno.DatagramConn;
  readonly #loop: Promise<void>;
  readonly #free: Uint8Array[] = [];
  readonly #sends = new Set<Promise<unknown>>();
  #touched = new Set<QuicheConnection>();
  #immediate: ReturnType<typeof setImmediate> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerAt = Infinity;
  #closed = false;

  constructor({ hostname, port }: { hostname: string; port: number }) {
    this.#socket = Deno.listenDatagram({ transport: "udp", hostname, port });
    const address = this.#socket.addr as Deno.NetAddr;
    this.local = { host: address.hostname, port: address.port };
    this.#loop = this.#receiveAll();
  }

  async #receiveAll(): Promise<void> {
    const buffer = new Uint8Array(65_536);
    while (!this.#closed) {
      try {
        const [packet, from] = await this.#socket.receive(buffer);
        const { hostname, port } = from as Deno.NetAddr;
        this.#dispatch(packet, { host: hostname, port });
      } catch (error) {
        if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) return;
        // Others are news of a peer that is gone (ICMP): its connection times out.
      }
    }
  }

  #dispatch(packet: Uint8Array, from: Host): void {
    if (packet.length < 1 + ID_BYTES) return;
    const isLong = (packet[0]! & 0x80) !== 0;
    // A long header holds version (4) and the id's length before the id (RFC 9000 §17.2).
    const at = isLong ? 6 : 1;
    const known = !isLong || packet[5] === ID_BYTES
      ? this.connections.get(hex(packet.subarray(at, at + ID_BYTES)))
      : undefined;
    if (known) known.receive(packet, from);
    else if (isLong) this.onStranger(packet, from);
  }

  takeBuffer(): Uint8Array {
    return this.#free.pop() ?? new Uint8Array(PACKET_BYTES);
  }

  giveBuffer(buffer: Uint8Array): void {
    if (this.#free.length < FREE_BUFFERS_MAX) this.#free.push(buffer);
  }

  /** Sends the first `length` bytes; the buffer is this endpoint's again. */
  send(buffer: Uint8Array, length: number, to: Host): void {
    if (this.#closed) return;
    const address = { transport: "udp", hostname: to.host, port: to.port } as const;
    const done = () => {
      this.giveBuffer(buffer);
      this.#sends.delete(sending);
    };
    const sending = this.#socket.send(buffer.subarray(0, length), address).then(done, done);
    this.#sends.add(sending);
  }

  /** Resolves when what was sent so far is with the operating system. */
  async sent(): Promise<void> {
    await Promise.all(this.#sends);
  }

  schedule(connection: QuicheConnection): void {
    this.#touched.add(connection);
    if (!this.#closed) this.#immediate ??= setImmediate(() => this.#flush());
  }

  #flush(): void {
    this.#immediate = undefined;
    const touched = this.#touched;
    this.#touched = new Set();
    for (const connection of touched) connection.flush();
  }

  /** Wakes at `at` (performance.now()) at the latest. */
  arm(at: number): void {
    if (this.#closed || at >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(() => this.#tick(), Math.max(1, Math.ceil(at - performance.now())));
  }

  #tick(): void {
    this.#timerAt = Infinity;
    const now = performance.now();
    let next = Infinity;
    for (const connection of this.connections.values()) {
      if (connection.deadline <= now + 1) connection.expire(now);
      else next = Math.min(next, connection.deadline);
    }
    if (next < Infinity) this.arm(next);
  }

  forget(connection: QuicheConnection): void {
    this.connections.delete(connection.key);
    this.#touched.delete(connection);
    if (this.connections.size === 0) {
      clearTimeout(this.#timer);
      this.#timerAt = Infinity;
    }
    this.onEnded(connection);
  }

  /** Closes the socket after what is to be sent; connections have to have ended. Idempotent. */
  async close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      clearTimeout(this.#timer);
      clearImmediate(this.#immediate);
      await this.sent();
      this.#socket.close();
    }
    await this.#loop;
  }
}

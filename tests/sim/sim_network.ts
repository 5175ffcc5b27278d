/**
 * QUIC in memory, as far as programs see it: streams of bytes in order, which take their time each for itself, so
 * that what is sent on two of them arrives in any order; connections that are lost at any moment with all that was
 * under way, which either side notices when it does; and servers that do not answer.
 */
import type { NetAddress } from "../../mod/base/address.ts";
import type { Bytes } from "../../mod/base/bytes.ts";
import type { Clock } from "../../mod/base/clock.ts";
import { delay } from "../../mod/base/clock.ts";
import { AsyncQueue } from "../../mod/transport/async_queue.ts";
import { ConnectError } from "../../mod/transport/connect_error.ts";
import type { CloseReason, Connection, Stream } from "../../mod/transport/transport.ts";
import type { SimRandom } from "./sim_random.ts";

/** What goes wrong. */
export interface NetworkFaults {
  /** How long chunks take that are not late, at most. */
  readonly delayMsMax: number;
  /** Share of chunks with which the connection is lost. */
  readonly loss: number;
  /** Share of chunks that take up to {@link LATE_MS_MAX}. */
  readonly late: number;
}

/** Takes connections: a server that runs. */
export interface Acceptor {
  accept(connection: Connection): void;
}

const LATE_MS_MAX = 8_000;
/** A side that hears nothing more notices within this time. */
const NOTICE_MS_MAX = 15_000;
/** Unread bytes of one direction of a stream. */
const WINDOW_BYTES = 1 << 20;

const NO_REASON: CloseReason = { code: 0, reason: "", by: "transport" };

/** The network between clients and one server. */
export class SimNetwork {
  faults: NetworkFaults = { delayMsMax: 40, loss: 0, late: 0 };
  /** Who answers; null: nobody. */
  server: Acceptor | null = null;
  readonly #clock: Clock;
  readonly #random: SimRandom;
  readonly #links = new Set<Link>();

  constructor(clock: Clock, random: SimRandom) {
    this.#clock = clock;
    this.#random = random;
  }

  /** Connections that at least one side takes for alive. */
  get linkCount(): number {
    return this.#links.size;
  }

  /** A client at `address` connects. Rejects with ConnectError when nobody answers. */
  async connect(address: NetAddress): Promise<Connection> {
    await delay(this.#clock, this.delayMs());
    if (!this.server || this.#random.chance(this.faults.loss)) {
      await delay(this.#clock, this.#random.int(100, 3_000));
      throw new ConnectError("unreachable", "Nobody answers in the simulation");
    }
    const link = new Link(this, { clock: this.#clock, random: this.#random, address });
    this.#links.add(link);
    this.server.accept(link.server);
    return link.client;
  }

  /** The server's process is gone without a word: its sides of all connections are silent from now on. */
  serverGone(): void {
    this.server = null;
    for (const link of [...this.#links]) link.lose();
  }

  /** How long a chunk takes now. */
  delayMs(): number {
    const late = this.#random.chance(this.faults.late);
    return this.#random.int(1, late ? LATE_MS_MAX : this.faults.delayMsMax);
  }

  ended(link: Link): void {
    this.#links.delete(link);
  }
}

/** The two sides of a connection. */
class Link {
  readonly client: Side;
  readonly server: Side;
  readonly clock: Clock;
  readonly random: SimRandom;
  readonly network: SimNetwork;
  #lost = false;
  #open = 2;

  constructor(network: SimNetwork, options: { clock: Clock; random: SimRandom; address: NetAddress }) {
    this.network = network;
    this.clock = options.clock;
    this.random = options.random;
    this.client = new Side(this, { hostname: "10.9.9.9", port: 7000 });
    this.server = new Side(this, options.address);
  }

  get lost(): boolean {
    return this.#lost;
  }

  otherOf(side: Side): Side {
    return side === this.client ? this.server : this.client;
  }

  /** Nothing arrives any more; each side notices in its own time. */
  lose(): void {
    if (this.#lost) return;
    this.#lost = true;
    for (const side of [this.client, this.server]) {
      this.clock.after(this.random.int(1, NOTICE_MS_MAX), () => side.end({ ...NO_REASON, by: "timeout" }));
    }
  }

  sideEnded(): void {
    if (--this.#open === 0) this.network.ended(this);
  }
}

/** One side of a connection. */
class Side implements Connection {
  readonly closed: Promise<CloseReason>;
  readonly remoteAddress: NetAddress;
  readonly #link: Link;
  readonly #incoming = new AsyncQueue<Stream>();
  readonly #streams = new Set<StreamSide>();
  #resolveClosed!: (reason: CloseReason) => void;
  #ended = false;

  constructor(link: Link, remoteAddress: NetAddress) {
    this.#link = link;
    this.remoteAddress = remoteAddress;
    this.closed = new Promise((resolve) => this.#resolveClosed = resolve);
  }

  get isEnded(): boolean {
    return this.#ended;
  }

  async openStream(): Promise<Stream> {
    if (this.#ended) throw new Error("The connection has ended");
    const other = this.#link.otherOf(this);
    const [near, far] = [new StreamSide(this.#link, this), new StreamSide(this.#link, other)];
    near.other = far;
    far.other = near;
    this.#streams.add(near);
    // QUIC tells of a stream with its first bytes.
    far.onFirst = () => other.#took(far);
    return near;
  }

  #took(stream: StreamSide): void {
    if (this.#ended) return;
    this.#streams.add(stream);
    this.#incoming.push(stream);
  }

  incomingStreams(): AsyncIterable<Stream> {
    return this.#incoming;
  }

  close(code: number, reason: string): void {
    if (this.#ended) return;
    const other = this.#link.otherOf(this);
    const { lost, clock, network } = this.#link;
    if (!lost) clock.after(network.delayMs(), () => other.end({ code, reason, by: "peer" }));
    this.end({ code, reason, by: "local" });
  }

  /** The connection is over for this side. */
  end(reason: CloseReason): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#resolveClosed(reason);
    this.#incoming.end();
    for (const stream of this.#streams) stream.connectionEnded();
    this.#link.sideEnded();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close(0, "");
    await this.closed;
  }
}

/** One side of a stream: what it reads, and how it writes to the other. */
class StreamSide implements Stream {
  other!: StreamSide;
  onFirst: (() => void) | null = null;
  readonly #link: Link;
  readonly #side: Side;
  readonly #arrived: Bytes[] = [];
  #arrivedBytes = 0;
  #readEnded = false;
  #writeEnded = false;
  #wake: (() => void)[] = [];
  /** When the last of what this side wrote arrives: streams keep their order. */
  #lastArrival = 0;
  #unreadBytes = 0;

  constructor(link: Link, side: Side) {
    this.#link = link;
    this.#side = side;
  }

  async read(): Promise<Bytes | null> {
    while (this.#arrived.length === 0) {
      if (this.#readEnded) return null;
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
    const bytes = this.#arrived.shift()!;
    this.#arrivedBytes -= bytes.length;
    this.other.#wasRead(bytes.length);
    return bytes;
  }

  async write(bytes: Uint8Array): Promise<void> {
    const { random, network } = this.#link;
    if (this.#writeEnded || this.#side.isEnded) throw new Error("The stream has ended");
    this.#unreadBytes += bytes.length;
    // A chunk need not arrive in one piece.
    const cut = random.chance(0.1) ? random.int(0, bytes.length) : 0;
    const lose = random.chance(network.faults.loss);
    const loseBefore = lose && random.chance(0.5);
    if (loseBefore) this.#link.lose();
    for (const part of [bytes.slice(0, cut), bytes.slice(cut)]) {
      if (part.length > 0) this.#send(() => this.other.#arrive(part));
    }
    if (lose && !loseBefore) this.#send(() => this.#link.lose());
    while (this.#unreadBytes > WINDOW_BYTES) {
      if (this.#writeEnded || this.#side.isEnded) throw new Error("The stream has ended");
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  async closeWrite(): Promise<void> {
    if (this.#writeEnded) return;
    this.#writeEnded = true;
    this.#send(() => this.other.#endReading());
  }

  stopReading(): void {
    this.#endReading();
    this.#send(() => {
      this.other.#writeEnded = true;
      this.other.#wakeAll();
    });
  }

  abort(): void {
    this.stopReading();
    void this.closeWrite();
  }

  connectionEnded(): void {
    this.#writeEnded = true;
    this.#endReading();
  }

  /** Runs `arrival` on the other side after everything that was sent before, unless the connection is lost first. */
  #send(arrival: () => void): void {
    const { clock, network } = this.#link;
    const due = Math.max(this.#lastArrival, clock.monotonic() + network.delayMs());
    this.#lastArrival = due;
    clock.after(due - clock.monotonic(), () => {
      if (!this.#link.lost && !this.other.#side.isEnded) arrival();
    });
  }

  #arrive(bytes: Bytes): void {
    if (this.#readEnded) return;
    this.#arrived.push(bytes);
    this.#arrivedBytes += bytes.length;
    this.onFirst?.();
    this.onFirst = null;
    this.#wakeAll();
  }

  #wasRead(count: number): void {
    this.#unreadBytes -= count;
    this.#wakeAll();
  }

  #endReading(): void {
    this.#readEnded = true;
    this.#wakeAll();
  }

  #wakeAll(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}

/**
 * A bad network on loopback: it passes UDP packets between clients and one server and, as its seed says, loses,
 * delays, reorders, doubles and damages them, lets only so many through in a second, is cut, or gives its clients
 * other addresses, as a NAT does that forgot them. Nothing it does is seen by either side but in the packets.
 */
import { prng } from "./prng.ts";

/** What happens to packets, in both directions. Shares are of all packets. */
export interface NetworkConditions {
  /** Share that never arrives. */
  readonly loss: number;
  /** How long each takes. */
  readonly delayMs: number;
  /** And how much longer some take: up to this. Alone it reorders little, as a queue would. */
  readonly jitterMs: number;
  /** Share that those behind it overtake. */
  readonly reordered: number;
  /** Share that arrives twice. */
  readonly doubled: number;
  /** Share of which a byte is changed. */
  readonly damaged: number;
  /** Bytes in a second in each direction; what does not fit waits, and beyond {@link QUEUE_MS_MAX} is lost. */
  readonly bytesPerSecond: number;
}

/** A network that does nothing wrong. */
const GOOD: NetworkConditions = {
  loss: 0,
  delayMs: 0,
  jitterMs: 0,
  reordered: 0,
  doubled: 0,
  damaged: 0,
  bytesPerSecond: Infinity,
};
const QUEUE_MS_MAX = 500;
const OVERTAKEN_MS = 60;

/** A client as the server sees it: one socket, until the NAT forgets it. */
interface Flow {
  readonly client: Deno.NetAddr;
  socket: Deno.DatagramConn;
}

/** How much of what. */
interface Counts {
  passed: number;
  lost: number;
  doubled: number;
  damaged: number;
  reordered: number;
}

/** `await using proxy = new UdpProxy(serverPort, { seed: 1, loss: 0.2 })` */
export class UdpProxy implements AsyncDisposable {
  /** Where clients find the server. */
  readonly port: number;
  /** What happened so far, both directions together. */
  readonly counts: Counts = { passed: 0, lost: 0, doubled: 0, damaged: 0, reordered: 0 };
  readonly #random: () => number;
  readonly #server: Deno.NetAddr;
  readonly #socket: Deno.DatagramConn;
  readonly #flows = new Map<number, Flow>();
  readonly #loops = new Set<Promise<void>>();
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  /** When the last packet of each direction has passed the bottleneck. */
  readonly #busyUntil = { up: 0, down: 0 };
  #conditions: NetworkConditions;
  #cut = false;
  #closed = false;

  constructor(serverPort: number, options: { seed: number } & Partial<NetworkConditions>) {
    const { seed, ...conditions } = options;
    this.#random = prng(seed);
    this.#conditions = { ...GOOD, ...conditions };
    this.#server = { transport: "udp", hostname: "127.0.0.1", port: serverPort };
    this.#socket = openSocket();
    this.port = (this.#socket.addr as Deno.NetAddr).port;
    this.#loop(this.#socket, (packet, from) => this.#up(packet, from));
  }

  /** From now on the network is like this. */
  become(conditions: Partial<NetworkConditions>): void {
    this.#conditions = { ...GOOD, ...conditions };
  }

  /** Nothing passes any more; what is under way is lost. */
  cut(): void {
    this.#cut = true;
  }

  /** The network is as it was before {@link cut}. */
  heal(): void {
    this.#cut = false;
  }

  /** The server sees every client at another address from now on. */
  rebind(): void {
    for (const flow of this.#flows.values()) {
      const former = flow.socket;
      flow.socket = this.#openFlow(flow.client);
      former.close();
    }
  }

  #up(packet: Uint8Array, client: Deno.NetAddr): void {
    let flow = this.#flows.get(client.port);
    if (!flow) {
      flow = { client, socket: this.#openFlow(client) };
      this.#flows.set(client.port, flow);
    }
    this.#pass(packet, "up", (bytes) => flow.socket.send(bytes, this.#server));
  }

  /** The socket by which the server knows the client. */
  #openFlow(client: Deno.NetAddr): Deno.DatagramConn {
    const socket = openSocket();
    this.#loop(socket, (packet) => this.#pass(packet, "down", (bytes) => this.#socket.send(bytes, client)));
    return socket;
  }

  #loop(socket: Deno.DatagramConn, onPacket: (packet: Uint8Array, from: Deno.NetAddr) => void): void {
    const loop = (async () => {
      for await (const [packet, from] of socket) onPacket(packet, from as Deno.NetAddr);
    })();
    this.#loops.add(loop);
    loop.finally(() => this.#loops.delete(loop));
  }

  /** One packet meets its fate. */
  #pass(packet: Uint8Array, way: "up" | "down", send: (packet: Uint8Array) => Promise<number>): void {
    const { loss, doubled, damaged } = this.#conditions;
    const waitMs = this.#queueMs(packet.length, way);
    if (this.#cut || this.#happens(loss) || waitMs > QUEUE_MS_MAX) {
      this.counts.lost++;
      return;
    }
    if (this.#happens(damaged)) {
      this.counts.damaged++;
      packet[Math.floor(this.#random() * packet.length)]! ^= 1 + Math.floor(this.#random() * 255);
    }
    const copies = this.#happens(doubled) ? 2 : 1;
    if (copies === 2) this.counts.doubled++;
    for (let copy = 0; copy < copies; copy++) this.#later(waitMs + this.#travelMs(), packet, send);
  }

  #later(delayMs: number, packet: Uint8Array, send: (packet: Uint8Array) => Promise<number>): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (this.#closed || this.#cut) return void this.counts.lost++;
      this.counts.passed++;
      send(packet).catch(() => this.counts.lost++); // the socket was closed by rebind()
    }, delayMs);
    this.#timers.add(timer);
  }

  /** How long the packet waits at the bottleneck. */
  #queueMs(bytes: number, way: "up" | "down"): number {
    const now = performance.now();
    const waitMs = Math.max(0, this.#busyUntil[way] - now);
    if (waitMs <= QUEUE_MS_MAX) {
      this.#busyUntil[way] = now + waitMs + 1000 * bytes / this.#conditions.bytesPerSecond;
    }
    return waitMs;
  }

  #travelMs(): number {
    const { delayMs, jitterMs, reordered } = this.#conditions;
    const overtaken = this.#happens(reordered);
    if (overtaken) this.counts.reordered++;
    return delayMs + this.#random() * jitterMs + (overtaken ? OVERTAKEN_MS : 0);
  }

  #happens(share: number): boolean {
    return this.#random() < share;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#socket.close();
    for (const { socket } of this.#flows.values()) socket.close();
    await Promise.all(this.#loops);
  }
}

function openSocket(): Deno.DatagramConn {
  return Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
}

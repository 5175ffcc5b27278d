/** A relay of UDP packets between one client and one server that can be cut: a peer that vanishes without a word. */

/** Listens on loopback and forwards to `serverPort` until cut. */
export class UdpRelay implements AsyncDisposable {
  readonly port: number;
  /** Resolves when the first packet of the client was passed on. */
  readonly clientSpoke: Promise<void>;
  #onClientSpoke = () => {};
  readonly #socket: Deno.DatagramConn;
  readonly #server: Deno.NetAddr;
  readonly #loop: Promise<void>;
  #client: Deno.Addr | undefined;
  #cut = false;
  #muted = false;

  constructor(serverPort: number) {
    this.#server = { transport: "udp", hostname: "127.0.0.1", port: serverPort };
    this.#socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
    this.port = (this.#socket.addr as Deno.NetAddr).port;
    this.clientSpoke = new Promise((resolve) => this.#onClientSpoke = resolve);
    this.#loop = this.#relay();
  }

  /** From now on every packet is lost. */
  cut(): void {
    this.#cut = true;
  }

  /** From now on the server's packets are lost, the client's arrive. */
  muteServer(): void {
    this.#muted = true;
  }

  /** The server's packets arrive again. */
  unmuteServer(): void {
    this.#muted = false;
  }

  async #relay(): Promise<void> {
    for await (const [packet, from] of this.#socket) {
      if (this.#cut) continue;
      const fromServer = (from as Deno.NetAddr).port === this.#server.port;
      if (fromServer && this.#muted) continue;
      if (!fromServer) this.#client = from;
      const to = fromServer ? this.#client : this.#server;
      if (to) await this.#socket.send(packet, to).catch(() => 0);
      if (!fromServer) this.#onClientSpoke();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    await this.#loop;
  }
}

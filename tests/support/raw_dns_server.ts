/** A name server on loopback, over UDP and TCP at one port, that answers with whatever bytes it is given. */
import { readName } from "./dns_server.ts";

const PORT_TRIES = 100;
const TRUNCATED = 0x02;
const SERVED_BYTES_MAX = 0xffff;

/** An answer: what a datagram says before it, and the message itself, of which the query's id and question come first. */
export interface RawAnswer {
  /** Datagrams that come first, after the query's id. */
  readonly before: readonly Uint8Array[];
  /** The two bytes of flags. */
  readonly flags: readonly [number, number];
  /** Records that the header counts as answers. */
  readonly count: number;
  /** What follows the question. */
  readonly body: Uint8Array;
  /** By TCP, a datagram only says that it is too long for one. */
  readonly overTcp: boolean;
}

/** Answers every query with {@link answer} until it is disposed. */
export class RawDnsServer implements AsyncDisposable {
  readonly address: { hostname: string; port: number };
  answer: RawAnswer | null = null;
  readonly #udp: Deno.DatagramConn;
  readonly #tcp: Deno.TcpListener;
  readonly #loops: Promise<void>[];

  constructor() {
    [this.#tcp, this.#udp] = bindBoth();
    const { hostname, port } = this.#tcp.addr;
    this.address = { hostname, port };
    this.#loops = [this.#serveUdp(), this.#serveTcp()];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#udp.close();
    this.#tcp.close();
    await Promise.all(this.#loops);
  }

  async #serveUdp(): Promise<void> {
    for await (const [query, from] of this.#udp) {
      const { answer } = this;
      if (!answer) continue;
      for (const bytes of answer.before) {
        await this.#udp.send(new Uint8Array([...query.subarray(0, 2), ...bytes]), from);
      }
      await this.#udp.send(messageOf(query, answer.overTcp ? truncated(answer) : answer), from);
    }
  }

  async #serveTcp(): Promise<void> {
    for await (const connection of this.#tcp) {
      try {
        const query = new Uint8Array(512);
        const length = await connection.read(query);
        if (!this.answer || length === null) continue;
        const message = messageOf(query.subarray(2, length), this.answer);
        const framed = new Uint8Array([message.length >> 8, message.length & 255, ...message]);
        for (let at = 0; at < framed.length;) at += await connection.write(framed.subarray(at));
      } catch {
        // Who asked is gone.
      } finally {
        connection.close();
      }
    }
  }
}

/** Sockets of both kinds at one port. */
function bindBoth(): [Deno.TcpListener, Deno.DatagramConn] {
  const hostname = "127.0.0.1";
  for (let tries = 1;; tries++) {
    const tcp = Deno.listen({ hostname, port: 0 });
    try {
      return [tcp, Deno.listenDatagram({ transport: "udp", hostname, port: tcp.addr.port })];
    } catch (error) {
      tcp.close();
      if (!(error instanceof Deno.errors.AddrInUse) || tries === PORT_TRIES) throw error;
    }
  }
}

function truncated({ flags, ...answer }: RawAnswer): RawAnswer {
  return { ...answer, flags: [flags[0] | TRUNCATED, flags[1]], count: 0, body: new Uint8Array() };
}

function messageOf(query: Uint8Array, { flags, count, body }: RawAnswer): Uint8Array {
  const question = query.subarray(12, readName(query).end + 4);
  const header = [query[0]!, query[1]!, ...flags, 0, 1, count >> 8, count & 255, 0, 0, 0, 0];
  const message = new Uint8Array(header.length + question.length + body.length);
  message.set(header);
  message.set(question, header.length);
  message.set(body, header.length + question.length);
  return message.subarray(0, SERVED_BYTES_MAX);
}

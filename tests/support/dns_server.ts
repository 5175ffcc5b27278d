/** A name server on loopback that knows SRV records and nothing else; counts what it is asked. */

/** A record of the server's zone. */
export interface SrvLine {
  readonly priority: number;
  readonly weight: number;
  readonly port: number;
  readonly target: string;
}

const TYPE_SRV = 33;
const NAME_ERROR = 3;

/** Answers until it is disposed. */
export class DnsServer implements AsyncDisposable {
  readonly records = new Map<string, readonly SrvLine[]>();
  readonly address: { hostname: string; port: number };
  queries = 0;
  readonly #socket: Deno.DatagramConn;
  readonly #loop: Promise<void>;

  constructor() {
    this.#socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
    const { hostname, port } = this.#socket.addr as Deno.NetAddr;
    this.address = { hostname, port };
    this.#loop = this.#serve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    await this.#loop;
  }

  async #serve(): Promise<void> {
    for await (const [query, from] of this.#socket) await this.#socket.send(this.#answer(query), from);
  }

  #answer(query: Uint8Array): Uint8Array {
    const { name, end } = readName(query);
    const isSrv = (query[end]! << 8 | query[end + 1]!) === TYPE_SRV;
    const known = this.records.get(name);
    if (isSrv) this.queries++;
    const lines = isSrv ? known ?? [] : [];
    const question = query.subarray(12, end + 4);
    const code = known ? 0 : NAME_ERROR;
    // Response, recursion desired and available.
    const header = [query[0]!, query[1]!, 0x81, 0x80 | code, 0, 1, 0, lines.length, 0, 0, 0, 0];
    return new Uint8Array([...header, ...question, ...lines.flatMap(srvBytes)]);
  }
}

/** The question's name and where its type begins. */
export function readName(query: Uint8Array): { name: string; end: number } {
  const labels: string[] = [];
  let at = 12;
  while (query[at]! > 0) {
    labels.push(new TextDecoder().decode(query.subarray(at + 1, at + 1 + query[at]!)));
    at += 1 + query[at]!;
  }
  return { name: labels.join(".").toLowerCase(), end: at + 1 };
}

function srvBytes({ priority, weight, port, target }: SrvLine): number[] {
  const labels = target.split(".").flatMap((label) => [label.length, ...new TextEncoder().encode(label)]);
  const data = [...[priority, weight, port].flatMap((value) => [value >> 8, value & 255]), ...labels, 0];
  // A pointer to the question's name, type, class IN, 60 s to live.
  return [0xc0, 12, 0, TYPE_SRV, 0, 1, 0, 0, 0, 60, data.length >> 8, data.length & 255, ...data];
}

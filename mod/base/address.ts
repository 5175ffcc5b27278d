/** Network addresses: shortened for logs, grouped for limits. */

/** An address and a port as the transport reports them. */
export interface NetAddress {
  readonly hostname: string;
  readonly port: number;
}

/** `host:port`, an IPv6 address in brackets: as it is given to `--server`. */
export function addressText({ hostname, port }: NetAddress): string {
  return hostname.includes(":") ? `[${hostname.replace(/^\[(.*)\]$/, "$1")}]:${port}` : `${hostname}:${port}`;
}

/** The address in `host:port`, IPv6 in brackets; undefined when it is none. */
export function tryParseAddress(text: string): NetAddress | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  return match && port <= 65535 ? { hostname: (match[1] ?? match[2])!, port } : undefined;
}

/** The groups of an IPv6 address as eight numbers; IPv4-mapped tails included. Undefined when it is not IPv6. */
function ipv6Groups(address: string): number[] | undefined {
  const bare = address.split("%")[0] ?? "";
  const halves = bare.split("::");
  if (halves.length > 2) return undefined;
  const parse = (half: string | undefined): number[] | undefined => {
    if (!half) return [];
    const groups: number[] = [];
    for (const part of half.split(":")) {
      if (part.includes(".")) {
        const octets = ipv4Octets(part);
        if (!octets) return undefined;
        groups.push(octets[0]! * 256 + octets[1]!, octets[2]! * 256 + octets[3]!);
      } else if (/^[0-9a-f]{1,4}$/i.test(part)) groups.push(parseInt(part, 16));
      else return undefined;
    }
    return groups;
  };
  const head = parse(halves[0]);
  const tail = halves.length === 2 ? parse(halves[1]) : [];
  if (!head || !tail) return undefined;
  if (halves.length === 1) return head.length === 8 ? head : undefined;
  if (head.length + tail.length > 7) return undefined;
  return [...head, ...new Array<number>(8 - head.length - tail.length).fill(0), ...tail];
}

function ipv4Octets(address: string): number[] | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(address);
  if (!match) return undefined;
  const octets = match.slice(1).map(Number);
  return octets.every((octet) => octet < 256) ? octets : undefined;
}

/** IPv4 address inside `::ffff:0:0/96`, or undefined. */
function mappedIpv4(groups: readonly number[]): number[] | undefined {
  const mapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff;
  return mapped ? [groups[6]! >> 8, groups[6]! & 255, groups[7]! >> 8, groups[7]! & 255] : undefined;
}

function network(address: string, ipv4Bits: 24 | 32, ipv6GroupCount: number): string {
  const groups = ipv6Groups(address);
  const octets = groups ? mappedIpv4(groups) : ipv4Octets(address);
  if (octets) {
    return ipv4Bits === 32 ? octets.join(".") : `${octets.slice(0, 3).join(".")}.0/24`;
  }
  if (!groups) return "unknown";
  const head = groups.slice(0, ipv6GroupCount).map((group) => group.toString(16)).join(":");
  return `${head}::/${ipv6GroupCount * 16}`;
}

/** For logs: /24 of an IPv4 address, /48 of an IPv6 one. A full address is never logged. */
export function maskAddress(address: string): string {
  return network(address, 24, 3);
}

/** For limits: the IPv4 address, or the /64 of an IPv6 one. */
export function limitKey(address: string): string {
  return network(address, 32, 4);
}

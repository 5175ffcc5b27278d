/** Where a host is: what every engine asks before it connects. */
import { lookup } from "node:dns/promises";
import { ConnectError } from "./connect_error.ts";
import { isIpAddress, normalHost } from "./host_names.ts";

/** The IP addresses of a host. Throws ConnectError `unreachable` when the name has none. */
export async function resolveHost(hostname: string): Promise<string[]> {
  const host = normalHost(hostname);
  if (isIpAddress(host)) return [host];
  // Always both, whatever the resolver says (RFC 6761 §6.3): the server may listen at only one of them.
  if (host === "localhost") return ["127.0.0.1", "::1"];
  try {
    return (await lookup(host, { all: true })).map((entry) => entry.address);
  } catch (cause) {
    throw new ConnectError("unreachable", `The name ${hostname} has no address`, { cause });
  }
}

/** How an operator names another server: `domain`, found by DNS, or `domain=host:port`. */
import { addressText, type NetAddress, tryParseAddress } from "./address.ts";
import { tryNormaliseDomain } from "./user_address.ts";

/** Another server on the list of peers. */
export interface PeerEntry {
  /** In normal form. */
  readonly domain: string;
  /** Where it listens; null: SRV records of the domain say so. */
  readonly address: NetAddress | null;
}

/** The entry that somebody wrote; undefined when it is none. */
export function tryParsePeerEntry(text: string): PeerEntry | undefined {
  const at = text.indexOf("=");
  const domain = tryNormaliseDomain((at < 0 ? text : text.slice(0, at)).trim());
  if (domain === undefined) return undefined;
  if (at < 0) return { domain, address: null };
  const address = tryParseAddress(text.slice(at + 1).trim());
  return address && address.port > 0 ? { domain, address } : undefined;
}

/** The entry as it is written. */
export function peerEntryText({ domain, address }: PeerEntry): string {
  return address === null ? domain : `${domain}=${addressText(address)}`;
}

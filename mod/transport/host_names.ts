/** Host names and IP addresses as certificates name them (RFC 5280 §4.2.1.6, RFC 9525). */
import { isIP } from "node:net";

/** A host without brackets, zone and trailing dot, in lower case; IP addresses in their shortest form. */
export function normalHost(host: string): string {
  const bare = host.replace(/^\[(.*)\]$/, "$1").replace(/%.*$/, "").replace(/\.$/, "").toLowerCase();
  if (isIP(bare) !== 6) return bare;
  return new URL(`http://[${bare}]`).hostname.slice(1, -1);
}

/** Is it an IP address (and not a DNS name)? */
export function isIpAddress(host: string): boolean {
  return isIP(normalHost(host)) !== 0;
}

/** The IPv4 address inside an IPv4-mapped IPv6 one (`::ffff:192.0.2.1`); anything else unchanged. */
export function unmapIpv4(address: string): string {
  const match = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  return match?.[1] ?? address;
}

/**
 * Does a certificate's name stand for this host? IP addresses match only IP names. A wildcard stands for exactly
 * one left-most label and never for a name with less than two further labels.
 */
export function nameMatches(certificateName: string, host: string): boolean {
  const name = normalHost(certificateName);
  const wanted = normalHost(host);
  if (isIpAddress(wanted) || isIpAddress(name)) return name === wanted;
  if (!name.startsWith("*.")) return name === wanted;
  const suffix = name.slice(1);
  const label = wanted.slice(0, -suffix.length);
  return suffix.split(".").length > 2 && wanted.endsWith(suffix) && label.length > 0 && !label.includes(".");
}

/**
 * Addresses of users that span servers: `user`, or `user@domain` when the user is on another server. One normal form
 * of each, so that an address is unique and means the same to client, command line and server.
 */
import { QpqError } from "./errors.ts";
import { tryNormaliseUserName } from "./user_name.ts";

/** Most characters of a domain (RFC 1035 §2.3.4, without the dot at the end). */
export const DOMAIN_CHARACTERS_MAX = 253;

/** Letters, digits and hyphens inside, at most 63 (RFC 1123 §2.1). */
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** A user and the server that has the account. */
export interface UserAddress {
  /** In normal form (user_name.ts). */
  readonly userName: string;
  /** In normal form; empty: the server of whoever reads the address. */
  readonly domain: string;
}

/**
 * The normal form (ASCII, lower case, no dot at the end) of a server's domain; undefined when it is none. Other letters
 * come as IDNA A-labels (`xn--…`). A last label of digits only would be taken for an IPv4 address, so it is refused.
 */
export function tryNormaliseDomain(typed: string): string | undefined {
  // Only A–Z are folded: toLowerCase() would let other letters (the Kelvin sign) become ASCII ones.
  const folded = typed.replace(/\.$/, "").replace(/[A-Z]/g, (letter) => letter.toLowerCase());
  if (folded.length > DOMAIN_CHARACTERS_MAX) return undefined;
  const labels = folded.split(".");
  if (!labels.every((label) => LABEL.test(label)) || /^\d+$/.test(labels.at(-1)!)) return undefined;
  return folded;
}

/** The address that somebody typed; undefined when it is none. */
export function tryParseUserAddress(typed: string): UserAddress | undefined {
  const at = typed.indexOf("@");
  const userName = tryNormaliseUserName(at < 0 ? typed : typed.slice(0, at));
  const domain = at < 0 ? "" : tryNormaliseDomain(typed.slice(at + 1));
  return userName === undefined || domain === undefined ? undefined : { userName, domain };
}

/** Like {@link tryParseUserAddress}, but throws `userNameInvalid`. */
export function parseUserAddress(typed: string): UserAddress {
  const address = tryParseUserAddress(typed);
  if (!address) {
    throw new QpqError("userNameInvalid", `Cannot use an address of ${typed.length} characters: not a user`);
  }
  return address;
}

/** `user@domain`; `user` on a server without a domain, and for the reader's own one when its domain is left empty. */
export function userAddressText({ userName, domain }: UserAddress): string {
  return domain === "" ? userName : `${userName}@${domain}`;
}

/** The domain in a credential, a GroupContext and the like: in normal form, or empty. Undefined for anything else. */
export function readDomain(bytes: Uint8Array): string | undefined {
  if (bytes.length > DOMAIN_CHARACTERS_MAX) return undefined;
  const text = String.fromCharCode(...bytes);
  return text === "" || tryNormaliseDomain(text) === text ? text : undefined;
}

/** `domain` as somebody on the server `own` has to write it: empty for that server itself. */
export function foreignDomain(domain: string, own: string): string {
  return domain === own ? "" : domain;
}

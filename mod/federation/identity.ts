/**
 * What this server shows to other servers, and whom it believes: certificate, key, CA set and revocation lists, which
 * change together. Chains are judged against the CA set only, never against public roots.
 */
import type { Bytes } from "../base/bytes.ts";
import { messageOf } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { RevocationLists } from "../transport/crl.ts";
import { signWithLeafKey } from "../transport/leaf_key.ts";
import { type CertificateInfo, chainPem, inspectCertificate, verifyChain } from "../transport/tls.ts";
import type { ServerCertificate } from "../transport/transport.ts";
import { PeerRefused } from "./refusal.ts";

const log = logger("federation");

/** Certificates in a chain that a peer sends. */
export const CHAIN_LENGTH_MAX = 8;

/** The files of an identity, PEM. */
export interface IdentityPems extends ServerCertificate {
  readonly caPem: string;
  /** Null: nothing is revoked. */
  readonly crlPem: string | null;
}

/** A chain that was found good; asked again later, dates and lists may have changed. */
export interface PeerChain {
  readonly domain: string;
  /** Leaf first. */
  readonly chainDer: readonly Uint8Array[];
}

/** One version of the identity. */
export class FederationIdentity {
  readonly pems: IdentityPems;
  readonly info: CertificateInfo;
  readonly #lists: RevocationLists | null;

  private constructor(pems: IdentityPems, lists: RevocationLists | null) {
    this.pems = pems;
    this.info = inspectCertificate(pems.certificatePem);
    this.#lists = lists;
  }

  /** Reads it; throws TypeError when it cannot be read. An outdated revocation list is used, and warned about. */
  static async read(pems: IdentityPems, now: number): Promise<FederationIdentity> {
    const { caPem, crlPem } = pems;
    const lists = crlPem === null ? null : await RevocationLists.read(crlPem, { caPem, now });
    if (lists && lists.nextUpdate < now) {
      log.warn("the revocation list of federation is outdated since {date}; it is still used", {
        date: new Date(lists.nextUpdate).toISOString(),
      });
    }
    return new FederationIdentity(pems, lists);
  }

  /** SHA-256 of the leaf's DER. */
  get leafSha256(): Bytes {
    return this.info.leafSha256;
  }

  /** Signs with the certificate's key. */
  sign(content: Bytes): Promise<Bytes> {
    return signWithLeafKey(this.pems, content);
  }

  /** May this chain speak for this domain now? Throws {@link PeerRefused}. */
  async verifyPeerChain({ domain, chainDer }: PeerChain, now: number): Promise<void> {
    if (chainDer.length > CHAIN_LENGTH_MAX) {
      throw new PeerRefused("protocol", `A chain of ${chainDer.length} certificates is too long`);
    }
    const verdict = await verifyChain({ chainDer, caPem: this.pems.caPem, hostname: domain, now });
    if (!verdict.ok) throw new PeerRefused(REASONS[verdict.problem], verdict.reason);
    // A wildcard would let one server speak for all domains below one.
    if (!namesOf(chainDer).includes(domain)) {
      throw new PeerRefused("wrong_name", `The certificate does not name ${domain} itself`);
    }
    const revoked = this.#lists?.revokedIn(chainDer) ?? null;
    if (revoked !== null) throw new PeerRefused("revoked", revoked);
  }
}

const REASONS = {
  dates: "expired",
  name: "wrong_name",
  unknownCa: "unknown_ca",
  unusable: "protocol",
} as const;

function namesOf(chainDer: readonly Uint8Array[]): readonly string[] {
  return inspectCertificate(chainPem(chainDer.slice(0, 1))).names;
}

/** A connection that was accepted just before a change was served with the former certificate. */
const FORMER_MS = 60_000;

/** The identity of the moment, as it changes. */
export class Identities {
  readonly #now: () => number;
  readonly #listeners = new Set<(identity: FederationIdentity) => void>();
  #current: FederationIdentity;
  #former: { leafSha256: Bytes; until: number } | null = null;

  constructor(current: FederationIdentity, clock: { monotonic(): number }) {
    this.#current = current;
    this.#now = () => clock.monotonic();
  }

  /** For new links. */
  get current(): FederationIdentity {
    return this.#current;
  }

  /** Leaves that a connection made now may have been served with. */
  servedLeaves(): Bytes[] {
    const former = this.#former && this.#now() < this.#former.until ? [this.#former.leafSha256] : [];
    return [this.#current.leafSha256, ...former];
  }

  /** Counts from now on; open links live on as long as their certificates are good. */
  replace(identity: FederationIdentity): void {
    this.#former = { leafSha256: this.#current.leafSha256, until: this.#now() + FORMER_MS };
    this.#current = identity;
    for (const listener of this.#listeners) {
      try {
        listener(identity);
      } catch (error) {
        log.error("the federation certificate is not used everywhere: {error}", { error: messageOf(error) });
      }
    }
  }

  /** Told of every change; the result ends it. */
  onReplaced(listener: (identity: FederationIdentity) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}

/** Revocation lists (RFC 5280 §5): which certificates a CA has taken back. */
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import { copy } from "../base/bytes.ts";
import { messageOf } from "../base/errors.ts";
import { inspectCertificate } from "./tls.ts";

const PEM_BLOCK = /-----BEGIN (X509 )?CRL-----[\s\S]*?-----END (X509 )?CRL-----/g;

x509.cryptoProvider.set(crypto);

/** The lists of a CA set. */
export class RevocationLists {
  /** Serial numbers by issuer. */
  readonly #revoked = new Map<string, Set<string>>();
  /** When the first of them should have been replaced, Unix ms; Infinity when none says so. */
  readonly nextUpdate: number;
  readonly #count: number;

  private constructor(lists: readonly x509.X509Crl[]) {
    this.#count = lists.length;
    this.nextUpdate = Math.min(...lists.map((list) => list.nextUpdate?.getTime() ?? Infinity));
    for (const list of lists) {
      const serials = this.#revoked.get(list.issuer) ?? new Set();
      for (const { serialNumber } of list.entries) serials.add(normalSerial(serialNumber));
      this.#revoked.set(list.issuer, serials);
    }
  }

  /**
   * Reads the lists of a PEM; each has to be signed by a CA of `caPem`. Throws TypeError with what is wrong. One that
   * should have been replaced by now is taken: what was revoked stays so.
   */
  static async read(
    crlPem: string,
    { caPem, now }: { caPem: string; now: number },
  ): Promise<RevocationLists> {
    const blocks = crlPem.match(PEM_BLOCK);
    if (!blocks) {
      throw new TypeError("There is no revocation list in the PEM (-----BEGIN X509 CRL----- is missing)");
    }
    const cas = inspectCertificate(caPem).chainDer.map((der) => new x509.X509Certificate(copy(der)));
    return new RevocationLists(await Promise.all(blocks.map((block) => readOne(block, { cas, now }))));
  }

  /** Lists. */
  get count(): number {
    return this.#count;
  }

  /** Certificates in them. */
  get size(): number {
    return [...this.#revoked.values()].reduce((sum, serials) => sum + serials.size, 0);
  }

  /** Which certificate (DER) of the chain is revoked, in words; null when none is. */
  revokedIn(chainDer: readonly Uint8Array[]): string | null {
    for (const der of chainDer) {
      const { issuer, serialNumber, subject } = new x509.X509Certificate(copy(der));
      if (this.#revoked.get(issuer)?.has(normalSerial(serialNumber))) {
        return `The certificate of ${subject} (serial ${serialNumber}) is revoked`;
      }
    }
    return null;
  }
}

async function readOne(
  block: string,
  { cas, now }: { cas: readonly x509.X509Certificate[]; now: number },
): Promise<x509.X509Crl> {
  let list: x509.X509Crl;
  try {
    list = new x509.X509Crl(block);
  } catch (cause) {
    throw new TypeError(`A revocation list cannot be read: ${messageOf(cause)}`, { cause });
  }
  if (list.thisUpdate.getTime() > now) {
    throw new TypeError(
      `The revocation list of ${list.issuer} is of the future: ${list.thisUpdate.toISOString()}`,
    );
  }
  for (const ca of cas) if (await isSignedBy(list, ca)) return list;
  throw new TypeError(`The revocation list of ${list.issuer} is not signed by a CA of the set`);
}

async function isSignedBy(list: x509.X509Crl, ca: x509.X509Certificate): Promise<boolean> {
  if (list.issuer !== ca.subject) return false;
  const usages = ca.getExtension(x509.KeyUsagesExtension);
  if (usages && !(usages.usages & x509.KeyUsageFlags.cRLSign)) return false;
  try {
    return await list.verify({ publicKey: ca });
  } catch {
    return false; // a kind of key that WebCrypto does not know proves nothing
  }
}

/** Hexadecimal without leading zeros. */
function normalSerial(serial: string): string {
  return serial.toLowerCase().replace(/^0+(?=.)/, "");
}

/** Certificates for tests, made once per test process. */
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import { copy } from "../../mod/base/bytes.ts";
import { chainPem, inspectCertificate, makeCa, makeLeaf } from "../../mod/transport/tls.ts";
import type { ServerCertificate } from "../../mod/transport/transport.ts";

/** A CA, two leaves of it for the same loopback names, and a CA that signed neither. */
export interface TestCertificates {
  readonly ca: ServerCertificate;
  readonly leaf: ServerCertificate;
  readonly nextLeaf: ServerCertificate;
  readonly otherCa: ServerCertificate;
}

let made: Promise<TestCertificates> | undefined;

/** The certificates; names are localhost, 127.0.0.1 and ::1. */
export function testCertificates(): Promise<TestCertificates> {
  return made ??= make();
}

async function make(): Promise<TestCertificates> {
  const now = Date.now();
  const ca = await makeCa({ commonName: "Test CA", now });
  const names = ["localhost", "127.0.0.1", "::1"];
  return {
    ca,
    leaf: await makeLeaf({ ca, names, now }),
    nextLeaf: await makeLeaf({ ca, names, now }),
    otherCa: await makeCa({ commonName: "Other CA", now }),
  };
}

/** A certificate, its key and its CA as an operator brings them. */
export async function foreignPair(): Promise<
  { certificatePem: string; privateKeyPem: string; caPem: string }
> {
  const now = Date.now();
  const ca = await makeCa({ commonName: "An operator's CA", now });
  const leaf = await makeLeaf({ ca, names: ["localhost", "127.0.0.1"], now });
  return { ...leaf, caPem: ca.certificatePem };
}

/** DER of every certificate of a PEM. */
export function chainDerOf(pem: string): readonly Uint8Array[] {
  return inspectCertificate(pem).chainDer;
}

/** The PEM of a list that revokes certificates (DER) of `ca`. */
export async function makeCrl(
  crl: {
    ca: { certificatePem: string; privateKeyPem: string };
    revokedDer: readonly Uint8Array[];
    now: number;
    lifeMs: number;
  },
): Promise<string> {
  const ca = new x509.X509Certificate(
    chainPem(inspectCertificate(crl.ca.certificatePem).chainDer.slice(0, 1)),
  );
  const pkcs8 = x509.PemConverter.decodeFirst(crl.ca.privateKeyPem);
  const algorithm = { name: "ECDSA", namedCurve: "P-256" };
  const list = await x509.X509CrlGenerator.create({
    issuer: ca.subject,
    thisUpdate: new Date(crl.now),
    nextUpdate: new Date(crl.now + crl.lifeMs),
    entries: crl.revokedDer.map((der) => ({
      serialNumber: new x509.X509Certificate(copy(der)).serialNumber,
      revocationDate: new Date(crl.now),
    })),
    signingAlgorithm: { name: "ECDSA", hash: "SHA-256" },
    signingKey: await crypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]),
  });
  return `${list.toString("pem").trim().replaceAll(" CRL-", " X509 CRL-")}\n`;
}

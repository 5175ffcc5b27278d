/** Certificates for tests, made once per test process. */
import { makeCa, makeLeaf } from "../../mod/transport/tls.ts";
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

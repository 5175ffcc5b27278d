/** Signatures by the key of a certificate, for what is proven above TLS. */
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import { createPrivateKey } from "node:crypto";
import { type Bytes, copy } from "../base/bytes.ts";
import { inspectCertificate } from "./tls.ts";
import type { ServerCertificate } from "./transport.ts";

x509.cryptoProvider.set(crypto);

/** How the key of a leaf signs; throws TypeError for a kind of key that is not taken. */
function signatureOf(leaf: x509.X509Certificate): { key: Algorithm; signature: Algorithm } {
  const { name, namedCurve } = leaf.publicKey.algorithm as { name: string; namedCurve?: string };
  if (name === "Ed25519") return { key: { name }, signature: { name } };
  if (name === "RSASSA-PKCS1-v1_5") {
    return { key: { name, hash: "SHA-256" } as Algorithm, signature: { name } };
  }
  const hash = ({ "P-256": "SHA-256", "P-384": "SHA-384" } as Record<string, string>)[namedCurve ?? ""];
  if (name === "ECDSA" && hash !== undefined) {
    return { key: { name, namedCurve } as Algorithm, signature: { name, hash } as Algorithm };
  }
  throw new TypeError(`A key of this kind cannot sign here: ${name} ${namedCurve ?? ""}`.trim());
}

/** Signs with a certificate's key: ECDSA P-256 or P-384 (r ‖ s), Ed25519, or RSA with PKCS #1 v1.5. */
export async function signWithLeafKey(pair: ServerCertificate, content: Bytes): Promise<Bytes> {
  const leaf = new x509.X509Certificate(copy(inspectCertificate(pair.certificatePem).chainDer[0]!));
  const { key, signature } = signatureOf(leaf);
  const pkcs8 = new Uint8Array(createPrivateKey(pair.privateKeyPem).export({ format: "der", type: "pkcs8" }));
  const imported = await crypto.subtle.importKey("pkcs8", pkcs8, key, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign(signature, imported, content));
}

/** Did the key of this leaf (DER) make `signature`? False for anything malformed. */
export async function verifyByLeafKey(
  leafDer: Uint8Array,
  { signature, content }: { signature: Uint8Array; content: Bytes },
): Promise<boolean> {
  try {
    const leaf = new x509.X509Certificate(copy(leafDer));
    const how = signatureOf(leaf);
    const key = await leaf.publicKey.export(how.key, ["verify"]);
    return await crypto.subtle.verify(how.signature, key, copy(signature), content);
  } catch {
    return false;
  }
}

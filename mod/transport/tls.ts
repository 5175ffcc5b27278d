/**
 * Certificates: making a CA and leaves, reading what a PEM holds, and judging whether a server may use a
 * certificate (checkCertificate) or a client may trust a chain (verifyChain). Keys and signatures are WebCrypto's.
 * A leaf is never a CA: clients refuse a CA certificate as a server's own (CaUsedAsEndEntity).
 */
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import { createHash, createPrivateKey, createPublicKey } from "node:crypto";
import type { Bytes } from "../base/bytes.ts";
import { copy, hex, randomBytes } from "../base/bytes.ts";
import { messageOf } from "../base/errors.ts";
import { isIpAddress, nameMatches, normalHost } from "./host_names.ts";
import type { ServerCertificate } from "./transport.ts";

const DAY_MS = 86_400_000;
/** Life of a CA that this program makes. */
export const CA_LIFE_MS = 3_652 * DAY_MS;
/** Life of a leaf that this program makes. */
export const LEAF_LIFE_MS = 90 * DAY_MS;
/** Certificates begin this much in the past, for clients whose clock is slow. */
export const BACKDATE_MS = 3_600_000;

const KEY_ALGORITHM = { name: "ECDSA", namedCurve: "P-256" };
const SIGNING_ALGORITHM = { name: "ECDSA", hash: "SHA-256" };
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
/** The same for a client: mutual TLS needs both. */
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
const ANY_USAGE = "2.5.29.37.0";
const EXTENSION = { names: "2.5.29.17", basic: "2.5.29.19", keyUsage: "2.5.29.15", usages: "2.5.29.37" };

x509.cryptoProvider.set(crypto);

/** What a certificate chain says of its leaf. */
export interface CertificateInfo {
  /** Distinguished name, for people. */
  readonly subject: string;
  /** DNS names and IP addresses it stands for. */
  readonly names: readonly string[];
  /** Unix milliseconds. */
  readonly notBefore: number;
  /** Unix milliseconds. */
  readonly notAfter: number;
  /** Signed by its own key: no CA stands behind it. */
  readonly selfSigned: boolean;
  /** May sign other certificates. */
  readonly isCa: boolean;
  /** May be shown by a client as well (RFC 5280 §4.2.1.12): mutual TLS needs it. */
  readonly forClients: boolean;
  /** Distinguished name of the issuer. */
  readonly issuedBy: string;
  /** SHA-256 of the leaf's DER: what a client pins. */
  readonly leafSha256: Bytes;
  /** DER of every certificate in the PEM, in its order. */
  readonly chainDer: readonly Bytes[];
}

/** Makes a CA (ECDSA P-256) that may sign leaves, nothing below them. */
export async function makeCa(
  ca: { commonName: string; now: number; lifeMs?: number },
): Promise<ServerCertificate> {
  const keys = await crypto.subtle.generateKey(KEY_ALGORITHM, true, ["sign", "verify"]) as CryptoKeyPair;
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomSerial(),
    name: [{ CN: [ca.commonName] }],
    notBefore: new Date(ca.now - BACKDATE_MS),
    notAfter: new Date(ca.now + (ca.lifeMs ?? CA_LIFE_MS)),
    signingAlgorithm: SIGNING_ALGORITHM,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificatePem: pemText(certificate), privateKeyPem: await privateKeyPem(keys.privateKey) };
}

/**
 * Makes a server's certificate for `names` (DNS names and IP addresses), signed by `ca`; with `mutual` it may also be
 * shown as a client's. Throws without names.
 */
export async function makeLeaf(
  leaf: { ca: ServerCertificate; names: readonly string[]; now: number; lifeMs?: number; mutual?: boolean },
): Promise<ServerCertificate> {
  const names = [...new Set(leaf.names.map(normalHost))];
  if (names.length === 0) throw new TypeError("A certificate needs at least one name");
  const odd = names.find((name) => !isIpAddress(name) && !/^(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*$/.test(name));
  if (odd !== undefined) throw new TypeError(`This is no DNS name or IP address: ${odd}`);
  const issuer = readChain(leaf.ca.certificatePem)[0]!;
  const keys = await crypto.subtle.generateKey(KEY_ALGORITHM, true, ["sign", "verify"]) as CryptoKeyPair;
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: randomSerial(),
    subject: [{ CN: [names[0]!.slice(0, 64)] }],
    issuer: issuer.subjectName,
    notBefore: new Date(leaf.now - BACKDATE_MS),
    notAfter: new Date(Math.min(leaf.now + (leaf.lifeMs ?? LEAF_LIFE_MS), issuer.notAfter.getTime())),
    signingAlgorithm: SIGNING_ALGORITHM,
    publicKey: keys.publicKey,
    signingKey: await importSigningKey(leaf.ca.privateKeyPem),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension(leaf.mutual ? [SERVER_AUTH, CLIENT_AUTH] : [SERVER_AUTH]),
      new x509.SubjectAlternativeNameExtension(
        names.map((value) => ({ type: isIpAddress(value) ? "ip" as const : "dns" as const, value })),
      ),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificatePem: pemText(certificate), privateKeyPem: await privateKeyPem(keys.privateKey) };
}

/** What the certificate(s) in a PEM say. Throws TypeError when there is none that can be read. */
export function inspectCertificate(certificatePem: string): CertificateInfo {
  const chain = readChain(certificatePem);
  const leaf = chain[0]!;
  return {
    subject: leaf.subject,
    names: namesOf(leaf),
    notBefore: leaf.notBefore.getTime(),
    notAfter: leaf.notAfter.getTime(),
    selfSigned: leaf.subject === leaf.issuer,
    isCa: leaf.getExtension(x509.BasicConstraintsExtension)?.ca ?? false,
    forClients: isFor(leaf, CLIENT_AUTH),
    issuedBy: leaf.issuer,
    leafSha256: sha256Now(new Uint8Array(leaf.rawData)),
    chainDer: chain.map((certificate) => new Uint8Array(certificate.rawData)),
  };
}

/** The PEM of a chain of DER certificates. */
export function chainPem(chainDer: readonly Uint8Array[]): string {
  return chainDer.map((der) => pemText(new x509.X509Certificate(copy(der)))).join("");
}

/** Everything that keeps a server from using this certificate, in words; empty when it may. */
export function checkCertificate(
  check: { certificatePem: string; privateKeyPem: string; now: number },
): string[] {
  const problems: string[] = [];
  let chain: x509.X509Certificate[] = [];
  try {
    chain = readChain(check.certificatePem);
  } catch (error) {
    problems.push(messageOf(error));
  }
  const leaf = chain[0];
  if (leaf) {
    problems.push(...dateProblems(leaf, check.now, "The certificate"));
    problems.push(...leafProblems(leaf));
    if (namesOf(leaf).length === 0) problems.push("The certificate names no host (subjectAltName is empty)");
    chain.slice(1).forEach((issuer, i) => {
      if (chain[i]!.issuer !== issuer.subject) {
        problems.push(
          `The chain is out of order: certificate ${i + 2} is not the issuer of the one before it`,
        );
      }
    });
  }
  problems.push(...keyProblems(check.privateKeyPem, leaf));
  return problems;
}

/** What is wrong with a chain: dates, the name, who signed it, or that it cannot be used or read at all. */
export type ChainProblem = "dates" | "name" | "unknownCa" | "unusable";

/** What {@link verifyChain} found, in words. */
export type ChainVerdict = { ok: true } | { ok: false; problem: ChainProblem; reason: string };

/**
 * Is this chain (leaf first), as a server sent it, good for `hostname` under exactly the CA certificate(s) in
 * `caPem`, and no public root? Checks signatures, dates, CA flags, path lengths, server usage and names.
 */
export async function verifyChain(
  check: { chainDer: readonly Uint8Array[]; caPem: string; hostname: string; now: number },
): Promise<ChainVerdict> {
  const refuse = (reason: string, problem: ChainProblem = "unusable") =>
    ({ ok: false, problem, reason }) as const;
  let chain: x509.X509Certificate[];
  let cas: x509.X509Certificate[];
  try {
    chain = check.chainDer.map(readWhole);
  } catch {
    return refuse("The server's certificate cannot be read");
  }
  try {
    cas = readChain(check.caPem);
  } catch (error) {
    return refuse(`The CA cannot be read: ${messageOf(error)}`);
  }
  const leaf = chain[0];
  if (!leaf) return refuse("The server sent no certificate");
  const flaw = leafProblems(leaf)[0] ?? unknownCritical(leaf);
  if (flaw !== undefined) return refuse(flaw);
  const outdated = dateProblems(leaf, check.now, "The server's certificate")[0];
  if (outdated !== undefined) return refuse(outdated, "dates");
  const names = namesOf(leaf);
  if (!names.some((name) => nameMatches(name, check.hostname))) {
    return refuse(
      `The server's certificate is for ${names.join(", ") || "no host"}, not for ${check.hostname}`,
      "name",
    );
  }
  return await verifyPath(chain, cas, check.now);
}

/** The library reads names, dates and extensions only when asked: here is where all of them may fail. */
function readWhole(der: Uint8Array): x509.X509Certificate {
  const certificate = new x509.X509Certificate(copy(der));
  const { subject, issuer, serialNumber, notBefore, notAfter, extensions, publicKey } = certificate;
  void [subject, issuer, serialNumber, notBefore, notAfter, extensions, publicKey];
  return certificate;
}

/** Follows the chain link by link until one of the CAs has signed; at most 8 links. */
async function verifyPath(
  chain: readonly x509.X509Certificate[],
  cas: readonly x509.X509Certificate[],
  now: number,
): Promise<ChainVerdict> {
  for (const [depth, certificate] of chain.slice(0, 8).entries()) {
    for (const ca of cas) {
      if (!(await isSignedBy(certificate, ca))) continue;
      const flaw = issuerProblem(ca, depth, now, "The CA");
      return flaw ?? { ok: true };
    }
    const issuer = chain[depth + 1];
    if (!issuer || !(await isSignedBy(certificate, issuer))) break;
    const flaw = issuerProblem(issuer, depth, now, `The certificate of ${issuer.subject}`);
    if (flaw) return flaw;
  }
  const issuedBy = chain[0]!.subject === chain[0]!.issuer ? "itself" : chain[0]!.issuer;
  return {
    ok: false,
    problem: "unknownCa",
    reason: `The server's certificate is not signed by this CA; it is signed by ${issuedBy}`,
  };
}

/** Why `issuer` may not have signed a certificate with `below` certificates between that and the leaf. */
function issuerProblem(
  issuer: x509.X509Certificate,
  below: number,
  now: number,
  what: string,
): ChainVerdict & { ok: false } | undefined {
  const refuse = (reason: string, problem: ChainProblem = "unusable") =>
    ({ ok: false, problem, reason }) as const;
  const basic = issuer.getExtension(x509.BasicConstraintsExtension);
  if (!basic?.ca) return refuse(`${what} is no CA certificate: it may not sign others`);
  const usages = issuer.getExtension(x509.KeyUsagesExtension);
  if (usages && !(usages.usages & x509.KeyUsageFlags.keyCertSign)) {
    return refuse(`${what} may not sign certificates`);
  }
  if (basic.pathLength !== undefined && below > basic.pathLength) {
    return refuse(`${what} may not sign other CAs`);
  }
  const outdated = dateProblems(issuer, now, what)[0];
  if (outdated !== undefined) return refuse(outdated, "dates");
  const flaw = unknownCritical(issuer);
  return flaw === undefined ? undefined : refuse(flaw);
}

/** Same name, and the signature verifies. */
async function isSignedBy(certificate: x509.X509Certificate, issuer: x509.X509Certificate): Promise<boolean> {
  if (certificate.issuer !== issuer.subject) return false;
  try {
    return await certificate.verify({ publicKey: issuer.publicKey, signatureOnly: true });
  } catch {
    // A kind of key that WebCrypto does not know proves nothing.
    return false;
  }
}

function unknownCritical(certificate: x509.X509Certificate): string | undefined {
  const known = Object.values(EXTENSION);
  const unknown = certificate.extensions.find((extension) =>
    extension.critical && !known.includes(extension.type)
  );
  return unknown && `A certificate has a critical extension that this program does not know: ${unknown.type}`;
}

function leafProblems(leaf: x509.X509Certificate): string[] {
  const problems: string[] = [];
  if (leaf.getExtension(x509.BasicConstraintsExtension)?.ca) {
    problems.push(
      "The certificate is a CA certificate; clients refuse it as a server's own (CaUsedAsEndEntity)",
    );
  }
  if (!isFor(leaf, SERVER_AUTH)) {
    problems.push("The certificate is not made for servers (extended key usage lacks serverAuth)");
  }
  return problems;
}

/** Without the extension it is for everything. */
function isFor(leaf: x509.X509Certificate, usage: string): boolean {
  const usages = leaf.getExtension(x509.ExtendedKeyUsageExtension)?.usages.map(String);
  return !usages || usages.includes(usage) || usages.includes(ANY_USAGE);
}

function dateProblems(certificate: x509.X509Certificate, now: number, what: string): string[] {
  if (certificate.notAfter.getTime() < now) {
    return [`${what} expired on ${certificate.notAfter.toISOString()}`];
  }
  if (certificate.notBefore.getTime() > now) {
    return [`${what} is not valid before ${certificate.notBefore.toISOString()}`];
  }
  return [];
}

function keyProblems(keyPem: string, leaf: x509.X509Certificate | undefined): string[] {
  if (keyPem.trim() === "") return ["The private key is empty"];
  if (/ENCRYPTED/.test(keyPem)) {
    return ["The private key is encrypted with a passphrase; store it without one"];
  }
  let publicKey: unknown;
  try {
    publicKey = createPublicKey(createPrivateKey(keyPem)).export({ format: "jwk" });
  } catch {
    return ["The private key cannot be read (a PEM of PKCS #8, SEC 1 or PKCS #1 is expected)"];
  }
  if (!leaf) return [];
  try {
    const key = new Uint8Array(leaf.publicKey.rawData);
    const wanted = createPublicKey({ key: key as never, format: "der", type: "spki" }).export({
      format: "jwk",
    });
    const same = canonical(wanted) === canonical(publicKey);
    return same ? [] : ["The private key does not belong to the certificate"];
  } catch {
    return ["The certificate has a kind of key that this program does not know"];
  }
}

function canonical(jwk: unknown): string {
  return JSON.stringify(Object.entries(jwk as Record<string, unknown>).sort());
}

function namesOf(certificate: x509.X509Certificate): string[] {
  const extension = certificate.getExtension(x509.SubjectAlternativeNameExtension);
  if (!extension) return [];
  return extension.names.items
    .filter((name) => name.type === "dns" || name.type === "ip")
    .map((name) => normalHost(name.value));
}

/** Every certificate in a PEM; throws TypeError when there is none or one of them is no certificate. */
function readChain(pem: string): x509.X509Certificate[] {
  if (pem.trim() === "") throw new TypeError("The certificate is empty");
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g);
  if (!blocks) {
    throw new TypeError("There is no certificate in the PEM (-----BEGIN CERTIFICATE----- is missing)");
  }
  return blocks.map((block, index) => {
    try {
      return new x509.X509Certificate(block);
    } catch (cause) {
      throw new TypeError(`Certificate ${index + 1} of the PEM cannot be read`, { cause });
    }
  });
}

async function importSigningKey(keyPem: string): Promise<CryptoKey> {
  const pkcs8 = createPrivateKey(keyPem).export({ format: "der", type: "pkcs8" });
  return await crypto.subtle.importKey("pkcs8", new Uint8Array(pkcs8), KEY_ALGORITHM, false, ["sign"]);
}

function pemText(certificate: x509.X509Certificate): string {
  return `${certificate.toString("pem").trim()}\n`;
}

async function privateKeyPem(key: CryptoKey): Promise<string> {
  const pkcs8 = await crypto.subtle.exportKey("pkcs8", key);
  return `${x509.PemConverter.encode(pkcs8, "PRIVATE KEY").trim()}\n`;
}

/** 16 random bytes, positive as DER integers are. */
function randomSerial(): string {
  const serial = randomBytes(16);
  serial[0] = (serial[0]! & 0x7f) | 0x40;
  return hex(serial);
}

function sha256Now(bytes: Uint8Array): Bytes {
  return new Uint8Array(createHash("sha256").update(bytes).digest());
}

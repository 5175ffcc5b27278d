/**
 * The certificate files that the server manages, under `tls/` of the data folder: `ca.pem`, `ca.key`, `server.pem`,
 * `server.key`, and, while a successor is announced or being put in place, `next.pem` and `next.key`. A crash
 * between any two changes leaves a pair that works, or one that {@link finishInstall} completes at the next start.
 */
import { dirname, join } from "node:path";
import { hostname, networkInterfaces } from "node:os";
import { messageOf } from "../base/errors.ts";
import { exists, readTextIfThere, syncFolder } from "../base/files.ts";
import { checkCertificate, inspectCertificate, makeCa, makeLeaf, verifyChain } from "../transport/tls.ts";
import type { ServerCertificate } from "../transport/transport.ts";
import { writeManagedFile, writeSecretFile } from "./secret_file.ts";

/** The certificate cannot be used. The message names the file and each problem. */
export class CertificateError extends Error {
  override name = "CertificateError";
}

/** Where a certificate and its key lie. */
export interface PairPaths {
  readonly certificate: string;
  readonly key: string;
}

/** Awaited after each durable change. */
export type Step = (name: string) => Promise<void>;

const noStep: Step = async () => {};

/** Where a managed pair lies. */
export function managedPaths(dataDir: string, name: "ca" | "server" | "next"): PairPaths {
  return { certificate: join(dataDir, "tls", `${name}.pem`), key: join(dataDir, "tls", `${name}.key`) };
}

/** Host name, localhost, and every local address but link-local ones, whose scope no client can name. */
export function localNames(): string[] {
  const addresses = Object.values(networkInterfaces()).flat().map((address) => address?.address ?? "");
  const usable = addresses.filter((address) => address !== "" && !address.startsWith("fe80:"));
  return [...new Set([hostname().toLowerCase(), "localhost", "127.0.0.1", "::1", ...usable])];
}

/** Completes what a crash cut off, then makes a CA and a leaf where there is no leaf in date. What was made, in words. */
export async function makeMissing(
  dataDir: string,
  options: { names: readonly string[]; now: number },
): Promise<string[]> {
  const { names, now } = options;
  const made: string[] = [];
  const server = managedPaths(dataDir, "server");
  const caPaths = managedPaths(dataDir, "ca");
  await finishInstall(dataDir);
  if (await exists(server.key) && await isCurrent(server.certificate, now)) return made;
  if (!await exists(caPaths.certificate)) {
    await writePair(
      caPaths,
      await makeCa({ commonName: `quicproquo CA ${names[0] ?? ""}`.trim(), now }),
      noStep,
    );
    made.push(`certificate authority ${caPaths.certificate}`);
  }
  await writePair(server, await newLeaf(dataDir, options), noStep);
  made.push(
    `TLS certificate ${server.certificate} for ${names[0]} and ${names.length - 1} more names and addresses`,
  );
  return made;
}

/** A new leaf of the managed CA, followed by that CA so that clients can fetch the whole chain. */
export async function newLeaf(
  dataDir: string,
  { names, now }: { names: readonly string[]; now: number },
): Promise<ServerCertificate> {
  const ca = await readPair(managedPaths(dataDir, "ca"));
  const leaf = await makeLeaf({ ca, names, now });
  return { ...leaf, certificatePem: leaf.certificatePem.trimEnd() + "\n" + ca.certificatePem };
}

/** Puts `pair` where the next one lies. Without next.pem there is no next one, whatever else lies there. */
export async function writeNext(
  dataDir: string,
  pair: ServerCertificate,
  step: Step = noStep,
): Promise<void> {
  await withdrawNext(dataDir, step);
  await writePair(managedPaths(dataDir, "next"), pair, step);
}

/** Takes back what was announced. */
export async function withdrawNext(dataDir: string, step: Step = noStep): Promise<void> {
  const { certificate } = managedPaths(dataDir, "next");
  if (!await exists(certificate)) return;
  await Deno.remove(certificate);
  await syncFolder(dirname(certificate));
  await step("withdrew the next certificate");
}

/**
 * The next pair becomes the server's. The key is renamed first: a crash between the two leaves server.key and
 * next.pem of one pair, which {@link finishInstall} completes.
 */
export async function installNext(dataDir: string, step: Step = noStep): Promise<void> {
  const next = managedPaths(dataDir, "next");
  const server = managedPaths(dataDir, "server");
  await Deno.rename(next.key, server.key);
  await syncFolder(dirname(server.key));
  await step("put the key in place");
  await finishInstall(dataDir);
  await step("put the certificate in place");
}

/** Completes {@link installNext}; anything else without its key is no next certificate, and goes. */
export async function finishInstall(dataDir: string): Promise<void> {
  const next = managedPaths(dataDir, "next");
  const server = managedPaths(dataDir, "server");
  if (!await exists(next.certificate) || await exists(next.key)) return;
  const certificatePem = await Deno.readTextFile(next.certificate);
  const privateKeyPem = await readTextIfThere(server.key) ?? "";
  const foreign = checkCertificate({ certificatePem, privateKeyPem, now: datesOf(certificatePem) });
  if (foreign.length > 0) await Deno.remove(next.certificate);
  else await Deno.rename(next.certificate, server.certificate);
  await syncFolder(dirname(server.certificate));
}

/** Some time at which the certificate is valid: only whether it belongs to the key is asked. */
function datesOf(certificatePem: string): number {
  try {
    return inspectCertificate(certificatePem).notAfter;
  } catch {
    return 0;
  }
}

/** Was this made by the managed CA, so that it may be renewed by it? */
export async function isOwnLeaf(dataDir: string, certificatePem: string, now: number): Promise<boolean> {
  const caPem = await readTextIfThere(managedPaths(dataDir, "ca").certificate);
  const { names, chainDer } = inspectCertificate(certificatePem);
  if (caPem === null || names.length === 0) return false;
  return (await verifyChain({ chainDer, caPem, hostname: hostOf(names[0]!), now })).ok;
}

/** A host that `name` of a certificate, which may be a wildcard, stands for. */
export function hostOf(name: string): string {
  return name.replace(/^\*/, "any");
}

/** Reads a pair. Throws CertificateError. */
export async function readPair(paths: PairPaths): Promise<ServerCertificate> {
  try {
    return {
      certificatePem: await Deno.readTextFile(paths.certificate),
      privateKeyPem: await Deno.readTextFile(paths.key),
    };
  } catch (cause) {
    throw new CertificateError(
      `Cannot read the TLS certificate ${paths.certificate} and its key ${paths.key}: ${messageOf(cause)}`,
      { cause },
    );
  }
}

/** Reads a pair that a server may use now. Throws CertificateError with every problem. */
export async function readUsable(paths: PairPaths, now: number): Promise<ServerCertificate> {
  const pair = await readPair(paths);
  const problems = checkCertificate({ ...pair, now });
  if (problems.length === 0) return pair;
  throw new CertificateError(
    `Cannot use the TLS certificate ${paths.certificate} with key ${paths.key}:\n- ${problems.join("\n- ")}`,
  );
}

/** A leaf that ended while the server was down is made again: clients find the new one through the CA. */
async function isCurrent(path: string, now: number): Promise<boolean> {
  const pem = await readTextIfThere(path);
  return pem !== null && inspectCertificate(pem).notAfter > now;
}

/** The certificate comes last: a pair without it is not there. */
async function writePair(paths: PairPaths, pair: ServerCertificate, step: Step): Promise<void> {
  await writeSecretFile(paths.key, pair.privateKeyPem);
  await step("wrote the key");
  await writeManagedFile(paths.certificate, pair.certificatePem, 0o644);
  await step("wrote the certificate");
}

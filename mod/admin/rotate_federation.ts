/**
 * `rotate federation`: the certificate that this server shows to other servers, and the CAs whose servers it trusts.
 * `tls/federation/` of the data folder has a folder for each version with `cert.pem`, `key.pem` and `ca.pem`, and the
 * file `current` with the name of the one that counts: they change together, in one rename. `crl.pem` is optional.
 */
import { join } from "node:path";
import { exists, keepOwner, readTextIfThere, syncFolder } from "../base/files.ts";
import type { Settings } from "../config/options.ts";
import { RevocationLists } from "../transport/crl.ts";
import { fingerprintText } from "../transport/fingerprint.ts";
import { chainPem, checkCertificate, inspectCertificate } from "../transport/tls.ts";
import type { ServerCertificate } from "../transport/transport.ts";
import { type AdminContext, AdminError, type JsonObject, type Operation } from "./operations.ts";
import { InputReader } from "./operations_input.ts";
import { finishRotation } from "./rotate_history.ts";
import { rotationAnswer } from "./rotate_plan.ts";
import { writeManagedFile, writeSecretFile } from "./secret_file.ts";

/** What federation needs: a pair, and a set of CAs (PEM). */
export interface FederationIdentity extends ServerCertificate {
  readonly caPem: string;
  /** Revocation lists of those CAs (PEM); null when there are none. */
  readonly crlPem: string | null;
}

/** Certificates in a CA set. */
const CAS_MAX = 256;

/** Reads the identity that counts; null when there never was one. */
export async function readFederationIdentity(dataDir: string): Promise<FederationIdentity | null> {
  const folder = await currentFolder(dataDir);
  if (folder === null) return null;
  const read = (name: string) => Deno.readTextFile(join(folder, name));
  return {
    certificatePem: await read("cert.pem"),
    privateKeyPem: await read("key.pem"),
    caPem: await read("ca.pem"),
    crlPem: await readTextIfThere(join(folder, "crl.pem")),
  };
}

/** Why this engine of federation cannot use the certificate, and what to do; null when it can. */
export function engineProblem(
  certificatePem: string,
  engine: Settings["federation"]["engine"],
): string | null {
  if (engine !== "quiche" || inspectCertificate(certificatePem).forClients) return null;
  return "federation.engine is quiche, which shows the certificate as a client too, and this one is for servers only: " +
    "have it made with extendedKeyUsage=serverAuth,clientAuth";
}

/** Checks and swaps certificate, key and CA set. */
export const rotateFederation: Operation = {
  name: "rotate federation",
  whenStopped: "changes",
  audited: true,
  secretInputs: ["certificatePem", "privateKeyPem", "caPem", "crlPem"],
  alone: "rotation",
  async run(context, input) {
    const read = new InputReader(input);
    const dryRun = read.flag("dryRun");
    const crlInput = read.text("crlPem");
    const identity = {
      certificatePem: read.requiredText("certificatePem"),
      privateKeyPem: read.requiredText("privateKeyPem"),
      caPem: read.requiredText("caPem"),
      crlPem: crlInput === "none" ? null : crlInput ?? await formerCrl(context.settings.dataDir),
    };
    read.end();
    await refuseUnusable(identity, context.clock.now());
    const info = inspectCertificate(identity.certificatePem);
    const misfit = engineProblem(identity.certificatePem, context.settings.federation.engine);
    if (misfit !== null) throw new AdminError(`Nothing was changed: ${misfit}`);
    const cas = inspectCertificate(identity.caPem).chainDer.length;
    const steps = [
      `the certificate for ${info.names.join(", ")}, its key and ${cas} CA${
        cas === 1 ? "" : "s"
      } are put in place together`,
    ];
    const notes = [
      "A running server uses it for new links within a minute; open ones live on as long as they are valid",
    ];
    if (identity.crlPem !== null && crlInput === null) {
      notes.push("The former revocation lists stay; --crl none drops them");
    }
    const more = {
      fingerprint: fingerprintText(info.leafSha256),
      names: [...info.names],
      expiresAt: info.notAfter,
      cas,
    };
    const base = { key: "federation", dryRun, changes: true, steps, notes, more } as const;
    if (dryRun) return rotationAnswer({ ...base, version: null });
    await install(context, identity);
    const version = await finishRotation(context, "federation", `${info.names.join(", ")} and ${cas} CAs`);
    await context.step("wrote the history");
    return rotationAnswer({ ...base, version });
  },
};

/** What `rotate status` shows of it. */
export async function describeFederation(dataDir: string): Promise<JsonObject | null> {
  const identity = await readFederationIdentity(dataDir);
  if (!identity) return null;
  const { notAfter, notBefore, leafSha256 } = inspectCertificate(identity.certificatePem);
  return { fingerprint: fingerprintText(leafSha256), validFromAt: notBefore, expiresAt: notAfter };
}

async function install(context: AdminContext, identity: FederationIdentity): Promise<void> {
  const root = rootOf(context.settings.dataDir);
  await Deno.mkdir(root, { recursive: true, mode: 0o700 });
  await keepOwner(root);
  const before = await readTextIfThere(join(root, "current"));
  const number = Math.max(0, ...(await versions(root)).map(([, version]) => version)) + 1;
  const name = `v${number}`;
  await Deno.mkdir(join(root, name), { mode: 0o700 });
  await keepOwner(join(root, name));
  await writeSecretFile(join(root, name, "key.pem"), identity.privateKeyPem);
  await context.step("wrote the key");
  await writeManagedFile(join(root, name, "cert.pem"), identity.certificatePem, 0o644);
  await writeManagedFile(join(root, name, "ca.pem"), identity.caPem, 0o644);
  if (identity.crlPem !== null) {
    await writeManagedFile(join(root, name, "crl.pem"), identity.crlPem, 0o644);
  }
  await syncFolder(root);
  await context.step("wrote the new version");
  await writeManagedFile(join(root, "current"), `${name}\n`, 0o644);
  await context.step("switched to the new version");
  for (const [old] of await versions(root)) {
    if (old !== name && old !== before?.trim()) await Deno.remove(join(root, old), { recursive: true });
  }
  await context.step("removed what is older than the last");
}

function rootOf(dataDir: string): string {
  return join(dataDir, "tls", "federation");
}

async function currentFolder(dataDir: string): Promise<string | null> {
  const name = (await readTextIfThere(join(rootOf(dataDir), "current")))?.trim();
  if (name === undefined) return null;
  const folder = join(rootOf(dataDir), name);
  if (/^v\d+$/.test(name) && await exists(folder)) return folder;
  throw new AdminError(
    `${join(rootOf(dataDir), "current")} names ${name}, which is not there: rotate federation again`,
  );
}

async function versions(root: string): Promise<[name: string, version: number][]> {
  const found: [string, number][] = [];
  for await (const { name } of Deno.readDir(root)) {
    if (/^v\d+$/.test(name)) found.push([name, Number(name.slice(1))]);
  }
  return found;
}

/** The lists of the version that counts; null when it has none, or there is none. */
async function formerCrl(dataDir: string): Promise<string | null> {
  const folder = await currentFolder(dataDir).catch(() => null);
  return folder === null ? null : await readTextIfThere(join(folder, "crl.pem"));
}

async function refuseUnusable(identity: FederationIdentity, now: number): Promise<void> {
  const problems = [...checkCertificate({ ...identity, now }), ...caProblems(identity.caPem, now)];
  problems.push(...await crlProblems(identity, now));
  if (problems.length === 0) return;
  throw new AdminError(`Nothing was changed: this cannot be used\n- ${problems.join("\n- ")}`);
}

async function crlProblems({ crlPem, caPem }: FederationIdentity, now: number): Promise<string[]> {
  if (crlPem === null) return [];
  try {
    await RevocationLists.read(crlPem, { caPem, now });
    return [];
  } catch (error) {
    const hint = "; give the lists of these CAs with --crl, or --crl none";
    return [`The revocation lists: ${error instanceof Error ? error.message : error}${hint}`];
  }
}

/** The set is a list of CA certificates in any order, each good by itself. */
function caProblems(caPem: string, now: number): string[] {
  let ders: readonly Uint8Array[];
  try {
    ders = inspectCertificate(caPem).chainDer;
  } catch (error) {
    return [`The CA set: ${error instanceof Error ? error.message : error}`];
  }
  if (ders.length > CAS_MAX) return [`The CA set has ${ders.length} certificates, more than ${CAS_MAX}`];
  return ders.flatMap((der) => {
    const { subject, notAfter, isCa } = inspectCertificate(chainPem([der]));
    const problems = [];
    if (!isCa) problems.push(`The CA set: ${subject} is no CA certificate`);
    if (notAfter < now) {
      problems.push(`The CA set: ${subject} expired on ${new Date(notAfter).toISOString()}`);
    }
    return problems;
  });
}

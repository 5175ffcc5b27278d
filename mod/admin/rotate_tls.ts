/**
 * `rotate tls`: a new certificate for new connections; present ones stay. Managed: a successor is made and announced
 * for a week, or put in place at once; or an operator's pair is imported. With tls_cert and tls_key the files are the
 * operator's: they are read again.
 */
import { join } from "node:path";
import type { Settings } from "../config/options.ts";
import { fingerprintText } from "../transport/fingerprint.ts";
import {
  type CertificateInfo,
  chainPem,
  checkCertificate,
  inspectCertificate,
  verifyChain,
} from "../transport/tls.ts";
import type { ServerCertificate } from "../transport/transport.ts";
import { tryCertificate } from "../transport/try_certificate.ts";
import {
  type AdminContext,
  AdminError,
  type JsonObject,
  type Operation,
  orAdminError,
} from "./operations.ts";
import { InputReader } from "./operations_input.ts";
import { finishRotation } from "./rotate_history.ts";
import { rotationAnswer } from "./rotate_plan.ts";
import {
  finishInstall,
  hostOf,
  installNext,
  localNames,
  managedPaths,
  newLeaf,
  readPair,
  readUsable,
  writeNext,
} from "./rotate_tls_files.ts";
import { servesAt, servesAtIfMade } from "./rotate_tls_plan.ts";

/** Makes, imports or takes up a certificate. */
export const rotateTls: Operation = {
  name: "rotate tls",
  whenStopped: "changes",
  audited: true,
  secretInputs: ["certificatePem", "privateKeyPem"],
  alone: "rotation",
  async run(context, input) {
    const read = new InputReader(input);
    const dryRun = read.flag("dryRun");
    const certificatePem = read.text("certificatePem");
    const privateKeyPem = read.text("privateKeyPem");
    const wish = { dryRun, renew: read.flag("renew"), now: read.flag("now") };
    read.end();
    if ((certificatePem === null) !== (privateKeyPem === null)) {
      throw new AdminError("An import needs both the certificate and its key");
    }
    const imported = certificatePem !== null && privateKeyPem !== null
      ? { certificatePem, privateKeyPem }
      : null;
    if (imported && wish.renew) throw new AdminError("Either import a certificate or renew: not both");
    const files = operatorsFiles(context.settings);
    const work = () => {
      if (files) return takeUpFiles(context, { ...wish, files, imported });
      return imported ? importPair(context, { ...wish, pair: imported }) : renewLeaf(context, wish);
    };
    return await (context.server ? context.server.certificates.exclusively(work) : work());
  },
};

function operatorsFiles({ tlsCert, tlsKey }: Settings) {
  return tlsCert !== null && tlsKey !== null ? { certificate: tlsCert, key: tlsKey } : null;
}

interface Wish {
  readonly dryRun: boolean;
  readonly renew: boolean;
  readonly now: boolean;
}

async function takeUpFiles(
  context: AdminContext,
  wish: Wish & { files: { certificate: string; key: string }; imported: ServerCertificate | null },
): Promise<JsonObject> {
  const { certificate, key } = wish.files;
  if (wish.imported || wish.renew) {
    throw new AdminError(
      `tls_cert and tls_key name ${certificate} and ${key}, which are yours: let the tool that made them renew them, ` +
        "or put new ones there; the server sees it, checks them and uses them without a restart",
    );
  }
  const pair = await orAdminError("Nothing was changed", () => readUsable(wish.files, context.clock.now()));
  const info = inspectCertificate(pair.certificatePem);
  const live = context.server?.certificates;
  const changes = live !== undefined &&
    fingerprintText(live.info.leafSha256) !== fingerprintText(info.leafSha256);
  const base = { key: "tls", dryRun: wish.dryRun, changes, more: describe(info) } as const;
  const notes = changes ? [] : [
    live
      ? `${certificate} is what the server shows already`
      : "The next start will use these files: they fit",
  ];
  const steps = changes ? [`take up ${certificate} and ${key} for new connections`] : [];
  if (wish.dryRun || !changes) return rotationAnswer({ ...base, version: null, steps, notes });
  await live.reload();
  const version = await finishRotation(context, "tls", `taken up from ${certificate}`);
  return rotationAnswer({ ...base, version, steps, notes });
}

/** An operator's pair takes the place of the managed one. */
async function importPair(
  context: AdminContext,
  { pair, dryRun }: Wish & { pair: ServerCertificate },
): Promise<JsonObject> {
  const { dataDir } = context.settings;
  await refuseUnusable(pair, context.clock.now());
  const old = await presentInfo(dataDir);
  const info = inspectCertificate(pair.certificatePem);
  const paths = managedPaths(dataDir, "server");
  const steps = [
    `put the certificate and its key in place as ${paths.certificate} and ${paths.key}`,
    effect(context),
  ];
  const notes = importNotes(info, { old, wanted: context.settings.tlsNames });
  const base = { key: "tls", dryRun, changes: true, steps, notes, more: describe(info) } as const;
  if (dryRun) return rotationAnswer({ ...base, version: null });
  await replaceNow(context, pair);
  await context.server?.certificates.reload();
  const version = await finishRotation(context, "tls", "imported");
  await context.step("wrote the history");
  return rotationAnswer({ ...base, version });
}

function importNotes(
  info: CertificateInfo,
  { old, wanted }: { old: CertificateInfo | null; wanted: readonly string[] | null },
): string[] {
  const names = new Set(info.names);
  const missing = (wanted ?? old?.names ?? []).filter((name) => !names.has(name.toLowerCase()));
  const notes = [
    "Clients that pin the old fingerprint need the new one, or the CA",
    "The server does not renew it: import the next one in time, or set tls_cert and tls_key, which are watched",
  ];
  if (info.selfSigned) notes.push("It is self-signed: clients can only pin its fingerprint");
  if (missing.length > 0) {
    notes.push(
      `It does not stand for ${missing.join(", ")}: clients that connect by these names will refuse it`,
    );
  }
  return notes;
}

/** A new leaf of the managed CA, or one that was announced before. */
async function renewLeaf(context: AdminContext, { dryRun, renew, now }: Wish): Promise<JsonObject> {
  const { dataDir, tlsNames } = context.settings;
  if (!dryRun) await finishInstall(dataDir);
  const old = await presentInfo(dataDir);
  if (!old) throw new AdminError("There is no certificate yet: start the server or run 'qpq-server init'");
  const announced = renew ? null : await announcedInfo(dataDir);
  if (announced && !now) {
    const at = servesAt(announced, old);
    return rotationAnswer({
      key: "tls",
      dryRun,
      changes: false,
      version: null,
      steps: [],
      notes: [
        `The next certificate is announced already; it serves from ${
          new Date(at).toISOString()
        } (--now: at once)`,
      ],
      more: { ...describe(old), nextFingerprint: fingerprintText(announced.leafSha256), nextServesAt: at },
    });
  }
  const names = tlsNames ?? localNames();
  const steps = [
    ...(announced ? [] : [`make a certificate for ${names.join(", ")}`]),
    ...(now ? ["put it in place", effect(context)] : [
      `announce its fingerprint to clients; it serves from ${
        new Date(servesAtIfMade(context.clock.now(), old)).toISOString()
      }`,
    ]),
  ];
  const notes = now && !announced
    ? ["Clients that pin the old fingerprint find the new one through the CA, or need it"]
    : [];
  const base = { key: "tls", dryRun, changes: true, steps, notes } as const;
  if (dryRun) return rotationAnswer({ ...base, version: null, more: describe(old) });
  const pair = announced
    ? await readPair(managedPaths(dataDir, "next"))
    : await orAdminError("Nothing was changed", () => newLeaf(dataDir, { names, now: context.clock.now() }));
  const info = inspectCertificate(pair.certificatePem);
  if (!now) {
    await writeNext(dataDir, pair, context.step);
    await context.server?.certificates.reload();
    const more = {
      ...describe(old),
      nextFingerprint: fingerprintText(info.leafSha256),
      nextServesAt: servesAt(info, old),
    };
    return rotationAnswer({ ...base, version: null, more });
  }
  if (announced) await installNext(dataDir, context.step);
  else await replaceNow(context, pair);
  await context.server?.certificates.reload();
  const version = await finishRotation(
    context,
    "tls",
    announced ? "the announced one, ahead of time" : "renewed at once",
  );
  await context.step("wrote the history");
  return rotationAnswer({ ...base, version, more: describe(info) });
}

async function replaceNow(context: AdminContext, pair: ServerCertificate): Promise<void> {
  const { dataDir } = context.settings;
  await writeNext(dataDir, pair, context.step);
  await installNext(dataDir, context.step);
}

async function presentInfo(dataDir: string): Promise<CertificateInfo | null> {
  return await readPair(managedPaths(dataDir, "server")).then(
    ({ certificatePem }) => inspectCertificate(certificatePem),
    () => null,
  );
}

async function announcedInfo(dataDir: string): Promise<CertificateInfo | null> {
  return await readPair(managedPaths(dataDir, "next")).then(
    ({ certificatePem }) => inspectCertificate(certificatePem),
    () => null,
  );
}

function effect({ server, settings }: AdminContext): string {
  if (server) return "new connections get it at once, present ones stay as they are";
  return `the next start shows it (${join(settings.dataDir, "tls")})`;
}

/** Throws with every problem of the pair, and of the chain behind its leaf. */
async function refuseUnusable(pair: ServerCertificate, now: number): Promise<void> {
  const problems = checkCertificate({ ...pair, now });
  if (problems.length === 0) problems.push(...await chainProblems(pair, now));
  const refusal = problems.length === 0 ? tryCertificate(pair) : null;
  if (refusal !== null) problems.push(`The QUIC engine refuses it: ${refusal}`);
  if (problems.length === 0) return;
  throw new AdminError(
    `Nothing was changed: this certificate and key cannot be used\n- ${problems.join("\n- ")}`,
  );
}

async function chainProblems({ certificatePem }: ServerCertificate, now: number): Promise<string[]> {
  const { chainDer, names } = inspectCertificate(certificatePem);
  if (chainDer.length < 2) return [];
  const caPem = chainPem(chainDer.slice(-1));
  const verified = await verifyChain({
    chainDer: chainDer.slice(0, -1),
    caPem,
    hostname: hostOf(names[0]!),
    now,
  });
  return verified.ok ? [] : [`The chain does not fit together: ${verified.reason}`];
}

function describe(info: CertificateInfo): JsonObject {
  return { fingerprint: fingerprintText(info.leafSha256), names: [...info.names], expiresAt: info.notAfter };
}

/** The TLS certificate: dates, names, chain, and whether the private key fits. */
import { hostname } from "node:os";
import { join } from "node:path";
import { messageOf } from "../base/errors.ts";
import { readTextIfThere } from "../base/files.ts";
import { type CertificateInfo, checkCertificate, inspectCertificate } from "../transport/tls.ts";
import { type DoctorCheck, type DoctorContext, fail, ok, showAge, warn } from "./doctor_check.ts";

const DAY_MS = 86_400_000;
/** An operator's certificate is replaced by hand or by ACME, at a third of 90 days. */
const WARN_MS = 30 * DAY_MS;
/** A managed one renews itself at a third of its life: at half of that it should have. */
const WARN_MANAGED_MS = 15 * DAY_MS;

/** The certificate that serves, and the managed CA. */
export async function certificateGroup(context: DoctorContext): Promise<DoctorCheck[]> {
  const { tlsCert, tlsKey, dataDir } = context.settings;
  const paths = {
    certificate: tlsCert ?? join(dataDir, "tls", "server.pem"),
    key: tlsKey ?? join(dataDir, "tls", "server.key"),
  };
  const managed = tlsCert === null;
  const certificatePem = await readTextIfThere(paths.certificate);
  const privateKeyPem = await readTextIfThere(paths.key);
  if (certificatePem === null && managed && privateKeyPem === null) {
    return [warn("certificate", "there is none yet", "The first start makes one, or `qpq-server init`")];
  }
  if (certificatePem === null || privateKeyPem === null) {
    const missing = certificatePem === null ? paths.certificate : paths.key;
    return [fail("certificate", `there is no file ${missing}`, remedyFor(managed))];
  }
  const now = context.admin.clock.now();
  const info = inspected(certificatePem);
  if (typeof info === "string") return [fail("certificate", info, remedyFor(managed))];
  const problems = checkCertificate({ certificatePem, privateKeyPem, now });
  const checks = [
    problems.length === 0
      ? ok("certificate", `${paths.certificate}: chain and key fit`)
      : fail("certificate", problems.join("; "), remedyFor(managed)),
    expiryCheck(info, { now, managed }),
    namesCheck(info, { managed, wanted: context.settings.tlsNames }),
    info.selfSigned
      ? warn(
        "certificate's issuer",
        "it is self-signed: clients can only pin it",
        "Use the managed CA, or a public one",
      )
      : ok("certificate's issuer", info.issuedBy),
  ];
  return managed ? [...checks, ...await caChecks(dataDir, now)] : checks;
}

function inspected(pem: string): CertificateInfo | string {
  try {
    return inspectCertificate(pem);
  } catch (error) {
    return messageOf(error);
  }
}

function expiryCheck(
  { notAfter }: CertificateInfo,
  { now, managed }: { now: number; managed: boolean },
): DoctorCheck {
  const name = "certificate's end";
  const day = new Date(notAfter).toISOString().slice(0, 10);
  const left = notAfter - now;
  if (left <= 0) return fail(name, `it expired on ${day}`, remedyFor(managed));
  const found = `${day}, in ${showAge(left)}`;
  if (left >= (managed ? WARN_MANAGED_MS : WARN_MS)) return ok(name, found);
  return warn(
    name,
    found,
    managed
      ? "It should have been renewed by itself: start the server, or run `qpq-server rotate tls`"
      : "Renew it, and put it where tls_cert and tls_key say: the server takes it up by itself",
  );
}

function namesCheck(
  info: CertificateInfo,
  { managed, wanted }: { managed: boolean; wanted: readonly string[] | null },
): DoctorCheck {
  const name = "certificate's names";
  const expected = managed ? wanted ?? [hostname().toLowerCase()] : wanted ?? [];
  const has = new Set(info.names.map((each) => each.toLowerCase()));
  const missing = expected.filter((each) => !has.has(each.toLowerCase()));
  if (missing.length === 0) return ok(name, info.names.join(", "));
  return warn(
    name,
    `${missing.join(", ")} ${missing.length === 1 ? "is" : "are"} not among ${info.names.join(", ")}`,
    managed
      ? "qpq-server rotate tls makes one with the present names"
      : "Get a certificate for the name that clients use",
  );
}

async function caChecks(dataDir: string, now: number): Promise<DoctorCheck[]> {
  const pem = await readTextIfThere(join(dataDir, "tls", "ca.pem"));
  if (pem === null) return [];
  const ca = inspected(pem);
  const name = "certificate authority";
  const remedy =
    "Move tls/ca.pem and tls/ca.key away and restart: a new CA is made; give clients the new tls/ca.pem";
  if (typeof ca === "string") return [fail(name, `tls/ca.pem: ${ca}`, remedy)];
  const left = ca.notAfter - now;
  const day = new Date(ca.notAfter).toISOString().slice(0, 10);
  if (left <= 0) return [fail(name, `tls/ca.pem expired on ${day}`, remedy)];
  return [
    left < 365 * DAY_MS
      ? warn(name, `tls/ca.pem ends on ${day}`, remedy)
      : ok(name, `tls/ca.pem, until ${day}`),
  ];
}

function remedyFor(managed: boolean): string {
  return managed
    ? "qpq-server rotate tls makes a new one"
    : "Put a certificate that fits its key where tls_cert and tls_key say, then `qpq-server reload`";
}

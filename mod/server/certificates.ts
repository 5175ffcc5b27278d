/**
 * The listener's certificate through its life: made at the first start, announced to clients, renewed ahead of
 * its end, warned about. Files: `tls/ca.pem`, `tls/ca.key`, `tls/server.pem`, `tls/server.key`, and, while a
 * renewal is announced, `tls/next.pem`, `tls/next.key`. With `tls_cert` and `tls_key` it only reads and warns.
 */
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { exists, readTextIfThere, writeFileAtomic } from "../base/files.ts";
import { logger } from "../base/log.ts";
import {
  type CertificateInfo,
  checkCertificate,
  inspectCertificate,
  LEAF_LIFE_MS,
  makeCa,
  makeLeaf,
} from "../transport/tls.ts";
import { fingerprintText } from "../transport/fingerprint.ts";
import type { ServerCertificate } from "../transport/transport.ts";

const log = logger("tls");

const DAY_MS = 86_400_000;
const CHECK_MS = DAY_MS;
/** The contract's warning. */
const WARN_MS = 30 * DAY_MS;
/** When a third of a leaf's life is left its successor serves: before the warning, with the daily check between. */
const REPLACE_MS = LEAF_LIFE_MS / 3 + DAY_MS;
/** For how long the successor is announced before that. */
const ANNOUNCE_MS = 7 * DAY_MS;

/** Where certificates come from. */
export interface CertificateOptions {
  readonly dataDir: string;
  /** An operator's own files; null: managed under `dataDir`. */
  readonly files: { readonly certificate: string; readonly key: string } | null;
  /** Names and addresses of a managed leaf. */
  readonly names: readonly string[];
}

/** The certificate cannot be used. The message names the file and each problem. */
export class CertificateError extends Error {
  override name = "CertificateError";
}

/** The server's certificate now and next. */
export class Certificates implements Disposable {
  readonly #options: CertificateOptions;
  readonly #clock: Clock;
  #current: ServerCertificate;
  #info: CertificateInfo;
  #next: CertificateInfo | null = null;
  #onReplaced: (certificate: ServerCertificate) => void = () => {};
  #cancel: () => void = () => {};
  /** What {@link open} had to make, in words. */
  readonly made: readonly string[];

  private constructor(
    options: CertificateOptions,
    init: { clock: Clock; current: ServerCertificate; made: readonly string[] },
  ) {
    this.#options = options;
    this.#clock = init.clock;
    this.#current = init.current;
    this.#info = inspectCertificate(init.current.certificatePem);
    this.made = init.made;
  }

  /** Reads the certificate, or makes CA and leaf when there are none. Throws CertificateError. */
  static async open(options: CertificateOptions, clock: Clock): Promise<Certificates> {
    const made: string[] = [];
    if (!options.files) await makeMissing(options, { clock, made });
    const paths = options.files ?? managedPaths(options.dataDir, "server");
    const current = await readUsable(paths, clock.now());
    const certificates = new Certificates(options, { clock, current, made });
    if (!options.files) await certificates.#readNext();
    return certificates;
  }

  /** What the listener shows. */
  get current(): ServerCertificate {
    return this.#current;
  }

  /** What is known of it. */
  get info(): CertificateInfo {
    return this.#info;
  }

  /** Lower-case hex SHA-256 of the leaf, as clients pin it. */
  get fingerprint(): string {
    return fingerprintText(this.#info.leafSha256);
  }

  /** SHA-256 of the leaf that will follow; null when none is planned. */
  get nextLeafSha256(): Uint8Array | null {
    return this.#next?.leafSha256 ?? null;
  }

  /** Leaves that a client may have pinned. */
  leafHashes(): Uint8Array[] {
    return this.#next ? [this.#info.leafSha256, this.#next.leafSha256] : [this.#info.leafSha256];
  }

  /** Warns now and watches from now on; `onReplaced` gets every new certificate. */
  start(onReplaced: (certificate: ServerCertificate) => void): void {
    this.#onReplaced = onReplaced;
    this.#warn();
    this.#schedule();
  }

  /** Prepares, announces or puts in place the next leaf, as its time has come. Managed files only. */
  async renew(): Promise<void> {
    if (this.#options.files) return;
    const left = this.#info.notAfter - this.#clock.now();
    if (left < REPLACE_MS + ANNOUNCE_MS && !this.#next) await this.#prepareNext();
    if (left < REPLACE_MS) await this.#putNextInPlace();
  }

  [Symbol.dispose](): void {
    this.#cancel();
  }

  async #prepareNext(): Promise<void> {
    const { dataDir, names } = this.#options;
    const ca = await readPair(managedPaths(dataDir, "ca"));
    const next = await makeLeaf({ ca, names, now: this.#clock.now() });
    await writePair(managedPaths(dataDir, "next"), withChain(next, ca));
    this.#next = inspectCertificate(next.certificatePem);
    log.info("made the next TLS certificate; clients are told its fingerprint {fingerprint}", {
      fingerprint: fingerprintText(this.#next.leafSha256),
    });
  }

  async #putNextInPlace(): Promise<void> {
    const { dataDir } = this.#options;
    const next = await readUsable(managedPaths(dataDir, "next"), this.#clock.now());
    await installNext(dataDir);
    this.#current = next;
    this.#info = inspectCertificate(next.certificatePem);
    this.#next = null;
    this.#onReplaced(next);
    log.info("TLS certificate renewed: {fingerprint}", { fingerprint: this.fingerprint });
    this.#warn();
  }

  async #readNext(): Promise<void> {
    const next = await readTextIfThere(managedPaths(this.#options.dataDir, "next").certificate);
    this.#next = next ? inspectCertificate(next) : null;
  }

  #warn(): void {
    const daysLeft = Math.floor((this.#info.notAfter - this.#clock.now()) / DAY_MS);
    if (daysLeft * DAY_MS < WARN_MS) log.warn("TLS certificate expires within 30 days", { daysLeft });
    if (this.#info.selfSigned) log.warn("TLS certificate is self-signed");
  }

  #schedule(): void {
    this.#cancel = this.#clock.after(CHECK_MS, () => {
      this.#warn();
      this.renew()
        .catch((error) => log.error("TLS certificate renewal failed: {error}", { error: messageOf(error) }))
        .finally(() => this.#schedule());
    });
  }
}

interface PairPaths {
  readonly certificate: string;
  readonly key: string;
}

/** Where a managed pair lies. */
export function managedPaths(dataDir: string, name: "ca" | "server" | "next"): PairPaths {
  return { certificate: join(dataDir, "tls", `${name}.pem`), key: join(dataDir, "tls", `${name}.key`) };
}

async function makeMissing(options: CertificateOptions, to: { clock: Clock; made: string[] }): Promise<void> {
  const { dataDir, names } = options;
  const server = managedPaths(dataDir, "server");
  const caPaths = managedPaths(dataDir, "ca");
  await finishInstall(dataDir);
  const now = to.clock.now();
  if (await exists(server.key) && await isCurrent(server.certificate, now)) return;
  if (!await exists(caPaths.certificate)) {
    await writePair(caPaths, await makeCa({ commonName: `quicproquo CA ${names[0] ?? ""}`.trim(), now }));
    to.made.push(`certificate authority ${caPaths.certificate}`);
  }
  const ca = await readPair(caPaths);
  await writePair(server, withChain(await makeLeaf({ ca, names, now }), ca));
  to.made.push(
    `TLS certificate ${server.certificate} for ${names[0]} and ${names.length - 1} more names and addresses`,
  );
}

/** A leaf that ended while the server was down is made again: clients find the new one through the CA. */
async function isCurrent(path: string, now: number): Promise<boolean> {
  const pem = await readTextIfThere(path);
  return pem !== null && inspectCertificate(pem).notAfter > now;
}

/**
 * The next pair becomes the server's. The key is renamed first: a crash between the two leaves server.key and
 * next.pem of one pair, which {@link finishInstall} completes at the next start.
 */
async function installNext(dataDir: string): Promise<void> {
  const next = managedPaths(dataDir, "next");
  await Deno.rename(next.key, managedPaths(dataDir, "server").key);
  await finishInstall(dataDir);
}

async function finishInstall(dataDir: string): Promise<void> {
  const next = managedPaths(dataDir, "next");
  if (await exists(next.certificate) && !await exists(next.key)) {
    await Deno.rename(next.certificate, managedPaths(dataDir, "server").certificate);
  }
}

/** The key is written last in time but first on disk: a pair without its certificate is made again. */
async function writePair(paths: PairPaths, pair: ServerCertificate): Promise<void> {
  await writeFileAtomic(paths.key, pair.privateKeyPem, { mode: 0o600 });
  await writeFileAtomic(paths.certificate, pair.certificatePem, { mode: 0o644 });
}

async function readPair(paths: PairPaths): Promise<ServerCertificate> {
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

async function readUsable(paths: PairPaths, now: number): Promise<ServerCertificate> {
  const pair = await readPair(paths);
  const problems = checkCertificate({ ...pair, now });
  if (problems.length === 0) return pair;
  throw new CertificateError(
    `Cannot use the TLS certificate ${paths.certificate} with key ${paths.key}:\n- ${problems.join("\n- ")}`,
  );
}

/** The leaf followed by its CA, so that clients can fetch the whole chain. */
function withChain(leaf: ServerCertificate, ca: ServerCertificate): ServerCertificate {
  return { ...leaf, certificatePem: leaf.certificatePem.trimEnd() + "\n" + ca.certificatePem };
}

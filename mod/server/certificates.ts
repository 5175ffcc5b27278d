/**
 * The listener's certificate through its life: read or made at the start, its successor announced to clients, put
 * in place, read again when its files change, warned about. The managed files are those of
 * mod/admin/rotate_tls_files.ts; with `tls_cert` and `tls_key` it reads, watches and warns only.
 */
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { readTextIfThere } from "../base/files.ts";
import { KeyedMutex } from "../base/keyed_mutex.ts";
import { logger } from "../base/log.ts";
import type { LiveCertificates } from "../admin/operations_live.ts";
import {
  installNext,
  isOwnLeaf,
  makeMissing,
  managedPaths,
  newLeaf,
  readUsable,
  writeNext,
} from "../admin/rotate_tls_files.ts";
import { type CertificateInfo, inspectCertificate, LEAF_LIFE_MS } from "../transport/tls.ts";
import { ANNOUNCE_MS, servesAt } from "../admin/rotate_tls_plan.ts";
import { fingerprintText } from "../transport/fingerprint.ts";
import type { ServerCertificate } from "../transport/transport.ts";
import { FileWatch } from "./certificates_watch.ts";

const log = logger("tls");

const DAY_MS = 86_400_000;
/** How often dates are looked at: a rotation announced for an hour must not wait for a day. */
const CHECK_MS = 3_600_000;
/** The contract's warning, once a day. */
const WARN_MS = 30 * DAY_MS;
/** The next leaf is made so early that it serves, after its announcement, a day before the warning would come. */
const RENEW_MS = LEAF_LIFE_MS / 3 + ANNOUNCE_MS + DAY_MS;

/** A client that connected to the former leaf has this long to resume; no longer, since its key may have leaked. */
const FORMER_MS = 60_000;

/** An operator's own files. */
export interface CertificateFiles {
  readonly certificate: string;
  readonly key: string;
}

/** Where certificates come from. */
export interface CertificateOptions {
  readonly dataDir: string;
  /** Null: managed under `dataDir`. */
  readonly files: CertificateFiles | null;
  /** Names and addresses of a managed leaf. */
  readonly names: readonly string[];
}

/** A certificate that was read and checked, and does not serve yet. */
export interface PreparedCertificate {
  readonly files: CertificateFiles | null;
  readonly pair: ServerCertificate;
  readonly next: CertificateInfo | null;
}

/** Told of changes. */
export interface CertificateEvents {
  /** New connections are to get this. Throws when it cannot be used; then the old one stays. */
  readonly onReplaced: (certificate: ServerCertificate) => void;
  /** It was renewed or its files changed, by itself. */
  readonly onRotated: (how: string) => Promise<void>;
}

/** The server's certificate now and next. */
export class Certificates implements LiveCertificates, Disposable {
  readonly #dataDir: string;
  readonly #names: readonly string[];
  readonly #clock: Clock;
  readonly #mutex = new KeyedMutex();
  #now: PreparedCertificate;
  #info: CertificateInfo;
  /** The leaf before, and until when (monotonic ms) it counts. */
  #former: { leafSha256: Uint8Array; until: number } | null = null;
  #events: CertificateEvents = { onReplaced: () => {}, onRotated: async () => {} };
  #cancel: () => void = () => {};
  #watch: FileWatch | null = null;
  #warnedAt: number | null = null;
  #failure = "";
  /** What {@link open} had to make, in words. */
  readonly made: readonly string[];

  private constructor(
    options: CertificateOptions,
    init: { clock: Clock; now: PreparedCertificate; made: readonly string[] },
  ) {
    this.#dataDir = options.dataDir;
    this.#names = options.names;
    this.#clock = init.clock;
    this.#now = init.now;
    this.#info = inspectCertificate(init.now.pair.certificatePem);
    this.made = init.made;
  }

  /** Reads the certificate, or makes CA and leaf when there are none. Throws CertificateError. */
  static async open(options: CertificateOptions, clock: Clock): Promise<Certificates> {
    const { made, ...now } = await prepare(options, clock.now());
    return new Certificates(options, { clock, now, made });
  }

  /** What the listener shows. */
  get current(): ServerCertificate {
    return this.#now.pair;
  }

  /** What is known of it. */
  get info(): CertificateInfo {
    return this.#info;
  }

  /** The leaf that will follow; null when none is planned. */
  get next(): CertificateInfo | null {
    return this.#now.next;
  }

  /** When it does. */
  get nextServesAt(): number | null {
    return this.#now.next && servesAt(this.#now.next, this.#info);
  }

  /** Lower-case hex SHA-256 of the leaf, as clients pin it. */
  get fingerprint(): string {
    return fingerprintText(this.#info.leafSha256);
  }

  /** SHA-256 of the leaf that will follow; null when none is planned. */
  get nextLeafSha256(): Uint8Array | null {
    return this.#now.next?.leafSha256 ?? null;
  }

  /** Leaves that a client may have pinned; the former one for those who connected just before it was replaced. */
  leafHashes(): Uint8Array[] {
    const next = this.nextLeafSha256;
    const former = this.#former && this.#clock.monotonic() < this.#former.until
      ? this.#former.leafSha256
      : null;
    return [this.#info.leafSha256, next, former].filter((hash) => hash !== null);
  }

  /** Warns now and watches from now on. */
  start(events: CertificateEvents): void {
    this.#events = events;
    this.#warn();
    this.#schedule();
    this.#watchFiles();
  }

  /** Runs `work`, which changes or reads the files, while nothing else here does. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.#mutex.run("files", work);
  }

  /** Reads and checks what `files` hold, and changes nothing that serves. Throws CertificateError. */
  async prepare(files: CertificateFiles | null): Promise<PreparedCertificate> {
    return await prepare({ dataDir: this.#dataDir, names: this.#names, files }, this.#clock.now());
  }

  /** This serves from now on. Throws, and the old one stays, when the listener refuses it. False: it serves already. */
  use(prepared: PreparedCertificate): boolean {
    const changed = prepared.pair.certificatePem !== this.current.certificatePem ||
      prepared.pair.privateKeyPem !== this.current.privateKeyPem;
    if (changed) this.#events.onReplaced(prepared.pair);
    const moved = prepared.files?.certificate !== this.#now.files?.certificate ||
      prepared.files?.key !== this.#now.files?.key;
    this.#now = prepared;
    if (moved) this.#watchFiles();
    if (!changed) return false;
    this.#former = { leafSha256: this.#info.leafSha256, until: this.#clock.monotonic() + FORMER_MS };
    this.#info = inspectCertificate(prepared.pair.certificatePem);
    log.info("the TLS certificate is now {fingerprint}", { fingerprint: this.fingerprint });
    this.#warnedAt = null;
    this.#warn();
    return true;
  }

  /** Reads the files again. */
  async reload(): Promise<boolean> {
    return this.use(await this.prepare(this.#now.files));
  }

  /** Prepares, announces or puts in place the next leaf, as its time has come. Only leaves of the managed CA. */
  async renew(): Promise<void> {
    if (this.#now.files) return;
    await this.exclusively(async () => {
      const now = this.#clock.now();
      if (!this.next) {
        const due = this.#info.notAfter - now < RENEW_MS;
        if (!due || !await isOwnLeaf(this.#dataDir, this.current.certificatePem, now)) return;
        await writeNext(this.#dataDir, await newLeaf(this.#dataDir, { names: this.#names, now }));
        await this.reload();
        log.info("made the next TLS certificate; clients are told its fingerprint {fingerprint}", {
          fingerprint: fingerprintText(this.nextLeafSha256!),
        });
      }
      if (now < this.nextServesAt!) return;
      await readUsable(managedPaths(this.#dataDir, "next"), now);
      await installNext(this.#dataDir);
      await this.reload();
      await this.#events.onRotated("the announced certificate serves now");
    });
  }

  [Symbol.dispose](): void {
    this.#cancel();
    this.#watch?.[Symbol.dispose]();
  }

  #watchFiles(): void {
    this.#watch?.[Symbol.dispose]();
    const { files } = this.#now;
    this.#watch = files && new FileWatch([files.certificate, files.key], {
      clock: this.#clock,
      onChanged: () => this.#filesChanged(),
    });
  }

  /** An ACME client writes key and certificate one after the other: in between they do not fit, and the old stay. */
  async #filesChanged(): Promise<void> {
    try {
      const changed = await this.exclusively(() => this.reload());
      this.#failure = "";
      if (changed) await this.#events.onRotated("its files had changed");
    } catch (error) {
      const failure = messageOf(error);
      if (failure !== this.#failure) {
        log.warn("the changed TLS files cannot be used, the old certificate stays: {reason}", {
          reason: failure,
        });
      }
      this.#failure = failure;
    }
  }

  #warn(): void {
    const now = this.#clock.now();
    if (this.#warnedAt !== null && now - this.#warnedAt < DAY_MS) return;
    this.#warnedAt = now;
    const daysLeft = Math.floor((this.#info.notAfter - now) / DAY_MS);
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

async function prepare(
  options: CertificateOptions,
  now: number,
): Promise<PreparedCertificate & { made: string[] }> {
  const { dataDir, files, names } = options;
  if (files) return { files, pair: await readUsable(files, now), next: null, made: [] };
  const made = await makeMissing(dataDir, { names, now });
  const pair = await readUsable(managedPaths(dataDir, "server"), now);
  return { files, pair, next: await readNext(dataDir), made };
}

/** A next certificate that cannot be read was never announced by this process, and is made again when it is due. */
async function readNext(dataDir: string): Promise<CertificateInfo | null> {
  const { certificate } = managedPaths(dataDir, "next");
  const pem = await readTextIfThere(certificate);
  if (pem === null) return null;
  try {
    await readUsable(managedPaths(dataDir, "next"), inspectCertificate(pem).notAfter);
    return inspectCertificate(pem);
  } catch (error) {
    log.warn("the next TLS certificate is left out: {reason}", { reason: messageOf(error) });
    return null;
  }
}

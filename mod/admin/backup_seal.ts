/**
 * What makes a backup out of a copy of the store: opens the copy, proves that it is sound, adds the blobs that it
 * refers to, encrypts if asked, and writes lists, manifest and MAC. All of it can run in a worker (backup_thread.ts).
 */
import { join } from "node:path";
import { hex } from "../base/bytes.ts";
import { messageOf } from "../base/errors.ts";
import type { BlobHash } from "../base/ids.ts";
import { VERSION } from "../base/version.ts";
import type { AdminStore } from "../store/admin_store.ts";
import { openStoreTellingKey, type StoreBackend } from "../store/open.ts";
import { REVOCATIONS_LOG } from "../store/revocation_log.ts";
import type { Store, StoreCounts } from "../store/store.ts";
import { encrypterFor } from "./backup_age.ts";
import {
  type BackupEncryption,
  BlobCollector,
  type BlobRecord,
  type EarlierBackup,
  listText,
  parseList,
} from "./backup_blobs.ts";
import {
  type Digest,
  hashFile,
  listFiles,
  plainFileSize,
  readChunks,
  syncFile,
  syncFolders,
  writeChunks,
} from "./backup_files.ts";
import { BackupKey } from "./backup_key.ts";
import { findBackups } from "./backup_list.ts";
import {
  AGE_ENDING,
  BLOBS_LIST,
  type FileRecord,
  type Manifest,
  proveManifest,
  STORE_FOLDER,
  writeManifest,
} from "./backup_manifest.ts";
import type { Progress } from "./control.ts";
import { AdminError } from "./operations_error.ts";
import { Share } from "./backup_progress.ts";

const BLOBS_PAGE = 1000;
/** Earlier backups that are looked at for one to share blobs with. */
const EARLIER_MAX = 3;

/** What is to be sealed. */
export interface SealOptions {
  /** Holds `store/`, the copy; becomes the backup. */
  readonly folder: string;
  /** Of the server: where the blobs are. */
  readonly dataDir: string;
  /** Where earlier backups are. */
  readonly backupsDir: string;
  readonly backend: StoreBackend;
  /** Keys that may open the copy. */
  readonly keys: readonly string[];
  /** None: not encrypted. */
  readonly recipients: readonly string[];
  readonly id: string;
  readonly createdAt: number;
  /** What the copy holds, as the store said. */
  readonly counts: StoreCounts;
}

/** What was sealed. */
export interface SealReport {
  readonly manifest: Manifest;
  /** Bytes that the backup adds to the disk, and that it shares with other files. */
  readonly newBytes: number;
  readonly sharedBytes: number;
}

/** Seals a backup. Throws AdminError, and then the folder is worth nothing. */
export async function sealBackup(options: SealOptions, progress: Progress): Promise<SealReport> {
  const share = new Share(progress);
  const encryption = options.recipients.length === 0 ? null : {
    recipients: options.recipients,
    encrypt: encrypterFor(options.recipients),
  };
  const { folder } = options;
  const sound = await provenCopy(options, share.part(0, 0.4), async (store, key) => {
    const identity = {
      schemaVersion: store.schemaVersion,
      incarnation: hex(store.incarnation),
      realmId: store.realmId,
    };
    const blobs = await collectBlobs(options, { store, key, encryption }, share.part(0.4, 0.8));
    return { key, identity, blobs };
  });
  const { key, identity, blobs } = sound;
  await copyRevocations(options);
  await writeChunks(join(folder, BLOBS_LIST), listText(blobs.records));
  const files = await sealFiles(folder, encryption, share.part(0.8, 1));
  const stored = blobs.records.filter((record) => record.sha256 !== null);
  const manifest: Manifest = {
    format: 1,
    id: options.id,
    createdAt: options.createdAt,
    programVersion: VERSION,
    backend: options.backend,
    ...identity,
    dbKeyId: key.id,
    counts: options.counts,
    encryption: encryption && { recipients: encryption.recipients },
    blobs: {
      count: stored.length,
      bytes: stored.reduce((sum, { bytes }) => sum + bytes, 0),
      missing: blobs.records.length - stored.length,
    },
    files,
  };
  await writeManifest(folder, manifest, key);
  await syncFolders(folder);
  const fileBytes = files.reduce((sum, { bytes }) => sum + bytes, 0);
  return { manifest, newBytes: blobs.newBytes + fileBytes, sharedBytes: blobs.sharedBytes };
}

/** Opens the copy in its place, with the key that fits, and sees that it is sound and holds what it should. */
async function provenCopy<T>(
  options: SealOptions,
  progress: Progress,
  use: (store: Store, key: BackupKey) => Promise<T>,
): Promise<T> {
  const dataDir = join(options.folder, STORE_FOLDER);
  const { backend, keys } = options;
  const { store, key: text } = await openStoreTellingKey({ backend, dataDir, keys, mustExist: true }).catch(
    (cause) => {
      throw new AdminError(`No backup was made, as the copy does not open: ${messageOf(cause)}`, { cause });
    },
  );
  let result: T;
  try {
    const counts = await store.counts();
    const problems = [
      ...countProblems(options.counts, counts),
      ...await store.checkIntegrity(progress),
    ];
    if (problems.length > 0) {
      throw new AdminError(
        `No backup was made, as the copy of the store is not sound: ${problems.slice(0, 5).join("; ")}. ` +
          "Keep the earlier backups, and look at the store with 'qpq-server doctor'",
      );
    }
    result = await use(store, await BackupKey.derive(text, store.realmId));
  } finally {
    await store.close();
  }
  await Deno.remove(join(dataDir, "lock"));
  return result;
}

/** In which numbers two stores differ, in words. */
export function countProblems(wanted: StoreCounts, found: StoreCounts): string[] {
  return (Object.keys(wanted) as (keyof StoreCounts)[])
    .filter((name) => wanted[name] !== found[name])
    .map((name) => `${name} should be ${wanted[name]} and is ${found[name]}`);
}

async function collectBlobs(
  options: SealOptions,
  parts: { store: Store; key: BackupKey; encryption: BackupEncryption | null },
  progress: Progress,
): Promise<{ records: BlobRecord[]; newBytes: number; sharedBytes: number }> {
  const { store, key, encryption } = parts;
  const total = Math.max(1, options.counts.blobBytes);
  let done = 0;
  const collector = new BlobCollector({
    dataDir: options.dataDir,
    folder: options.folder,
    key,
    encryption,
    earlier: await findEarlier(options, { key, encryption }),
    onBytes: (bytes) => progress((done += bytes) / total),
  });
  const records: BlobRecord[] = [];
  for await (const blob of allBlobs(store)) records.push(await collector.add(blob));
  records.sort((a, b) => a.path < b.path ? -1 : 1);
  return { records, newBytes: collector.newBytes, sharedBytes: collector.sharedBytes };
}

/** Every blob that a store refers to. */
export async function* allBlobs(
  store: Pick<AdminStore, "listBlobs">,
): AsyncGenerator<{ hash: BlobHash; bytes: number }> {
  for (let after: BlobHash | null = null;;) {
    const page: { hash: BlobHash; bytes: number }[] = await store.listBlobs({ after, limit: BLOBS_PAGE });
    yield* page;
    if (page.length < BLOBS_PAGE) return;
    after = page.at(-1)!.hash;
  }
}

/** The newest backup of the same kind that nobody has changed. */
async function findEarlier(
  options: SealOptions,
  { key, encryption }: { key: BackupKey; encryption: BackupEncryption | null },
): Promise<EarlierBackup | null> {
  const wanted = recipientsOf(encryption);
  const candidates = (await findBackups(options.backupsDir)).filter(({ manifest }) =>
    manifest !== null && recipientsOf(manifest.encryption) === wanted &&
    (encryption === null || manifest.dbKeyId === key.id)
  ).reverse();
  for (const { folder } of candidates.slice(0, EARLIER_MAX)) {
    try {
      const { manifest } = await proveManifest(folder, [key.text, ...options.keys]);
      if (!encryption) return { folder, records: new Map() };
      return { folder, records: await earlierRecords(folder, manifest) };
    } catch {
      // A damaged backup is nothing to build on; the next older one may do, and none is no loss but of space.
    }
  }
  return null;
}

async function earlierRecords(folder: string, manifest: Manifest): Promise<Map<string, BlobRecord>> {
  const path = join(folder, BLOBS_LIST);
  const { sha256 } = manifest.files.find((file) => file.path === BLOBS_LIST)!;
  if ((await hashFile(path)).sha256 !== sha256) throw new AdminError(`${path} is damaged`);
  return await parseList(readChunks(path), { encrypted: true });
}

function recipientsOf(encryption: { readonly recipients: readonly string[] } | null): string {
  return encryption ? [...new Set(encryption.recipients)].sort().join(" ") : "";
}

async function copyRevocations({ dataDir, folder }: SealOptions): Promise<void> {
  const source = join(dataDir, REVOCATIONS_LOG);
  if (await plainFileSize(source) === null) return;
  await writeChunks(join(folder, REVOCATIONS_LOG), readChunks(source));
}

/** Records of all files but blobs; each is encrypted in its place if that is wanted. */
async function sealFiles(
  folder: string,
  encryption: BackupEncryption | null,
  progress: Progress,
): Promise<FileRecord[]> {
  const paths = (await listFiles(folder)).filter((path) => !path.startsWith("blobs/"));
  const sizes = await Promise.all(paths.map((path) => plainFileSize(join(folder, path))));
  const total = Math.max(1, sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0));
  let done = 0;
  const onBytes = (bytes: number) => progress((done += bytes) / total);
  const records: FileRecord[] = [];
  for (const path of paths) {
    const source = join(folder, path);
    let digest: Digest;
    const encrypted = encryption !== null && path !== BLOBS_LIST;
    if (encrypted) {
      digest = await writeChunks(source + AGE_ENDING, encryption.encrypt(readChunks(source)), onBytes);
      await Deno.remove(source);
    } else {
      await syncFile(source);
      digest = await hashFile(source, onBytes);
    }
    records.push({ path: encrypted ? path + AGE_ENDING : path, ...digest });
  }
  return records;
}

/**
 * A backup opened somewhere else than where it lies, with everything checked that can be: SHA-256 and size of every
 * file as it is read, integrity and counts of the store, and that each blob which the store refers to is there. It is
 * how a backup is verified, and what a restore puts in its place. The backup itself is only read.
 */
import { join } from "node:path";
import type { BlobHash } from "../base/ids.ts";
import { openStore } from "../store/open.ts";
import { REVOCATIONS_LOG } from "../store/revocation_log.ts";
import type { Store } from "../store/store.ts";
import { decrypterFor } from "./backup_age.ts";
import { blobPath, type BlobRecord, parseList } from "./backup_blobs.ts";
import {
  type Digest,
  Hasher,
  hashFile,
  makeFolder,
  makeFolderOf,
  plainFileSize,
  plainPath,
  readChunks,
  tryLink,
  writeChunks,
} from "./backup_files.ts";
import type { BackupKey } from "./backup_key.ts";
import { AGE_ENDING, BLOBS_LIST, type FileRecord, type Manifest, STORE_FOLDER } from "./backup_manifest.ts";
import { Share } from "./backup_progress.ts";
import { allBlobs, countProblems } from "./backup_seal.ts";
import type { Progress } from "./control.ts";
import { AdminError } from "./operations_error.ts";

/** Problems of blobs that are told one by one. */
const PROBLEMS_MAX = 100;

/** A backup that is to be unpacked. */
export interface UnpackOptions {
  readonly folder: string;
  readonly manifest: Manifest;
  readonly key: BackupKey;
  /** Text of an age identity file; needed for an encrypted backup. */
  readonly identity: string | null;
  /** Exists and is empty; the store's part of a data folder is made in it. */
  readonly into: string;
  /** `check` reads every blob; `put` also puts them into `into`, as a data folder has them. */
  readonly blobs: "check" | "put";
}

/** What was found. */
export interface Unpacked<T> {
  /** Of the caller's work on the open store. */
  readonly result: T;
  readonly blobs: number;
  /** Blobs whose file is damaged or missing in the backup, in words. */
  readonly blobProblems: readonly string[];
  /** Blobs that the server itself had lost when the backup was made. */
  readonly blobsMissing: number;
}

/**
 * Unpacks a backup and runs `use` on the store in it while it is open. Throws AdminError when a file of the store is
 * damaged, it does not open, or it is not sound; damaged blobs are only told.
 */
export async function unpackBackup<T>(
  options: UnpackOptions,
  progress: Progress,
  use: (store: Store) => Promise<T>,
): Promise<Unpacked<T>> {
  const share = new Share(progress);
  const { manifest, into, folder } = options;
  const decrypt = decryption(options);
  await unpackFiles(options, decrypt, share.part(0, 0.3));
  const list = await readList(folder, manifest);
  const { backend, counts } = manifest;
  const store = await openStore({ backend, dataDir: into, keys: [options.key.text], mustExist: true });
  try {
    const problems = [
      ...countProblems(counts, await store.counts()),
      ...await store.checkIntegrity(share.part(0.3, 0.5)),
    ];
    if (problems.length > 0) {
      throw new AdminError(`The store in ${folder} is not sound: ${problems.slice(0, 5).join("; ")}`);
    }
    const found = await unpackBlobs(options, { store, list, decrypt }, share.part(0.5, 1));
    return { ...found, result: await use(store) };
  } finally {
    await store.close();
  }
}

type Decrypt = ((chunks: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>) | null;

function decryption({ manifest, identity, folder }: UnpackOptions): Decrypt {
  if (!manifest.encryption) return null;
  if (identity !== null) return decrypterFor(identity);
  throw new AdminError(
    `The backup ${folder} is encrypted to ${manifest.encryption.recipients.join(", ")}: give --identity FILE`,
  );
}

/** The list of blobs, proven by its record. Throws AdminError. */
export async function readList(folder: string, manifest: Manifest): Promise<Map<string, BlobRecord>> {
  const record = manifest.files.find(({ path }) => path === BLOBS_LIST)!;
  const path = await sourceOf(folder, record);
  refuseDamaged(path, record, await hashFile(path));
  return await parseList(readChunks(path), { encrypted: manifest.encryption !== null });
}

/** Hashes every file of a backup but its blobs. Throws AdminError for the first that is not as its record says. */
export async function checkFiles(folder: string, manifest: Manifest, progress: Progress): Promise<void> {
  const total = Math.max(1, manifest.files.reduce((sum, { bytes }) => sum + bytes, 0));
  let done = 0;
  for (const record of manifest.files) {
    const path = await sourceOf(folder, record);
    refuseDamaged(path, record, await hashFile(path, (bytes) => progress((done += bytes) / total)));
  }
}

async function unpackFiles(options: UnpackOptions, decrypt: Decrypt, progress: Progress): Promise<void> {
  const { folder, manifest, into } = options;
  // Encrypted files are read twice: age would tell of damage, but not that it is the file's and not the identity's.
  if (decrypt) await checkFiles(folder, manifest, (share) => progress(share / 2));
  const total = Math.max(1, manifest.files.reduce((sum, { bytes }) => sum + bytes, 0));
  let done = 0;
  const onBytes = (bytes: number) => progress((decrypt ? 0.5 : 0) + (done += bytes) / total);
  for (const record of manifest.files) {
    const target = targetOf(record.path, into);
    if (target === null) continue;
    const source = await sourceOf(folder, record);
    await makeFolderOf(target);
    const chunks = decrypt ? decrypt(readChunks(source)) : readChunks(source);
    const digest = await writeChunks(target, chunks, onBytes);
    if (!decrypt) refuseDamaged(source, record, digest);
  }
}

/** Where a file goes in a data folder; null for what has no place there. */
function targetOf(path: string, into: string): string | null {
  const plain = path.endsWith(AGE_ENDING) ? path.slice(0, -AGE_ENDING.length) : path;
  if (plain === REVOCATIONS_LOG) return join(into, plain);
  return plain.startsWith(`${STORE_FOLDER}/`) ? join(into, plain.slice(STORE_FOLDER.length + 1)) : null;
}

async function sourceOf(folder: string, { path, bytes }: FileRecord): Promise<string> {
  const source = await plainPath(folder, path);
  const size = await plainFileSize(source);
  if (size === null) throw new AdminError(`The backup ${folder} is damaged: ${path} is missing`);
  if (size === bytes) return source;
  throw new AdminError(`The backup ${folder} is damaged: ${path} has ${size} bytes instead of ${bytes}`);
}

function refuseDamaged(path: string, record: FileRecord, found: Digest): void {
  if (found.sha256 === record.sha256 && found.bytes === record.bytes) return;
  throw new AdminError(`The backup's file ${path} is damaged: its SHA-256 is not the one in the manifest`);
}

async function unpackBlobs(
  options: UnpackOptions,
  parts: { store: Store; list: ReadonlyMap<string, BlobRecord>; decrypt: Decrypt },
  progress: Progress,
): Promise<Omit<Unpacked<never>, "result">> {
  const { manifest, key } = options;
  const total = Math.max(1, manifest.counts.blobBytes);
  let [blobs, blobsMissing, done] = [0, 0, 0];
  const blobProblems: string[] = [];
  if (options.blobs === "put") await makeFolder(join(options.into, "blobs"));
  for await (const blob of allBlobs(parts.store)) {
    const record = parts.list.get(await blobPath(blob.hash, key, manifest.encryption !== null));
    blobs++;
    if (record?.sha256 === null) blobsMissing++;
    else {
      const problem = record
        ? await unpackBlob(options, { blob, record, decrypt: parts.decrypt })
        : `blob ${blob.hash} is not in the list`;
      if (problem !== null && blobProblems.length < PROBLEMS_MAX) blobProblems.push(problem);
    }
    progress((done += blob.bytes) / total);
  }
  return { blobs, blobsMissing, blobProblems };
}

/** Checks a blob, and puts it where it belongs; what is wrong with it, in words. */
async function unpackBlob(
  options: UnpackOptions,
  { blob, record, decrypt }: {
    blob: { hash: BlobHash; bytes: number };
    record: BlobRecord;
    decrypt: Decrypt;
  },
): Promise<string | null> {
  const { folder, into } = options;
  const source = await plainPath(folder, record.path);
  if (await plainFileSize(source) !== record.bytes) return `${record.path} is missing or has another size`;
  const target = join(into, "blobs", blob.hash.slice(0, 2), blob.hash.slice(2));
  if (options.blobs === "put") await makeFolderOf(target);
  const digest = decrypt
    ? await readEncrypted(source, { record, decrypt, target: options.blobs === "put" ? target : null })
    : await readPlain(source, options.blobs === "put" ? target : null);
  if (digest?.sha256 === blob.hash && digest.bytes === blob.bytes) return null;
  await Deno.remove(target).catch(() => {}); // there is none when it was only checked
  return `${record.path} is damaged`;
}

/** Linked where that is possible: a blob is never written to again, only removed. */
async function readPlain(source: string, target: string | null): Promise<Digest> {
  if (target !== null && !await tryLink(source, target)) {
    return await writeChunks(target, readChunks(source));
  }
  return await hashFile(source);
}

/** Null: the encrypted file is not what was written. */
async function readEncrypted(
  source: string,
  options: { record: BlobRecord; decrypt: NonNullable<Decrypt>; target: string | null },
): Promise<Digest | null> {
  const { record, decrypt, target } = options;
  if ((await hashFile(source)).sha256 !== record.sha256) return null;
  if (target !== null) return await writeChunks(target, decrypt(readChunks(source)));
  const hasher = new Hasher();
  for await (const chunk of decrypt(readChunks(source))) hasher.add(chunk);
  return hasher.end();
}

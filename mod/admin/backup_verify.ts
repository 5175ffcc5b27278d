/**
 * `backup verify`: really opens a backup, in a temporary place, and checks everything in it. An encrypted one is
 * opened with its identity; without it the encrypted files are checked against the manifest, which shows damage, and
 * nothing more is claimed.
 */
import { messageOf } from "../base/errors.ts";
import { hashFile, makeFolder, plainFileSize, plainPath, removeAll } from "./backup_files.ts";
import { type Manifest, proveManifest } from "./backup_manifest.ts";
import { Share } from "./backup_progress.ts";
import { checkFiles, readList, unpackBackup } from "./backup_unpack.ts";
import type { Progress } from "./control.ts";

/** What to verify. */
export interface VerifyOptions {
  readonly folder: string;
  readonly keys: readonly string[];
  /** Text of an age identity file. */
  readonly identity: string | null;
  /** Made for this and removed again. */
  readonly temporary: string;
}

/** What was found. */
export interface Verified {
  readonly ok: boolean;
  /** What is wrong, in words; empty when all is well. */
  readonly problems: readonly string[];
  /** False: the backup is encrypted and no identity was given; only its files were checked. */
  readonly opened: boolean;
  /** Null: not even the manifest can be believed. */
  readonly manifest: Manifest | null;
  readonly blobsMissing: number;
}

/** Verifies a backup. Rejects only when that cannot be done here, as on a full disk. */
export async function verifyBackup(options: VerifyOptions, progress: Progress): Promise<Verified> {
  const { folder, identity } = options;
  let proven: Awaited<ReturnType<typeof proveManifest>>;
  try {
    proven = await proveManifest(folder, options.keys);
  } catch (error) {
    return { ok: false, problems: [messageOf(error)], opened: false, manifest: null, blobsMissing: 0 };
  }
  const { manifest, key } = proven;
  const opened = manifest.encryption === null || identity !== null;
  try {
    if (!opened) {
      const problems = await checkStored(folder, manifest, progress);
      const blobsMissing = manifest.blobs.missing;
      return { ok: problems.length === 0, problems, opened, manifest, blobsMissing };
    }
    const into = options.temporary;
    await makeFolder(into);
    const found = await unpackBackup(
      { folder, manifest, key, identity, into, blobs: "check" },
      progress,
      async () => {},
    );
    const { blobProblems: problems, blobsMissing } = found;
    return { ok: problems.length === 0, problems, opened, manifest, blobsMissing };
  } catch (error) {
    return { ok: false, problems: [messageOf(error)], opened, manifest, blobsMissing: 0 };
  } finally {
    await removeAll(options.temporary);
  }
}

/** Every file as it lies there, encrypted or not. */
async function checkStored(folder: string, manifest: Manifest, progress: Progress): Promise<string[]> {
  const share = new Share(progress);
  await checkFiles(folder, manifest, share.part(0, 0.5));
  const problems: string[] = [];
  const tell = share.part(0.5, 1);
  let done = 0;
  for (const { path, bytes, sha256 } of (await readList(folder, manifest)).values()) {
    if (sha256 === null) continue;
    const source = await plainPath(folder, path);
    if (await plainFileSize(source) !== bytes) problems.push(`${path} is missing or has another size`);
    else if ((await hashFile(source)).sha256 !== sha256) problems.push(`${path} is damaged`);
    tell((done += bytes) / Math.max(1, manifest.blobs.bytes));
  }
  return problems;
}

/**
 * Small files in the data folder that operations write: atomically, with their mode, and owned by whoever owns the
 * folder. An operator who works on a stopped server as root must not leave files that the server cannot read.
 */
import { keepOwner, writeFileAtomic } from "../base/files.ts";

/** Writes a file that only its owner may read; durable when it resolves. */
export async function writeSecretFile(path: string, text: string): Promise<void> {
  await writeManagedFile(path, text, 0o600);
}

/** Writes a file of the data folder. */
export async function writeManagedFile(path: string, text: string, mode: number): Promise<void> {
  await writeFileAtomic(path, text, { mode });
  await keepOwner(path);
}

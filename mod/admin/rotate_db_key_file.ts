/**
 * The database key's files. `secrets/db-key` is the managed one: the first line is wanted, the others may still open
 * the store, so that a crash at any point of a rotation leaves a server that starts. `secrets/db-key.old` has the keys
 * of before, newest first: backups from then need them.
 */
import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { readTextIfThere, syncFolder } from "../base/files.ts";
import { managedSecretPath } from "../config/load.ts";
import { optionOf, type Settings } from "../config/options.ts";
import { Refusal } from "../config/values.ts";
import { AdminError } from "./operations_error.ts";
import { writeSecretFile } from "./secret_file.ts";

/** Keys of before that are kept. */
const OLD_KEYS_MAX = 50;
/** A new store is at most as large as the old one, but for a little. */
const SPACE_FACTOR = 1.05;
const SPACE_EXTRA_BYTES = 16 << 20;

/** Keys that may open the store of `settings`, the wanted one first; null when there is none. */
export function storeKeysOf(
  { dbKey, allowPlaintextStore }: Pick<Settings, "dbKey" | "allowPlaintextStore">,
): readonly string[] | null {
  if (!dbKey) return allowPlaintextStore ? [""] : null;
  // An unencrypted store that is allowed gets its key by a rotation, which a crash may interrupt.
  return allowPlaintextStore ? [...dbKey.lines, ""] : dbKey.lines;
}

/** Lines of a key file as it is now. Throws AdminError when it cannot be used. */
export async function readKeyLines(path: string): Promise<string[]> {
  const text = await readTextIfThere(path);
  if (text === null) {
    throw new AdminError(
      `There is no file ${path}: put it back (from your safe copy) before the key is changed`,
    );
  }
  const lines = optionOf("db_key").read(text);
  if (lines instanceof Refusal) throw new AdminError(`The file ${path} ${lines.text}`);
  return lines as string[];
}

/** Writes the managed key file. */
export async function writeKeyLines(dataDir: string, lines: readonly string[]): Promise<void> {
  await writeSecretFile(managedSecretPath(dataDir, "db_key"), linesText(lines));
}

/**
 * Like {@link writeKeyLines}; returns what undoes it, also on a disk that is full by then: the former file keeps a
 * second name until {@link forgetFormerLines}.
 */
export async function replaceKeyLines(
  dataDir: string,
  lines: readonly string[],
): Promise<() => Promise<void>> {
  const path = managedSecretPath(dataDir, "db_key");
  const former = formerPath(dataDir);
  await forgetFormerLines(dataDir);
  const before = await readTextIfThere(path);
  const linked = before !== null && await Deno.link(path, former).then(() => true, () => false);
  await writeKeyLines(dataDir, lines);
  return async () => {
    if (linked) await Deno.rename(former, path);
    else if (before === null) await Deno.remove(path);
    else await writeSecretFile(path, before);
    await syncFolder(dirname(path));
  };
}

/** Takes away what {@link replaceKeyLines} has kept. */
export async function forgetFormerLines(dataDir: string): Promise<void> {
  await Deno.remove(formerPath(dataDir)).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
}

function formerPath(dataDir: string): string {
  return `${managedSecretPath(dataDir, "db_key")}.former`;
}

/** Where the keys of before are kept. */
export function oldKeysPath(dataDir: string): string {
  return `${managedSecretPath(dataDir, "db_key")}.old`;
}

/** Keeps a key for the backups that were made under it. */
export async function keepOldKey(dataDir: string, key: string): Promise<void> {
  const path = oldKeysPath(dataDir);
  const known = (await readTextIfThere(path) ?? "").split("\n").filter((line) => line !== "" && line !== key);
  await writeSecretFile(path, linesText([key, ...known].slice(0, OLD_KEYS_MAX)));
}

/** Refuses before anything is begun when the disk has no room for a second store. */
export async function refuseWithoutSpace(dataDir: string, storeBytes: number): Promise<void> {
  const needed = Math.ceil(storeBytes * SPACE_FACTOR) + SPACE_EXTRA_BYTES;
  const { bavail, bsize } = await statfs(dataDir);
  const free = bavail * bsize;
  if (free >= needed) return;
  throw new AdminError(
    `The database is written anew beside the old one and needs ${
      megabytes(needed)
    } MB, but the disk of ${dataDir} ` +
      `has ${megabytes(free)} MB free: free some space; nothing was changed`,
  );
}

function megabytes(bytes: number): number {
  return Math.ceil(bytes / 1_000_000);
}

function linesText(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join("");
}

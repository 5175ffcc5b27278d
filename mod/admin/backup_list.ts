/**
 * The folder that backups lie in. `20260131T033000Z-1a2b3c` is a backup, whole since it got that name; a name with a
 * dot before it is being made, looked at or removed, and worth nothing when its process has ended.
 */
import { basename, isAbsolute, join, resolve } from "node:path";
import { hex, randomBytes, sha256, utf8 } from "../base/bytes.ts";
import { messageOf } from "../base/errors.ts";
import type { Settings } from "../config/options.ts";
import { isPlainFolder, removeAll } from "./backup_files.ts";
import { MANIFEST, type Manifest, readManifest } from "./backup_manifest.ts";
import { AdminError } from "./operations_error.ts";

const NAME = /^\d{8}T\d{6}Z-[0-9a-f]{6}$/;
/** Beginnings of names that are no backups. */
export type DraftKind = "making" | "verifying" | "removing";

/** A backup in a folder of backups; `manifest` null: it cannot be read, as `problem` says. */
export interface FoundBackup {
  readonly id: string;
  readonly folder: string;
  readonly manifest: Manifest | null;
  readonly problem: string | null;
}

/** Where backups lie. */
export function backupsDirOf(settings: Settings): string {
  return resolve(settings.backup.dir ?? join(settings.dataDir, "backups"));
}

/** A name for a backup that is made at `now`: names are in order of time. */
export function newBackupId(now: number): string {
  const time = new Date(now).toISOString().replaceAll(/[-:]|\.\d+/g, "");
  return `${time}-${hex(randomBytes(3))}`;
}

/** Every backup in `backupsDir`, oldest first; none when there is no such folder. */
export async function findBackups(backupsDir: string): Promise<FoundBackup[]> {
  const found: FoundBackup[] = [];
  for (const id of await backupNames(backupsDir)) {
    const folder = join(backupsDir, id);
    try {
      const manifest = await readManifest(folder);
      found.push({ id, folder, manifest, problem: null });
    } catch (error) {
      found.push({ id, folder, manifest: null, problem: messageOf(error) });
    }
  }
  return found;
}

/** The newest backup whose manifest can be read; null when there is none. Looks at no more than it must. */
export async function newestBackup(backupsDir: string): Promise<FoundBackup | null> {
  for (const id of (await backupNames(backupsDir)).reverse()) {
    const folder = join(backupsDir, id);
    const manifest = await readManifest(folder).catch(() => null);
    if (manifest) return { id, folder, manifest, problem: null };
  }
  return null;
}

async function backupNames(backupsDir: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name, isDirectory } of Deno.readDir(backupsDir)) {
      if (isDirectory && NAME.test(name)) names.push(name);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return names.sort();
}

/** The folder that somebody names: a path, or the id of a backup in `backupsDir`; null is the newest. */
export async function resolveBackup(name: string | null, backupsDir: string): Promise<string> {
  if (name === null) {
    const newest = await newestBackup(backupsDir);
    if (newest) return newest.folder;
    throw new AdminError(`There is no backup in ${backupsDir}: 'qpq-server backup create' makes one`);
  }
  const path = basename(name) === MANIFEST ? name.slice(0, -MANIFEST.length) || "." : name;
  const candidates = isAbsolute(path) ? [path] : [resolve(path), join(backupsDir, path)];
  for (const candidate of candidates) if (await isPlainFolder(candidate)) return candidate;
  throw new AdminError(`There is no backup ${name}, neither as a path nor in ${backupsDir}`);
}

/** A hidden folder beside the backups; its name tells whose it is. */
export async function draftFolder(backupsDir: string, kind: DraftKind, dataDir: string): Promise<string> {
  return join(backupsDir, `.${kind}-${await ownerMark(dataDir)}-${hex(randomBytes(4))}`);
}

/** Removes what an earlier process of the same data folder has left. Others may share the folder of backups. */
export async function removeDrafts(
  backupsDir: string,
  options: { readonly kinds: readonly DraftKind[]; readonly dataDir: string },
): Promise<void> {
  const mark = await ownerMark(options.dataDir);
  const beginnings = options.kinds.map((kind) => `.${kind}-${mark}-`);
  try {
    for await (const { name } of Deno.readDir(backupsDir)) {
      if (beginnings.some((beginning) => name.startsWith(beginning))) await removeAll(join(backupsDir, name));
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

async function ownerMark(dataDir: string): Promise<string> {
  const path = await Deno.realPath(dataDir).catch(() => resolve(dataDir));
  return hex(await sha256(utf8(`${path}`))).slice(0, 8);
}

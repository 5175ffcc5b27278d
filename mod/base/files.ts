/**
 * Small files written so that a crash leaves the old one or the new one, never half of one; and files that are opened
 * where somebody else could have put a symbolic link. Root may work in a folder that the server's user owns: what it
 * writes or gives away there must not lie elsewhere.
 */
import { lchown } from "node:fs";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { randomId } from "./ids.ts";

/** Writes `data` to `path` through a temporary file beside it; durable when it resolves. */
export async function writeFileAtomic(
  path: string,
  data: string | Uint8Array,
  options: { mode: number },
): Promise<void> {
  const temporary = `${path}.${randomId().slice(0, 8)}.tmp`;
  try {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    using file = await Deno.open(temporary, { write: true, createNew: true, mode: options.mode });
    for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
    await file.sync();
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary).catch(() => {});
    throw error;
  }
  await syncFolder(dirname(path));
}

/** Opens a file that is no symbolic link, nor becomes one meanwhile; throws otherwise, and has written nothing. */
export async function openPlainFile(path: string, options: Deno.OpenOptions): Promise<Deno.FsFile> {
  if (await isLink(path)) throw linkRefused(path); // one that leads to nothing would have a file made there
  const file = await Deno.open(path, options);
  try {
    const [opened, there] = [await file.stat(), await Deno.lstat(path)];
    if (there.isSymlink || opened.ino !== there.ino || opened.dev !== there.dev) throw linkRefused(path);
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}

async function isLink(path: string): Promise<boolean> {
  try {
    return (await Deno.lstat(path)).isSymlink;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function linkRefused(path: string): Error {
  return new Error(`${path} is a symbolic link, or was replaced meanwhile: remove it`);
}

/** Gives what root made to the owner of the folder that it lies in; a symbolic link itself, not what it leads to. */
export async function keepOwner(path: string): Promise<void> {
  if (Deno.build.os === "windows" || Deno.uid() !== 0) return;
  const { uid, gid } = await Deno.stat(dirname(path));
  if (uid !== null && gid !== null && uid !== 0) await giveTo(path, { uid, gid });
}

/** Changes the owner of a file or folder, or of a symbolic link itself. */
export async function giveTo(path: string, owner: { uid: number; gid: number }): Promise<void> {
  await promisify(lchown)(path, owner.uid, owner.gid);
}

/** Makes renames and removals in a folder durable. */
export async function syncFolder(path: string): Promise<void> {
  if (Deno.build.os === "windows") return; // folders cannot be opened there
  using folder = await Deno.open(path);
  await folder.sync();
}

/** Text of a file; null when there is none. */
export async function readTextIfThere(path: string): Promise<string | null> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** Is there anything at this path? */
export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

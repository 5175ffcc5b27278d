/**
 * Putting a new store in the place of the one that is there, so that a crash at any point leaves one of the two. The
 * names in a data folder, for the base `qpq.db` or `journal`:
 *
 *   BASE.rekeying   being written, worth nothing
 *   BASE.rekeyed    complete, checked and on disk; about to become BASE
 *   BASE.old-1, -2  what BASE was before; kept until somebody removes it
 *   BASE.checking   a copy whose integrity is being checked
 *
 * A file is first linked to its old name and then replaced in one step, where the file system has links. Otherwise,
 * and for folders, BASE is away for a moment: {@link settleSwap} puts BASE.rekeyed there when a crash fell into it.
 */
import { join } from "node:path";
import { exists, syncFolder } from "../base/files.ts";
import { logger } from "../base/log.ts";

const log = logger("store");

/** Name of a store's file or folder in the data folder. */
export type StoreBase = "qpq.db" | "journal";

/** Files that SQLite may have beside a database. */
const SUFFIXES = ["", "-wal", "-shm", "-journal"];

/** Where the new store is written. */
export function draftPath(dataDir: string, base: StoreBase): string {
  return join(dataDir, `${base}.rekeying`);
}

/** Removes the new store, complete or not, and a copy that was being checked. */
export async function removeDraft(dataDir: string, base: StoreBase): Promise<void> {
  for (const state of ["rekeying", "rekeyed", "checking"]) {
    for (const suffix of SUFFIXES) await removeIfThere(join(dataDir, `${base}.${state}${suffix}`));
  }
}

/** Paths of the stores that were replaced, oldest first. */
export async function findOldStores(dataDir: string, base: StoreBase): Promise<string[]> {
  const prefix = `${base}.old-`;
  const numbers: number[] = [];
  for await (const { name } of Deno.readDir(dataDir)) {
    const number = name.startsWith(prefix) ? name.slice(prefix.length) : "";
    if (/^\d+$/.test(number)) numbers.push(Number(number));
  }
  return numbers.sort((a, b) => a - b).map((number) => oldPath(dataDir, base, number));
}

function oldPath(dataDir: string, base: StoreBase, number: number): string {
  return join(dataDir, `${base}.old-${number}`);
}

async function nextOldPath(dataDir: string, base: StoreBase): Promise<string> {
  const last = (await findOldStores(dataDir, base)).at(-1);
  return oldPath(dataDir, base, last ? Number(last.slice(last.lastIndexOf("-") + 1)) + 1 : 1);
}

/** The new store is complete, checked and synced: it gets the name that says so. */
export async function completeDraft(dataDir: string, base: StoreBase): Promise<void> {
  await Deno.rename(draftPath(dataDir, base), join(dataDir, `${base}.rekeyed`));
  await syncFolder(dataDir);
}

/**
 * Puts the completed draft in the place of the store, which no one has open; returns where the former one is. When
 * it throws, the former one is in its place.
 */
export async function swapIn(dataDir: string, base: StoreBase): Promise<string> {
  const old = await nextOldPath(dataDir, base);
  const current = join(dataDir, base);
  const linked = base === "qpq.db" && await Deno.link(current, old).then(() => true, () => false);
  if (!linked) await Deno.rename(current, old);
  try {
    await Deno.rename(join(dataDir, `${base}.rekeyed`), current);
  } catch (error) {
    // Renaming one name of a file to its other name does nothing.
    if (linked) await Deno.remove(old);
    else await Deno.rename(old, current);
    throw error;
  }
  await syncFolder(dataDir);
  return old;
}

/** Gives a store that no one has open its old name, and leaves its place empty; returns where it is. */
export async function putAside(dataDir: string, base: StoreBase): Promise<string> {
  const old = await nextOldPath(dataDir, base);
  await Deno.rename(join(dataDir, base), old);
  await syncFolder(dataDir);
  return old;
}

/** Undoes {@link swapIn}: the former store is back, the new one gone. */
export async function swapBack(dataDir: string, base: StoreBase, old: string): Promise<void> {
  const current = join(dataDir, base);
  await Deno.rename(current, join(dataDir, `${base}.rekeyed`));
  await Deno.rename(old, current);
  await removeDraft(dataDir, base);
  await syncFolder(dataDir);
}

/** Before opening: finishes or undoes a swap that a crash has interrupted, and tells of old stores. */
export async function settleSwap(dataDir: string, base: StoreBase): Promise<void> {
  const current = join(dataDir, base);
  const completed = join(dataDir, `${base}.rekeyed`);
  if (!await exists(current) && await exists(completed)) {
    await Deno.rename(completed, current);
    log.warn("the store's change of key was interrupted and is now complete; it opens with the new key", {
      path: current,
    });
  }
  await removeDraft(dataDir, base);
  for (const old of await findOldStores(dataDir, base)) {
    if (await isSameFile(old, current)) await Deno.remove(old);
    else log.warn("an old store is kept under its old key; remove it when it is not needed", { path: old });
  }
  // Also what a process did that was killed before its own sync: what is written from now on relies on it.
  await syncFolder(dataDir);
}

/** A crash between link and rename leaves two names of one file. */
async function isSameFile(one: string, other: string): Promise<boolean> {
  const [a, b] = [await Deno.stat(one), await Deno.stat(other).catch(() => null)];
  return b !== null && a.isFile && a.ino !== null && a.ino === b.ino && a.dev === b.dev;
}

async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

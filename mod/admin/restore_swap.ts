/** The last part of a restore: a few renames, undone together when one of them fails. */
import { join } from "node:path";
import { exists, giveTo, syncFolder } from "../base/files.ts";
import { RESTORE_MARK } from "../store/restore_mark.ts";
import { makeFolder, removeAll, writeDurably } from "./backup_files.ts";

/** What makes up a store in a data folder, whichever backend it is of, and its blobs. */
const STORE_NAMES = ["qpq.db", "qpq.db-wal", "qpq.db-shm", "qpq.db-journal", "journal", "blobs"];
/** Replaced, but with what it held merged in. */
const MERGED_NAMES = ["revocations.log"];

/** Names of what a restore would replace in a data folder. */
export async function theStoreIn(into: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of STORE_NAMES) if (await exists(join(into, name))) found.push(name);
  return found;
}

/**
 * Moves what is there aside and everything in `staging` into its place. Returns the folder that the former lies in,
 * or null when there was nothing. When it throws, the folder is as it was.
 */
export async function swapIntoPlace(
  options: { staging: string; into: string; now: number; step: (name: string) => Promise<void> },
): Promise<string | null> {
  const { staging, into, now, step } = options;
  const former = [...await theStoreIn(into)];
  for (const name of MERGED_NAMES) if (await exists(join(into, name))) former.push(name);
  const time = new Date(now).toISOString().replaceAll(/[-:]|\.\d+/g, "");
  const before = former.length === 0 ? null : await newFolder(join(into, `before-restore-${time}`));
  await keepFolderOwner(staging, into);
  const done: [from: string, to: string][] = [];
  const move = async (from: string, to: string) => {
    await Deno.rename(from, to);
    done.push([from, to]);
    await step(`moved ${to}`);
  };
  const mark = join(into, RESTORE_MARK);
  const marked = await exists(mark);
  try {
    if (!marked) await writeDurably(mark, new TextEncoder().encode("a restore is under way\n"));
    await syncFolder(into);
    await step("marked");
    for (const name of former) await move(join(into, name), join(before!, name));
    for await (const { name } of Deno.readDir(staging)) await move(join(staging, name), join(into, name));
    if (before) await syncFolder(before);
    await syncFolder(into);
  } catch (error) {
    for (const [from, to] of done.reverse()) await Deno.rename(to, from);
    if (before) await removeAll(before);
    if (!marked) await removeAll(mark);
    throw error;
  }
  await Deno.remove(mark);
  await syncFolder(into);
  return before;
}

async function newFolder(path: string): Promise<string> {
  for (let attempt = 1;; attempt++) {
    const candidate = attempt === 1 ? path : `${path}-${attempt}`;
    if (await exists(candidate)) continue;
    await makeFolder(candidate);
    return candidate;
  }
}

/** What root restores belongs to whoever the data folder belongs to. */
async function keepFolderOwner(staging: string, into: string): Promise<void> {
  if (Deno.build.os === "windows" || Deno.uid() !== 0) return;
  const { uid, gid } = await Deno.stat(into);
  if (uid === null || gid === null || uid === 0) return;
  const give = async (path: string) => {
    for await (const { name, isDirectory } of Deno.readDir(path)) {
      const inner = join(path, name);
      await giveTo(inner, { uid, gid });
      if (isDirectory) await give(inner);
    }
  };
  await give(staging);
}

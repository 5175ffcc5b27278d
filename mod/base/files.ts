/** Small files written so that a crash leaves the old one or the new one, never half of one. */
import { dirname } from "node:path";
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

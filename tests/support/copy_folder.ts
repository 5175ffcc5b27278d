/** Copies of folders. */
import { join } from "node:path";

/** Copies what is in `from`, folders too but no sockets, into `to`, which is there. */
export async function copyFolder(from: string, to: string): Promise<void> {
  for await (const { name, isDirectory, isFile, isSymlink } of Deno.readDir(from)) {
    if (isDirectory) {
      await Deno.mkdir(join(to, name));
      await copyFolder(join(from, name), join(to, name));
    } else if (isFile || isSymlink) await Deno.copyFile(join(from, name), join(to, name));
  }
}

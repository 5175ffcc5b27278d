/** Copies of folders. */
import { join } from "node:path";

/** Copies what is in `from`, folders too, into `to`, which is there. */
export async function copyFolder(from: string, to: string): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    if (isDirectory) {
      await Deno.mkdir(join(to, name));
      await copyFolder(join(from, name), join(to, name));
    } else await Deno.copyFile(join(from, name), join(to, name));
  }
}

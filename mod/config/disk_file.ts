/** Reads the files that the configuration names: what load() is given outside of tests. */
import type { ConfigFile } from "./checks.ts";

/** Secrets and configuration are small; anything larger was named by mistake. */
const FILE_BYTES_MAX = 1 << 20;

/** The file's text and permission bits; null when there is none. Throws when it cannot be read or is too large. */
export function diskFile(path: string): ConfigFile | null {
  try {
    const info = Deno.statSync(path);
    if (info.size > FILE_BYTES_MAX) {
      throw new RangeError(`It has ${info.size} bytes, more than ${FILE_BYTES_MAX}`);
    }
    return { text: Deno.readTextFileSync(path), mode: Deno.build.os === "windows" ? null : info.mode };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return null;
    throw error;
  }
}

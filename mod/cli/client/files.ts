/** Small files that flags name: tokens, passwords, certificates. */
import { messageOf } from "../../base/errors.ts";
import { UsageError } from "../terminal.ts";

/** Such a file is small; anything larger was named by mistake. */
const FILE_BYTES_MAX = 1 << 20;

/** The text of a file that a flag names. Throws UsageError with the reason. */
export async function readTextFile(path: string): Promise<string> {
  try {
    const { isFile, size } = await Deno.stat(path);
    if (isFile && size > FILE_BYTES_MAX) throw new RangeError(`it has ${size} bytes`);
    return await Deno.readTextFile(path);
  } catch (error) {
    throw new UsageError(`Cannot read ${path}: ${messageOf(error)}`, { cause: error });
  }
}

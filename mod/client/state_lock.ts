/**
 * One process for each state folder: an operating-system lock on `lock` in it, which the kernel drops when the process
 * ends in whatever way. The pid in the file is for the message only.
 */
import { join } from "node:path";
import { StateError } from "./state_error.ts";

/** Makes the folder if need be and takes it; closing the file lets go. Throws StateError `inUse` or `notWritable`. */
export async function lockStateFolder(folder: string): Promise<Deno.FsFile> {
  const path = join(folder, "lock");
  let file: Deno.FsFile;
  try {
    await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
    file = await Deno.open(path, { read: true, write: true, create: true, mode: 0o600 });
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause);
    throw new StateError("notWritable", `Cannot use ${folder} as a state folder: ${detail}`, { cause });
  }
  try {
    if (!await file.tryLock(true)) throw await inUse(folder, path);
    await file.truncate(0);
    await file.write(new TextEncoder().encode(`${Deno.pid}\n`));
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}

async function inUse(folder: string, path: string): Promise<StateError> {
  const text = (await Deno.readTextFile(path).catch(() => "")).trim();
  const holder = /^\d+$/.test(text) ? `process ${text}` : "another process";
  return new StateError(
    "inUse",
    `The state in ${folder} is in use by ${holder}: end it first, or use another folder`,
  );
}

/** Which DB keys may open a backup: those of the configuration now, and those of before a rotation that were kept. */
import { readTextIfThere } from "../base/files.ts";
import { managedSecretPath } from "../config/load.ts";
import { optionOf, type Settings } from "../config/options.ts";
import { Refusal } from "../config/values.ts";
import { oldKeysPath } from "./rotate_db_key_file.ts";

/** Texts of keys, the likeliest first; those of the file as it is now come before what was read at the start. */
export async function dbKeysOf({ dbKey, allowPlaintextStore, dataDir }: Settings): Promise<string[]> {
  const keys = [
    ...(dbKey?.path ? await linesOf(dbKey.path) : []),
    ...(dbKey?.lines ?? []),
    ...await linesOf(oldKeysPath(dataDir)),
    ...(allowPlaintextStore ? [""] : []),
  ];
  return [...new Set(keys)];
}

/** Texts of the keys that lie in a data folder itself. */
export async function dbKeysIn(dataDir: string): Promise<string[]> {
  return [...await linesOf(managedSecretPath(dataDir, "db_key")), ...await linesOf(oldKeysPath(dataDir))];
}

/** None when the file is not there or not readable: whoever needs the key says that it is missing. */
async function linesOf(path: string): Promise<string[]> {
  const text = await readTextIfThere(path).catch(() => null);
  const lines = text === null ? [] : optionOf("db_key").read(text);
  return lines instanceof Refusal ? [] : lines as string[];
}

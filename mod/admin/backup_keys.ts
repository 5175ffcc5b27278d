/** Which DB keys may open a store or a backup, by the configuration. */
import { readTextIfThere } from "../base/files.ts";
import { optionOf, type Settings } from "../config/options.ts";
import { Refusal } from "../config/values.ts";

/** Texts of keys, the wanted one first; those of the file as it is now come before those that were read once. */
export async function dbKeysOf({ dbKey, allowPlaintextStore }: Settings): Promise<string[]> {
  const keys = new Set<string>();
  if (dbKey?.path) {
    const text = await readTextIfThere(dbKey.path).catch(() => null); // what was read at the start still counts
    const lines = text === null ? null : optionOf("db_key").read(text);
    if (lines && !(lines instanceof Refusal)) { for (const line of lines as string[]) keys.add(line); }
  }
  for (const line of dbKey?.lines ?? []) keys.add(line);
  if (allowPlaintextStore) keys.add("");
  return [...keys];
}

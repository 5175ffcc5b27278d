/**
 * The data folder and the secrets in it: what a first start makes, what production mode refuses to make. A
 * database whose key is missing is never given a new one.
 */
import { join } from "node:path";
import { base64url, hex, randomBytes } from "../base/bytes.ts";
import { messageOf } from "../base/errors.ts";
import { exists, readTextIfThere, writeFileAtomic } from "../base/files.ts";
import { storeKeysOf } from "../admin/rotate_db_key_file.ts";
import { managedSecretPath } from "../config/load.ts";
import { optionOf, type Settings } from "../config/options.ts";
import { Refusal } from "../config/values.ts";

/** Secrets of a server, each list with the wanted one first. */
export interface Secrets {
  /** Accepted access tokens; empty in insecure mode. */
  readonly authTokens: readonly string[];
  /** Keys that may open the store; [""] for a plaintext store. */
  readonly dbKeys: readonly string[];
  /** What was made now, in words. */
  readonly made: readonly string[];
}

/** The data folder cannot be used. The message says why and what to do. */
export class DataFolderError extends Error {
  override name = "DataFolderError";
}

/** Makes the data folder and those in it. What was made, in words. */
export async function makeFolders(dataDir: string): Promise<string[]> {
  const made: string[] = [];
  if (!await exists(dataDir)) made.push(`data folder ${dataDir}`);
  try {
    for (const folder of ["", "tls", "secrets", "blobs", "backups"]) {
      await Deno.mkdir(join(dataDir, folder), { recursive: true, mode: 0o700 });
    }
  } catch (cause) {
    throw new DataFolderError(
      `Cannot make the data folder ${dataDir}: ${
        messageOf(cause)
      }; make it writable, or set data_dir (QPQ_DATA_DIR)`,
      { cause },
    );
  }
  return made;
}

/** Names that writeFileAtomic() gives to what it has not finished. */
const TEMPORARY = /^.+\.[0-9a-f]{8}\.tmp$/;

/**
 * Removes what writes that were killed have left in the data folder: whoever writes there holds the folder's lock, so
 * whoever holds it sees no write under way. Returns the paths.
 */
export async function removeTemporaryFiles(dataDir: string): Promise<string[]> {
  const removed: string[] = [];
  for (const folder of [dataDir, join(dataDir, "secrets"), join(dataDir, "tls")]) {
    for await (const { name, isFile } of Deno.readDir(folder)) {
      if (!isFile || !TEMPORARY.test(name)) continue;
      await Deno.remove(join(folder, name));
      removed.push(join(folder, name));
    }
  }
  return removed;
}

/**
 * Finds the secrets, or makes the missing ones if that may be done (never in production's serve). Call it while
 * holding the folder's lock: of two servers that start at once, only one may make a key.
 */
export async function findSecrets(
  settings: Settings,
  options: { mayMakeSecrets: boolean },
): Promise<Secrets> {
  const made: string[] = [];
  const dbKeys = await findDbKeys(settings, { made, mayMake: options.mayMakeSecrets });
  const authTokens = await findAuthTokens(settings, { made, mayMake: options.mayMakeSecrets });
  return { authTokens, dbKeys, made };
}

interface Making {
  readonly made: string[];
  readonly mayMake: boolean;
}

async function findDbKeys(settings: Settings, { made, mayMake }: Making): Promise<readonly string[]> {
  const configured = settings.dbKey && storeKeysOf(settings);
  if (configured) return configured;
  const path = managedSecretPath(settings.dataDir, "db_key");
  if (settings.allowPlaintextStore) return [""];
  const madeMeanwhile = await readManaged(path, "db_key");
  if (madeMeanwhile) return madeMeanwhile;
  const store = await findStore(settings.dataDir);
  if (store) {
    throw new DataFolderError(
      `${store} exists but its key ${path} does not: put the key back (from your safe copy), or set db_key or ` +
        `db_key_file; a new key would not open it`,
    );
  }
  if (!mayMake) throw new DataFolderError(missingSecret("database key", "db_key_file (QPQ_DB_KEY_FILE)"));
  const key = hex(randomBytes(32));
  await writeFileAtomic(path, `${key}\n`, { mode: 0o600 });
  made.push(`database key ${path} (keep a copy elsewhere: without it the data is lost)`);
  return [key];
}

async function findAuthTokens(settings: Settings, { made, mayMake }: Making): Promise<readonly string[]> {
  if (settings.authToken) return settings.authToken.lines;
  const path = managedSecretPath(settings.dataDir, "auth_token");
  if (settings.allowNoAuthToken) return [];
  const madeMeanwhile = await readManaged(path, "auth_token");
  if (madeMeanwhile) return madeMeanwhile;
  if (!mayMake) {
    throw new DataFolderError(missingSecret("access token", "auth_token_file (QPQ_AUTH_TOKEN_FILE)"));
  }
  const token = base64url(randomBytes(32));
  await writeFileAtomic(path, `${token}\n`, { mode: 0o600 });
  made.push(`access token ${path}`);
  return [token];
}

/** A secret that another process made after this one had read its configuration; null when there is none. */
async function readManaged(path: string, key: "auth_token" | "db_key"): Promise<readonly string[] | null> {
  const text = await readTextIfThere(path);
  if (text === null) return null;
  const lines = optionOf(key).read(text);
  if (lines instanceof Refusal) throw new DataFolderError(`Cannot use ${path}: it ${lines.text}`);
  return lines as string[];
}

function missingSecret(what: string, setting: string): string {
  return `There is no ${what}, and production mode makes none: run 'qpq-server init', or set ${setting}`;
}

/** The store's files in a data folder, whichever backend made them; null when there are none. */
async function findStore(dataDir: string): Promise<string | null> {
  for (const name of ["qpq.db", "journal"]) {
    const path = join(dataDir, name);
    if (await exists(path)) return path;
  }
  return null;
}

/** Strength and place of the secrets: database key and access token. Never prints one. */
import { resolve, sep } from "node:path";
import { parseStoreKey } from "../store/key.ts";
import type { Secret } from "../config/options.ts";
import { type DoctorCheck, type DoctorContext, fail, ok, warn } from "./doctor_check.ts";

/** A passphrase is guessed offline, from a copy of the file. */
const PASSPHRASE_BITS_MIN = 80;
/** A token is guessed over the network, under rate limits. */
const TOKEN_BITS_MIN = 64;

/** Database key and access token. */
export async function keysGroup(context: DoctorContext): Promise<DoctorCheck[]> {
  const { settings } = context;
  return [
    dbKeyCheck(context),
    ...keyPlaceChecks(context),
    tokenCheck(settings.authToken, settings.allowNoAuthToken),
  ];
}

function dbKeyCheck({ settings }: DoctorContext): DoctorCheck {
  const name = "database key";
  const { dbKey, allowPlaintextStore, production } = settings;
  if (!dbKey) {
    if (allowPlaintextStore) {
      const remedy = "Remove allow_plaintext_store, and encrypt the database with `qpq-server rotate db-key`";
      return production
        ? fail(name, "none: messages lie unencrypted on the disk", remedy)
        : warn(name, "none: messages lie unencrypted on the disk", remedy);
    }
    return warn(name, "there is none yet", "The first start makes one, or `qpq-server init`");
  }
  const first = dbKey.lines[0]!;
  const key = parseStoreKey(first);
  const behind = dbKey.lines.length - 1;
  const lines = behind === 0 ? "" : `; ${behind} more ${behind === 1 ? "line" : "lines"} behind it`;
  if (key.kind === "raw") {
    if (new Set(first.toLowerCase()).size < 8) {
      return fail(name, "64 hex digits that repeat: not random", "qpq-server rotate db-key");
    }
    return ok(name, `256 random bits${lines}`);
  }
  const bits = Math.floor(entropyBits(first));
  if (bits >= PASSPHRASE_BITS_MIN) return ok(name, `a passphrase of about ${bits} bits${lines}`);
  return warn(
    name,
    `a passphrase of about ${bits} bits: whoever has a copy of the database can guess it`,
    "qpq-server rotate db-key makes a key of 256 random bits",
  );
}

/** A copy of the data folder must not be a copy of everything. */
function keyPlaceChecks({ settings }: DoctorContext): DoctorCheck[] {
  const { dbKey, dataDir, production, allowKeyInDataDir } = settings;
  const name = "key's place";
  if (!dbKey) return [];
  if (dbKey.path === null || !isInside(dbKey.path, dataDir)) {
    return [ok(name, dbKey.path === null ? `from the ${dbKey.from}` : dbKey.path)];
  }
  const found = `${dbKey.path} is inside the data folder: every copy of the folder takes the key along`;
  const remedy = "Move it elsewhere and set db_key_file (QPQ_DB_KEY_FILE); backups never hold it";
  if (production && !allowKeyInDataDir) return [fail(name, found, remedy)];
  return [
    allowKeyInDataDir ? ok(name, `${found}, as allow_key_in_data_dir says`) : warn(name, found, remedy),
  ];
}

function tokenCheck(token: Secret | null, allowed: boolean): DoctorCheck {
  const name = "access token";
  if (!token) {
    return allowed
      ? warn(name, "none: whoever reaches the port may register", "Remove allow_no_auth_token")
      : warn(name, "there is none yet", "The first start makes one, or `qpq-server init`");
  }
  const weakest = Math.floor(Math.min(...token.lines.map(entropyBits)));
  if (weakest < TOKEN_BITS_MIN) {
    return warn(
      name,
      `a token of about ${weakest} bits can be guessed`,
      "qpq-server rotate auth-token --overlap 0",
    );
  }
  const count = token.lines.length;
  return ok(
    name,
    count === 1 ? `about ${weakest} bits` : `${count} are accepted, the weakest of about ${weakest} bits`,
  );
}

/**
 * What a secret is worth at most, by its letters: kinds of letters and length, less for letters that repeat. Words are
 * worth less than this says.
 */
export function entropyBits(text: string): number {
  const classes: [RegExp, number][] = [[/[a-z]/, 26], [/[A-Z]/, 26], [/\d/, 10], [/[^a-zA-Z\d]/, 33]];
  const alphabet = classes.reduce((sum, [pattern, size]) => pattern.test(text) ? sum + size : sum, 0);
  const counts = new Map<string, number>();
  for (const letter of text) counts.set(letter, (counts.get(letter) ?? 0) + 1);
  const length = [...text].length;
  let shannon = 0;
  for (const count of counts.values()) shannon -= (count / length) * Math.log2(count / length);
  // Hexadecimal digits are no alphabet of 36; a word that repeats few letters is worth what those are.
  const hexadecimal = /^[0-9a-f]+$/i.test(text);
  const perLetter = Math.log2(hexadecimal ? 16 : Math.max(alphabet, 1));
  return length * Math.min(perLetter, shannon * 1.5);
}

function isInside(path: string, folder: string): boolean {
  const outer = resolve(folder);
  return resolve(path).startsWith(outer.endsWith(sep) ? outer : outer + sep);
}

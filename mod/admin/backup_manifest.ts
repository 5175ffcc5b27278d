/**
 * The manifest of a backup: what it is and the SHA-256 and size of every file in it. In the backup's folder:
 *
 *   manifest.json     this, with a record for each file but the blobs
 *   manifest.mac      HMAC-SHA-256 over manifest.json under the DB key, in hex
 *   blobs.list        a record for each blob (backup_blobs.ts); it has a record in the manifest itself
 *   store/…           the store as AdminStore.snapshotTo() wrote it
 *   revocations.log   what was revoked until then (store/revocation_log.ts), if anything
 *   blobs/ab/cdef…    the blobs
 *
 * Encrypted, every file but the first three ends in `.age`, and the records are those of the encrypted files, so that
 * a copy can be checked without the identity that opens it. What is read here came from a disk that may be anybody's:
 * it is checked before any path of it is touched.
 */
import { join } from "node:path";
import { fromHex, hex, utf8, utf8Text } from "../base/bytes.ts";
import { messageOf } from "../base/errors.ts";
import type { StoreCounts } from "../store/store.ts";
import type { StoreBackend } from "../store/open.ts";
import { BackupKey } from "./backup_key.ts";
import { readPlainFile, writeDurably } from "./backup_files.ts";
import { AdminError } from "./operations_error.ts";

/** Name of the manifest. */
export const MANIFEST = "manifest.json";
/** Name of its MAC. */
export const MANIFEST_MAC = "manifest.mac";
/** Name of the list of blobs; it is never encrypted, and names blobs by what hides their hash when they are. */
export const BLOBS_LIST = "blobs.list";
/** Folder of the store, before whose files nothing stands. */
export const STORE_FOLDER = "store";
/** Ending of encrypted files. */
export const AGE_ENDING = ".age";

const FORMAT = 1;
const MANIFEST_BYTES_MAX = 16 << 20;
const FILES_MAX = 100_000;

/** A file of a backup. */
export interface FileRecord {
  /** In the backup's folder, with `/`. */
  readonly path: string;
  readonly bytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
}

/** What a backup is. */
export interface Manifest {
  readonly format: typeof FORMAT;
  /** Name of its folder when it was made. */
  readonly id: string;
  /** Unix ms, before its copy of the store was begun. */
  readonly createdAt: number;
  readonly programVersion: string;
  readonly backend: StoreBackend;
  readonly schemaVersion: number;
  /** Of the store, hex. */
  readonly incarnation: string;
  readonly realmId: string;
  /** Which DB key opens it: BackupKey.id. */
  readonly dbKeyId: string;
  readonly counts: StoreCounts;
  /** Null: not encrypted (but for the store itself, under the DB key). */
  readonly encryption: { readonly recipients: readonly string[] } | null;
  /** `missing` ones were already missing or damaged when the backup was made. */
  readonly blobs: { readonly count: number; readonly bytes: number; readonly missing: number };
  /** All files but manifest, MAC and blobs. */
  readonly files: readonly FileRecord[];
}

/** What every version counted; later ones count more. */
const COUNTS = ["accounts", "devices", "queueEntries", "queueBytes", "keyPackages", "blobs", "blobBytes"];

/** Writes manifest and MAC into `folder`, durably. */
export async function writeManifest(folder: string, manifest: Manifest, key: BackupKey): Promise<void> {
  const bytes = utf8(JSON.stringify(manifest, null, 2) + "\n");
  await writeDurably(join(folder, MANIFEST), bytes);
  await writeDurably(join(folder, MANIFEST_MAC), utf8(hex(await key.mac(bytes)) + "\n"));
}

/** Reads a manifest for a list: checked for its form, not for its MAC. Throws AdminError. */
export async function readManifest(folder: string): Promise<Manifest> {
  return parseManifest(folder, await readManifestBytes(folder));
}

/** Reads a manifest and proves with one of the DB keys that nothing of it was changed. Throws AdminError. */
export async function proveManifest(
  folder: string,
  keys: readonly string[],
): Promise<{ manifest: Manifest; key: BackupKey }> {
  const bytes = await readManifestBytes(folder);
  const manifest = parseManifest(folder, bytes);
  const mac = await readMac(folder);
  const known: string[] = [];
  for (const text of keys) {
    const key = await BackupKey.derive(text, manifest.realmId);
    known.push(key.id);
    if (key.id !== manifest.dbKeyId) continue;
    if (mac !== null && await key.fits(bytes, mac)) return { manifest, key };
    throw new AdminError(
      `The manifest of ${folder} is damaged or was changed: its MAC does not fit. Use another backup`,
    );
  }
  const given = known.length === 0 ? "no DB key was given" : `the keys given are ${known.join(", ")}`;
  throw new AdminError(
    `The backup ${folder} was made under the DB key ${manifest.dbKeyId}, and ${given}: set db_key_file ` +
      `(QPQ_DB_KEY_FILE) to the key of that time. (If it is that key, the manifest is damaged.)`,
  );
}

async function readManifestBytes(folder: string): Promise<Uint8Array> {
  const bytes = await readPlainFile(join(folder, MANIFEST), MANIFEST_BYTES_MAX).catch((cause) => {
    throw new AdminError(`Cannot read the manifest of ${folder}: ${messageOf(cause)}`, { cause });
  });
  if (bytes === null) throw new AdminError(`${folder} is no backup: it has no ${MANIFEST}`);
  return bytes;
}

async function readMac(folder: string): Promise<Uint8Array | null> {
  const bytes = await readPlainFile(join(folder, MANIFEST_MAC), 1024);
  if (bytes === null) {
    throw new AdminError(`The backup ${folder} is not complete: ${MANIFEST_MAC} is missing`);
  }
  const text = new TextDecoder().decode(bytes).trim();
  return /^[0-9a-f]{64}$/.test(text) ? fromHex(text) : null;
}

/** The manifest that `bytes` are. Throws AdminError, which says what is wrong. */
export function parseManifest(folder: string, bytes: Uint8Array): Manifest {
  const damaged = (what: string) =>
    new AdminError(`The manifest of ${folder} is damaged: ${what}. Use another backup`);
  let found: Record<string, unknown>;
  try {
    found = JSON.parse(utf8Text(bytes));
  } catch {
    throw damaged("it is no JSON");
  }
  if (typeof found !== "object" || found === null) throw damaged("it is no object");
  if (typeof found["format"] === "number" && found["format"] > FORMAT) {
    throw new AdminError(
      `The backup ${folder} was made by a newer version (format ${found["format"]}): use that version`,
    );
  }
  const problem = problemOf(found);
  if (problem) throw damaged(problem);
  return found as unknown as Manifest;
}

function problemOf(found: Record<string, unknown>): string | null {
  const text = (key: string, pattern: RegExp) => {
    const value = found[key];
    return typeof value === "string" && pattern.test(value) ? null : `${key} is not what it should be`;
  };
  return (found["format"] === FORMAT ? null : "format is not what it should be") ??
    text("id", /^[0-9A-Za-z._-]{1,100}$/) ??
    (isCount(found["createdAt"]) ? null : "createdAt is no time") ??
    text("programVersion", /^[0-9A-Za-z.+-]{1,64}$/) ??
    text("backend", /^(sqlcipher|file)$/) ??
    (isCount(found["schemaVersion"]) ? null : "schemaVersion is no number") ??
    text("incarnation", /^[0-9a-f]{32}$/) ??
    text("realmId", /^[0-9a-f]{1,128}$/) ??
    text("dbKeyId", /^([0-9a-f]{16}|none)$/) ??
    numbersProblem(found["counts"], "counts", COUNTS) ??
    numbersProblem(found["blobs"], "blobs", ["count", "bytes", "missing"]) ??
    encryptionProblem(found["encryption"]) ??
    filesProblem(found["files"], found["encryption"] !== null);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function numbersProblem(value: unknown, name: string, keys: readonly string[]): string | null {
  const object = typeof value === "object" && value !== null ? value as Record<string, unknown> : {};
  return keys.every((key) => isCount(object[key])) ? null : `${name} are not numbers`;
}

function encryptionProblem(value: unknown): string | null {
  if (value === null) return null;
  const recipients = (value as { recipients?: unknown } | undefined)?.recipients;
  const fine = Array.isArray(recipients) && recipients.length > 0 &&
    recipients.every((each) => typeof each === "string" && /^age1[0-9a-z]+$/.test(each));
  return fine ? null : "encryption is not what it should be";
}

function filesProblem(value: unknown, encrypted: boolean): string | null {
  if (!Array.isArray(value) || value.length === 0 || value.length > FILES_MAX) return "files are not a list";
  const seen = new Set<string>();
  for (const record of value as Partial<FileRecord>[]) {
    const { path, bytes, sha256 } = record ?? {};
    if (typeof path !== "string" || !isSafePath(path, encrypted)) {
      return `the path ${JSON.stringify(path)} has no place in a backup`;
    }
    if (seen.has(path)) return `the path ${path} is there twice`;
    seen.add(path);
    if (!isCount(bytes) || typeof sha256 !== "string" || !/^[0-9a-f]{64}$/.test(sha256)) {
      return `the record of ${path} is not what it should be`;
    }
  }
  return seen.has(BLOBS_LIST) ? null : "it has no list of blobs";
}

/** Only what create makes: nothing absolute, no `..`, no name that would hide or replace another file. */
function isSafePath(path: string, encrypted: boolean): boolean {
  const ending = encrypted ? "\\.age" : "";
  const name = "[0-9A-Za-z_-][0-9A-Za-z._-]*";
  return new RegExp(
    `^(blobs\\.list|(revocations\\.log|store/(?:${name}/){0,2}${name})${ending})$`,
  ).test(path) && path.length <= 255;
}

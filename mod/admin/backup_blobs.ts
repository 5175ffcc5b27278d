/**
 * The blobs of a backup. A blob never changes and its name is its SHA-256, so an unchanged one costs no bytes: its
 * file is linked to the one of the backup before, else to the server's own; it is copied where the file system cannot
 * link. What comes from the server is hashed once; what the last backup has was hashed when that was made.
 *
 * `blobs.list` has a line for each: `SHA-256 bytes path`, of the file as it lies there. `missing 0 path`: the server's
 * own file was missing or damaged when the backup was made. Encrypted blobs have names that hide their hash.
 */
import { join } from "node:path";
import type { BlobHash } from "../base/ids.ts";
import { blobPlaces } from "../store/blob_files.ts";
import type { BackupKey } from "./backup_key.ts";
import {
  Hasher,
  hashFile,
  makeFolderOf,
  type OnBytes,
  plainFileSize,
  readChunks,
  tryLink,
  writeChunks,
} from "./backup_files.ts";
import { AGE_ENDING, type FileRecord } from "./backup_manifest.ts";
import { AdminError } from "./operations_error.ts";

/** A blob in a list; `sha256` null: it is missing. */
export interface BlobRecord extends Omit<FileRecord, "sha256"> {
  readonly sha256: string | null;
}

/** A blob that the copy of the store refers to. */
export interface BlobReference {
  readonly hash: BlobHash;
  readonly bytes: number;
}

/** How the files of a backup are encrypted. */
export interface BackupEncryption {
  readonly recipients: readonly string[];
  readonly encrypt: (plain: AsyncIterable<Uint8Array>) => AsyncGenerator<Uint8Array>;
}

/** An earlier backup beside the new one, whose files may be linked to. */
export interface EarlierBackup {
  readonly folder: string;
  /** Its list by path; needed for encrypted ones only. */
  readonly records: ReadonlyMap<string, BlobRecord>;
}

/** Where the blob's file lies in a backup. */
export async function blobPath(hash: BlobHash, key: BackupKey, encrypted: boolean): Promise<string> {
  const name = encrypted ? await key.hiddenName(hash) : hash;
  return `blobs/${name.slice(0, 2)}/${name.slice(2)}${encrypted ? AGE_ENDING : ""}`;
}

/** Text of the list, in pieces. */
export async function* listText(records: Iterable<BlobRecord>): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder();
  let text = "";
  for (const { sha256, bytes, path } of records) {
    text += `${sha256 ?? "missing"} ${bytes} ${path}\n`;
    if (text.length < 65_536) continue;
    yield encoder.encode(text);
    text = "";
  }
  yield encoder.encode(text);
}

/** Reads a list. Throws AdminError for a line that create would not have written. */
export async function parseList(
  chunks: AsyncIterable<Uint8Array>,
  options: { readonly encrypted: boolean },
): Promise<Map<string, BlobRecord>> {
  const ending = options.encrypted ? "\\.age" : "";
  const pattern = new RegExp(
    `^([0-9a-f]{64}|missing) (\\d{1,15}) (blobs/([0-9a-f]{2})/([0-9a-f]{62})${ending})$`,
  );
  const records = new Map<string, BlobRecord>();
  const take = (line: string) => {
    const [, sha256, bytes, path, first, rest] = pattern.exec(line) ?? [];
    const misnamed = !options.encrypted && sha256 !== "missing" && sha256 !== `${first}${rest}`;
    if (path === undefined || misnamed) {
      throw new AdminError(`The list of blobs is damaged: ${JSON.stringify(line.slice(0, 200))}`);
    }
    records.set(path, { path, bytes: Number(bytes), sha256: sha256 === "missing" ? null : sha256! });
  };
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of chunks) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop()!;
    lines.forEach(take);
  }
  if (rest !== "") throw new AdminError("The list of blobs is cut off");
  return records;
}

/** Puts blobs into a new backup. */
export class BlobCollector {
  readonly #dataDir: string;
  readonly #folder: string;
  readonly #key: BackupKey;
  readonly #encryption: BackupEncryption | null;
  readonly #earlier: EarlierBackup | null;
  readonly #onBytes: OnBytes;
  /** Bytes that this backup adds to the disk, and those that it shares with an earlier one. */
  newBytes = 0;
  sharedBytes = 0;

  constructor(options: {
    readonly dataDir: string;
    readonly folder: string;
    readonly key: BackupKey;
    readonly encryption: BackupEncryption | null;
    readonly earlier: EarlierBackup | null;
    readonly onBytes: OnBytes;
  }) {
    this.#dataDir = options.dataDir;
    this.#folder = options.folder;
    this.#key = options.key;
    this.#encryption = options.encryption;
    this.#earlier = options.earlier;
    this.#onBytes = options.onBytes;
  }

  /** Adds one blob. Its record says `missing` when the server's own file is missing or damaged. */
  async add(blob: BlobReference): Promise<BlobRecord> {
    const path = await blobPath(blob.hash, this.#key, this.#encryption !== null);
    const target = join(this.#folder, path);
    await makeFolderOf(target);
    return await this.#linkEarlier(blob, { path, target }) ??
      (this.#encryption
        ? await this.#encrypt(blob, { path, target, encryption: this.#encryption })
        : await this.#linkOrCopy(blob, { path, target }));
  }

  async #linkEarlier(blob: BlobReference, place: Place): Promise<BlobRecord | null> {
    if (!this.#earlier) return null;
    const record = this.#encryption
      ? this.#earlier.records.get(place.path)
      : { path: place.path, bytes: blob.bytes, sha256: blob.hash as string };
    if (!record || record.sha256 === null) return null;
    const source = join(this.#earlier.folder, place.path);
    if (await plainFileSize(source) !== record.bytes || !await tryLink(source, place.target)) return null;
    this.sharedBytes += record.bytes;
    this.#onBytes(blob.bytes);
    return record;
  }

  async #linkOrCopy({ hash, bytes }: BlobReference, { path, target }: Place): Promise<BlobRecord> {
    const digest = await this.#fromServer(hash, async (source) => {
      if (await tryLink(source, target)) {
        this.sharedBytes += bytes;
        return await hashFile(target, this.#onBytes);
      }
      this.newBytes += bytes;
      return await writeChunks(target, readChunks(source), this.#onBytes);
    });
    if (digest?.bytes === bytes && digest.sha256 === hash) return { path, ...digest };
    if (digest) await Deno.remove(target);
    return { path, bytes: 0, sha256: null };
  }

  async #encrypt(
    { hash, bytes }: BlobReference,
    { path, target, encryption }: Place & { encryption: BackupEncryption },
  ): Promise<BlobRecord> {
    const plain = new Hasher();
    const onBytes = this.#onBytes;
    const digest = await this.#fromServer(hash, async (source) => {
      return await writeChunks(
        target,
        encryption.encrypt(async function* () {
          for await (const chunk of readChunks(source)) {
            plain.add(chunk);
            onBytes(chunk.length);
            yield chunk;
          }
        }()),
      );
    });
    const read = plain.end();
    if (digest && read.bytes === bytes && read.sha256 === hash) {
      this.newBytes += digest.bytes;
      return { path, ...digest };
    }
    if (digest) await Deno.remove(target);
    return { path, bytes: 0, sha256: null };
  }

  /** Runs `use` on the server's file, which may move between its two places meanwhile; null when there is none. */
  async #fromServer<T>(hash: BlobHash, use: (path: string) => Promise<T>): Promise<T | null> {
    const places = blobPlaces(this.#dataDir, hash);
    for (const place of [...places, ...places]) {
      try {
        if ((await Deno.lstat(place)).isFile) return await use(place);
      } catch (error) {
        // One blob on a bad sector must not keep everything else from being saved.
        if (!(error instanceof Deno.errors.NotFound) && !isReadError(error)) throw error;
      }
    }
    return null;
  }
}

function isReadError(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EIO";
}

interface Place {
  readonly path: string;
  readonly target: string;
}

/**
 * The bytes of blobs: `<data folder>/blobs/ab/cdef…`, named by their SHA-256 in hex. A file appears under its name
 * only when it is complete, verified and on disk; before that it is under `blobs/tmp/`, which is emptied at every
 * start. Who refers to a blob is the store's matter (BlobStore); whoever changes references and files together
 * does so inside exclusive(), so that a delete and a put of the same blob cannot cross.
 *
 * Anything but a plain file or folder in these places is refused: nothing here follows a symbolic link.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { Bytes } from "../base/bytes.ts";
import { concat } from "../base/bytes.ts";
import { messageOf, QpqError } from "../base/errors.ts";
import { type BlobHash, randomId } from "../base/ids.ts";
import { KeyedMutex } from "../base/keyed_mutex.ts";
import { logger } from "../base/log.ts";
import { CHUNK_BYTES, type ChunkDigests, KnownDigests, learnDigests } from "./blob_digests.ts";
import { type Disk, type DiskFile, isDiskFull, realDisk } from "./file/disk.ts";
import { StoreOpenError } from "./store.ts";

const log = logger("store");

const FOLDER = "blobs";
const TEMPORARY = "tmp";
/** What the names of deleted files begin with that a backup may still want. */
const KEPT = "deleted-";

/** The files of one data folder. */
export class BlobFiles {
  readonly #root: string;
  readonly #disk: Disk;
  readonly #mutex = new KeyedMutex();
  readonly #digests = new KnownDigests();
  /** Folders whose names are on disk, whoever made them. */
  readonly #durableFolders = new Set<string>();
  /** Backups under way: each needs the blobs that its copy of the store refers to. */
  #keepers = 0;

  private constructor(root: string, disk: Disk) {
    this.#root = root;
    this.#disk = disk;
  }

  /** Makes the folder if need be and removes what unfinished uploads left. Throws StoreOpenError. */
  static async open(dataDir: string, options: { disk?: Disk } = {}): Promise<BlobFiles> {
    const root = join(dataDir, FOLDER);
    const temporary = join(root, TEMPORARY);
    const disk = options.disk ?? realDisk;
    try {
      for (const folder of [root, temporary]) {
        await disk.makeFolder(folder).catch(() => {});
        if (!(await Deno.lstat(folder)).isDirectory) throw new Error("it is no folder, or a symbolic link");
      }
      for (const name of await disk.list(temporary) ?? []) await disk.remove(join(temporary, name));
      for (const folder of [dataDir, root]) await disk.syncFolder(folder);
    } catch (cause) {
      throw new StoreOpenError(
        isDiskFull(cause) ? "diskFull" : "failed",
        root,
        `Cannot use the blob folder ${root}: ${
          messageOf(cause)
        }; make it a folder that the server may write to`,
        { cause },
      );
    }
    return new BlobFiles(root, disk);
  }

  /** Begins a new file. QpqError `storeFull` or `storeUnavailable`. */
  async begin(): Promise<BlobWriter> {
    const path = join(this.#root, TEMPORARY, randomId());
    return new BlobWriter(
      { root: this.#root, path, disk: this.#disk, durableFolders: this.#durableFolders },
      await storing(() => this.#disk.open(path, "create")),
    );
  }

  /** Runs `work` while nobody else changes this blob's file or references. */
  exclusive<Value>(hash: BlobHash, work: () => Promise<Value>): Promise<Value> {
    return this.#mutex.run(hash, work);
  }

  /** Size of the file; null when there is none. */
  async size(hash: BlobHash): Promise<number | null> {
    const path = pathOf(this.#root, hash);
    const info = await storing(async () => {
      try {
        return await Deno.lstat(path);
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) return null;
        throw error;
      }
    });
    if (info && !info.isFile) {
      throw new QpqError("storeUnavailable", `Cannot use ${path} as it is no plain file`);
    }
    return info && info.size;
  }

  /**
   * Is the file there, and what its name says? Reads all of it unless it is known; what {@link read} finds later is an
   * error there. Damage is logged with the path.
   */
  async isSound(hash: BlobHash): Promise<boolean> {
    if (await this.size(hash) === null) return false;
    if (this.#digests.get(hash)) return true;
    const file = await storing(() => this.#disk.open(pathOf(this.#root, hash), "read"));
    try {
      await this.#digestsOf(hash, file);
      return true;
    } catch (error) {
      if (error instanceof QpqError && error.code === "blobNotFound") return false;
      throw error;
    } finally {
      file.close();
    }
  }

  /**
   * The bytes from `offset` on, `length` of them, in chunks, each compared with what was right when the blob was read
   * whole. The file is opened with the first chunk; once open, deleting the blob does not disturb it. Throws QpqError
   * `blobNotFound` when it is missing, shorter or damaged, in the middle before the first chunk that is.
   */
  async *read(hash: BlobHash, offset: number, length: number): AsyncGenerator<Bytes> {
    const size = await this.size(hash);
    const end = offset + length;
    if (size === null || size < end) {
      throw new QpqError("blobNotFound", `Cannot read blob ${hash} to byte ${end}: it has ${size ?? "none"}`);
    }
    const file = await storing(() => this.#disk.open(pathOf(this.#root, hash), "read"));
    try {
      const digests = await this.#digestsOf(hash, file);
      for (let at = offset; at < end;) {
        const start = at - at % CHUNK_BYTES;
        const chunk = await storing(() => file.read(start, CHUNK_BYTES));
        if (!digests.fits(chunk, start / CHUNK_BYTES)) throw this.#damaged(hash);
        yield chunk.subarray(at - start, end - start);
        at = start + CHUNK_BYTES;
      }
    } finally {
      file.close();
    }
  }

  async #digestsOf(hash: BlobHash, file: DiskFile): Promise<ChunkDigests> {
    const known = this.#digests.get(hash);
    if (known) return known;
    const learnt = await learnDigests(hash, chunksOf(file));
    if (!learnt) throw this.#damaged(hash);
    this.#digests.set(hash, learnt);
    return learnt;
  }

  #damaged(hash: BlobHash): QpqError {
    const path = pathOf(this.#root, hash);
    log.error("the file of a blob is damaged and not served: {path}", { path });
    this.#digests.delete(hash);
    return new QpqError("blobNotFound", `Cannot read ${path} as it is damaged: restore it from a backup`);
  }

  /** Removes the file. Idempotent. */
  async delete(hash: BlobHash): Promise<void> {
    if (await this.size(hash) === null) return;
    const path = pathOf(this.#root, hash);
    if (this.#keepers === 0) return await storing(() => this.#disk.remove(path));
    await storing(() => this.#disk.rename(path, keptPath(this.#root, hash)));
  }

  /**
   * From now on deleted files only move to the second of their {@link blobPlaces}, until the returned function is
   * called: whoever copies the store meanwhile finds every blob that the copy refers to.
   */
  keepDeleted(): () => Promise<void> {
    this.#keepers++;
    let released = false;
    return async () => {
      if (released) return;
      released = true;
      if (--this.#keepers > 0) return;
      const temporary = join(this.#root, TEMPORARY);
      for (const name of await storing(() => this.#disk.list(temporary)) ?? []) {
        if (!name.startsWith(KEPT)) continue;
        // A backup that begins in this moment wants them again; they go with its end, or at the next start.
        if (this.#keepers === 0) await storing(() => this.#disk.remove(join(temporary, name)));
      }
    };
  }

  /** Every blob that has a file, in no particular order. */
  async *list(): AsyncGenerator<BlobHash> {
    for (const folder of await storing(() => this.#disk.list(this.#root)) ?? []) {
      if (!/^[0-9a-f]{2}$/.test(folder)) continue;
      for (const name of await storing(() => this.#disk.list(join(this.#root, folder))) ?? []) {
        if (/^[0-9a-f]{62}$/.test(name)) yield `${folder}${name}` as BlobHash;
      }
    }
  }
}

/** A whole file, in chunks. */
async function* chunksOf(file: DiskFile): AsyncGenerator<Bytes> {
  for (let at = 0;; at += CHUNK_BYTES) {
    const chunk = await storing(() => file.read(at, CHUNK_BYTES));
    if (chunk.length > 0) yield chunk;
    if (chunk.length < CHUNK_BYTES) return;
  }
}

/** Where an upload is written, and where it goes. */
interface WriterPlace {
  readonly root: string;
  readonly path: string;
  readonly disk: Disk;
  readonly durableFolders: Set<string>;
}

/** One upload. Ends with publish() or abort(). */
export class BlobWriter {
  readonly #place: WriterPlace;
  readonly #file: DiskFile;
  readonly #digest = createHash("sha256");
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #writtenBytes = 0;
  #open = true;

  constructor(place: WriterPlace, file: DiskFile) {
    this.#place = place;
    this.#file = file;
  }

  /** Appends a chunk, which the caller leaves unchanged. After an error only abort() is useful. */
  async write(chunk: Uint8Array): Promise<void> {
    this.#digest.update(chunk);
    this.#waiting.push(chunk);
    this.#waitingBytes += chunk.length;
    if (this.#waitingBytes >= CHUNK_BYTES) await this.#writeOut();
  }

  /** Verifies size and SHA-256 (`blobHashMismatch`) and makes the bytes durable. The blob is not to be seen yet. */
  async finish(expected: { hash: BlobHash; bytes: number }): Promise<void> {
    await this.#writeOut();
    const hash = this.#digest.digest("hex");
    if (this.#writtenBytes !== expected.bytes || hash !== expected.hash) {
      throw new QpqError(
        "blobHashMismatch",
        `Cannot store blob ${expected.hash} of ${expected.bytes} bytes: ${this.#writtenBytes} came, with SHA-256 ${hash}`,
      );
    }
    await storing(() => this.#file.sync());
    this.#close();
  }

  /** After finish(), inside exclusive(): puts the file under its name, durably. Replaces an equal one. */
  async publish(hash: BlobHash): Promise<void> {
    const { root, path, disk, durableFolders } = this.#place;
    const folder = join(root, hash.slice(0, 2));
    await storing(async () => {
      await disk.makeFolder(folder);
      if (!durableFolders.has(folder)) await disk.syncFolder(root);
      durableFolders.add(folder);
      if (!(await Deno.lstat(folder)).isDirectory) {
        throw new Error(`${folder} is no folder, or a symbolic link`);
      }
      const old = await Deno.lstat(pathOf(root, hash)).catch(() => null);
      if (old && !old.isFile) throw new Error(`${pathOf(root, hash)} is no plain file`);
      await disk.rename(path, pathOf(root, hash));
      await disk.syncFolder(folder);
    });
  }

  /** Leaves nothing behind. Harmless after publish(); never throws: what stays is removed at the next start. */
  async abort(): Promise<void> {
    this.#close();
    this.#waiting = [];
    await this.#place.disk.remove(this.#place.path).catch(() => {});
  }

  async #writeOut(): Promise<void> {
    if (this.#waitingBytes === 0) return;
    const bytes = this.#waiting.length === 1 ? this.#waiting[0]! : concat(...this.#waiting);
    this.#waiting = [];
    this.#waitingBytes = 0;
    await storing(() => this.#file.write(this.#writtenBytes, bytes));
    this.#writtenBytes += bytes.length;
  }

  #close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#file.close();
  }
}

/** Where the file of a blob may be: in its place or, deleted while a backup was made, beside unfinished uploads. */
export function blobPlaces(dataDir: string, hash: BlobHash): string[] {
  const root = join(dataDir, FOLDER);
  return [pathOf(root, hash), keptPath(root, hash)];
}

function keptPath(root: string, hash: BlobHash): string {
  return join(root, TEMPORARY, KEPT + hash);
}

function pathOf(root: string, hash: BlobHash): string {
  return join(root, hash.slice(0, 2), hash.slice(2));
}

/** The operating system's errors as the store's: `storeFull`, `storeUnavailable`. */
async function storing<Value>(work: () => Promise<Value>): Promise<Value> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof QpqError) throw cause;
    if (isDiskFull(cause)) {
      throw new QpqError("storeFull", "Cannot store a blob as the disk is full", { cause });
    }
    throw new QpqError("storeUnavailable", `Cannot use the blob files: ${messageOf(cause)}`, { cause });
  }
}

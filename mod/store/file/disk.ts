/**
 * The files of the journal: the few calls that it makes on the operating system, as an interface so that tests can
 * fill the disk, fail a call or stop the world between two of them.
 */
import type { Bytes } from "../../base/bytes.ts";
import { syncFolder } from "../../base/files.ts";

/** An open file. One user at a time: calls on one file are not to overlap. */
export interface DiskFile {
  size(): Promise<number>;
  /** Up to `length` bytes from `offset`; fewer at the end of the file. */
  read(offset: number, length: number): Promise<Bytes>;
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /** Makes written bytes and the size durable. */
  sync(): Promise<void>;
  truncate(size: number): Promise<void>;
  close(): void;
}

/** `create` makes the file, or empties it. */
export type OpenMode = "create" | "write" | "read";

/** A file system. */
export interface Disk {
  /** Names in a folder; null when there is no such folder. */
  list(folder: string): Promise<string[] | null>;
  makeFolder(path: string): Promise<void>;
  open(path: string, mode: OpenMode): Promise<DiskFile>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  syncFolder(path: string): Promise<void>;
}

class RealFile implements DiskFile {
  readonly #file: Deno.FsFile;

  constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  async size(): Promise<number> {
    return (await this.#file.stat()).size;
  }

  async read(offset: number, length: number): Promise<Bytes> {
    await this.#file.seek(offset, Deno.SeekMode.Start);
    const bytes = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      const count = await this.#file.read(bytes.subarray(filled));
      if (count === null) break;
      filled += count;
    }
    return filled === length ? bytes : bytes.slice(0, filled);
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    await this.#file.seek(offset, Deno.SeekMode.Start);
    for (let written = 0; written < bytes.length;) {
      written += await this.#file.write(bytes.subarray(written));
    }
  }

  sync(): Promise<void> {
    return this.#file.syncData();
  }

  truncate(size: number): Promise<void> {
    return this.#file.truncate(size);
  }

  close(): void {
    this.#file.close();
  }
}

const OPEN_FLAGS: Record<OpenMode, Deno.OpenOptions> = {
  create: { read: true, write: true, create: true, truncate: true, mode: 0o600 },
  write: { read: true, write: true },
  read: { read: true },
};

/** The computer's file system. */
export const realDisk: Disk = {
  async list(folder) {
    try {
      return (await Array.fromAsync(Deno.readDir(folder))).map((entry) => entry.name);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return null;
      throw error;
    }
  },
  makeFolder: (path) => Deno.mkdir(path, { recursive: true, mode: 0o700 }),
  open: async (path, mode) => new RealFile(await Deno.open(path, OPEN_FLAGS[mode])),
  rename: (from, to) => Deno.rename(from, to),
  remove: (path) => Deno.remove(path),
  syncFolder,
};

/** Is the error one of a disk, quota or file size limit that is used up? */
export function isDiskFull(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT", "EFBIG"].includes(codeOf(error));
}

/** Is it one of a file or file system that may not be written? */
export function isReadOnly(error: unknown): boolean {
  return ["EROFS", "EACCES", "EPERM"].includes(codeOf(error));
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

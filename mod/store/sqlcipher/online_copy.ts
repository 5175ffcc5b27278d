/**
 * A copy of the database file as it is at one moment, made while the store goes on writing. Right after a checkpoint
 * the main file is the whole store, and only a checkpoint changes it; so the file is copied as it is, pages encrypted
 * as they are, without SQLite. A checkpoint in the middle first has those pages copied that it is going to overwrite
 * and that were not copied yet: their numbers stand in the WAL. So the WAL stays as short as ever, however long the
 * copy takes, and a writer waits for the usual checkpoint and at most as many pages again.
 *
 * Everything that reads the main file is synchronous, on the thread that also makes the checkpoints; what is written
 * to the copy is not waited for by anybody.
 */
import { PAGE_BYTES } from "./page_key.ts";

const CHUNK_BYTES = 256 * 1024;
/** Synced in pieces: the WAL's own syncs would wait for a large backlog. */
const SYNC_EACH_BYTES = 2 * 1024 * 1024;
/** While the store is writing, a piece is followed by a pause of so many times what it took. */
const PAUSE_SHARE = 1;
const WAL_HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
const FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES;
const FRAMES_READ = 256;

/** A copy under way. */
export class OnlineCopy {
  readonly #source: Deno.FsFile;
  readonly #bytes: number;
  readonly #target: Deno.FsFile;
  /** The same file with a position of its own, for pages that are saved ahead. */
  readonly #ahead: Deno.FsFile;
  /** What lies before this was read from the source. */
  #offset = 0;
  /** Pages behind it that are in the copy already. */
  readonly #saved = new Set<number>();
  #failure: unknown;
  /** The store has written since the last look. */
  #storeBusy = false;

  /** `source` is open all along, and right after a checkpoint; `target` does not exist. */
  constructor(source: Deno.FsFile, target: string) {
    this.#source = source;
    this.#bytes = source.statSync().size;
    this.#target = Deno.openSync(target, { write: true, createNew: true, mode: 0o600 });
    this.#ahead = Deno.openSync(target, { read: true, write: true });
  }

  /** To be called before each checkpoint of `walPages` pages. A failure is that of {@link run}. */
  beforeCheckpoint(walPath: string, walPages: number): void {
    try {
      for (const page of pagesInWal(walPath, walPages)) this.#save(page);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Tells that the store has written something: the copy then leaves the disk to it for a part of the time. */
  noteBatch(): void {
    this.#storeBusy = true;
  }

  /** Has {@link run} reject: the source is not what it was. */
  fail(error: unknown): void {
    this.#failure ??= error;
  }

  #save(page: number): void {
    const offset = (page - 1) * PAGE_BYTES;
    if (offset < this.#offset || offset >= this.#bytes || this.#saved.has(page)) return;
    writeAt(this.#ahead, offset, readAt(this.#source, offset, PAGE_BYTES));
    this.#saved.add(page);
  }

  /** Copies the rest; the copy is on disk when this resolves. */
  async run(onProgress: (share: number) => void): Promise<void> {
    try {
      let unsynced = 0;
      let pieceBegan = performance.now();
      while (this.#offset < this.#bytes) {
        if (this.#failure) throw this.#failure;
        const chunk = this.#nextChunk();
        await writeAll(this.#target, chunk);
        unsynced += chunk.length;
        if (unsynced >= SYNC_EACH_BYTES) {
          await this.#target.syncData();
          await this.#yieldToStore(performance.now() - pieceBegan);
          unsynced = 0;
          pieceBegan = performance.now();
        }
        onProgress(this.#offset / this.#bytes);
      }
      await this.#target.sync();
      if (this.#failure) throw this.#failure;
    } finally {
      this.#target.close();
      this.#ahead.close();
    }
  }

  async #yieldToStore(pieceMs: number): Promise<void> {
    if (!this.#storeBusy) return;
    this.#storeBusy = false;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_SHARE * pieceMs));
  }

  #nextChunk(): Uint8Array {
    const start = this.#offset;
    const chunk = readAt(this.#source, start, Math.min(CHUNK_BYTES, this.#bytes - start));
    for (let at = 0; at < chunk.length; at += PAGE_BYTES) {
      const page = (start + at) / PAGE_BYTES + 1;
      if (this.#saved.delete(page)) chunk.set(readAt(this.#ahead, start + at, PAGE_BYTES), at);
    }
    this.#offset += chunk.length;
    return chunk;
  }
}

/** Numbers of the first `count` pages in a WAL, ascending. Page numbers are not encrypted. */
function pagesInWal(path: string, count: number): number[] {
  const pages = new Set<number>();
  using wal = Deno.openSync(path);
  for (let frame = 0; frame < count; frame += FRAMES_READ) {
    const read = Math.min(FRAMES_READ, count - frame);
    const frames = readAt(wal, WAL_HEADER_BYTES + frame * FRAME_BYTES, read * FRAME_BYTES);
    const view = new DataView(frames.buffer);
    for (let index = 0; index < read; index++) pages.add(view.getUint32(index * FRAME_BYTES));
  }
  return [...pages].sort((a, b) => a - b);
}

function readAt(file: Deno.FsFile, offset: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  file.seekSync(offset, Deno.SeekMode.Start);
  for (let filled = 0; filled < length;) {
    const count = file.readSync(bytes.subarray(filled));
    if (count === null) throw new Error(`The file ends before ${offset + length}`);
    filled += count;
  }
  return bytes;
}

function writeAt(file: Deno.FsFile, offset: number, bytes: Uint8Array): void {
  file.seekSync(offset, Deno.SeekMode.Start);
  for (let written = 0; written < bytes.length;) written += file.writeSync(bytes.subarray(written));
}

async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
}

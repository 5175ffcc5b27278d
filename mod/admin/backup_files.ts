/**
 * Files of backups: read once and hashed on the way, linked where that is possible, on disk before anything says
 * that they are. Nothing here follows a symbolic link, in a place where one could have been put.
 */
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { hex } from "../base/bytes.ts";
import { delay, systemClock } from "../base/clock.ts";
import { syncFolder } from "../base/files.ts";
import { AdminError } from "./operations_error.ts";

const CHUNK_BYTES = 256 * 1024;
/** Written bytes after which a copy is synced: one large sync would make the server's own wait behind it. */
const SYNC_BYTES = 4 << 20;

/** Size and SHA-256 (lower-case hex) of bytes that went by. */
export interface Digest {
  readonly bytes: number;
  readonly sha256: string;
}

/** Bytes that went by: for copies, told to whoever shows progress. */
export type OnBytes = (bytes: number) => void;

/** Size of a plain file; null when there is none. Throws AdminError for anything else, such as a symbolic link. */
export async function plainFileSize(path: string): Promise<number | null> {
  try {
    const { isFile, size } = await Deno.lstat(path);
    if (isFile) return size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
  throw new AdminError(`${path} is a symbolic link or no plain file`);
}

/** Is it a folder, and no symbolic link to one? False when there is none. Throws AdminError for anything else. */
export async function isPlainFolder(path: string): Promise<boolean> {
  try {
    if ((await Deno.lstat(path)).isDirectory) return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
  throw new AdminError(`${path} is a symbolic link or no folder`);
}

/** Path of a backup's file, after a look that no folder on the way there is a symbolic link. */
export async function plainPath(folder: string, path: string): Promise<string> {
  const parts = path.split("/");
  for (let depth = 1; depth < parts.length; depth++) {
    if (!await isPlainFolder(join(folder, ...parts.slice(0, depth)))) break;
  }
  return join(folder, ...parts);
}

/** Content of a plain file of at most `bytesMax`; null when there is none. */
export async function readPlainFile(path: string, bytesMax: number): Promise<Uint8Array | null> {
  const size = await plainFileSize(path);
  if (size === null) return null;
  if (size > bytesMax) {
    throw new AdminError(`${path} has ${size} bytes: more than ${bytesMax} cannot be right`);
  }
  return await Deno.readFile(path);
}

/** Work on each chunk is followed by as long a rest; of this thread only. */
let gentle = false;
const REST_MS_MAX = 50;

/** For a worker beside a server: leaves half of the processor and of the disk to it. */
export function restBetweenChunks(): void {
  gentle = true;
}

/** Chunks of a file. */
export async function* readChunks(path: string): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  using file = await Deno.open(path);
  for (;;) {
    const began = performance.now();
    const chunk = new Uint8Array(CHUNK_BYTES);
    const count = await file.read(chunk);
    if (count === null) return;
    yield chunk.subarray(0, count);
    if (gentle) await delay(systemClock, Math.min(REST_MS_MAX, performance.now() - began));
  }
}

/** Counts and hashes chunks on their way. */
export class Hasher {
  readonly #hash = createHash("sha256");
  #bytes = 0;

  add(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    this.#bytes += chunk.length;
  }

  end(): Digest {
    return { bytes: this.#bytes, sha256: hex(this.#hash.digest()) };
  }
}

/** Reads a file to its end. */
export async function hashFile(path: string, onBytes: OnBytes = () => {}): Promise<Digest> {
  const hasher = new Hasher();
  for await (const chunk of readChunks(path)) {
    hasher.add(chunk);
    onBytes(chunk.length);
  }
  return hasher.end();
}

/** Writes a new file from chunks, mode 0600, and syncs it; what it held. A failure leaves nothing behind. */
export async function writeChunks(
  path: string,
  chunks: AsyncIterable<Uint8Array>,
  onBytes: OnBytes = () => {},
): Promise<Digest> {
  const hasher = new Hasher();
  try {
    using file = await Deno.open(path, { write: true, createNew: true, mode: 0o600 });
    let unsynced = 0;
    for await (const chunk of chunks) {
      hasher.add(chunk);
      for (let done = 0; done < chunk.length;) done += await file.write(chunk.subarray(done));
      onBytes(chunk.length);
      unsynced += chunk.length;
      if (unsynced < SYNC_BYTES) continue;
      await file.syncData();
      unsynced = 0;
    }
    await file.sync();
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) await Deno.remove(path).catch(() => {});
    throw error;
  }
  return hasher.end();
}

/** Writes a small new file; its folder is the caller's to sync. */
export async function writeDurably(path: string, bytes: Uint8Array): Promise<Digest> {
  return await writeChunks(path, once(bytes));
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/** A second name for the file, if the file system can; false when it is to be copied. NotFound is thrown. */
export async function tryLink(from: string, to: string): Promise<boolean> {
  try {
    await Deno.link(from, to);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.AlreadyExists) throw error;
    return false; // another file system, one without links, or one with no more of them for this file
  }
}

/** Makes a folder and those above it that are missing, mode 0700. */
export async function makeFolder(path: string): Promise<void> {
  await Deno.mkdir(path, { recursive: true, mode: 0o700 });
}

/** Every plain file under `folder`, relative to it, in order. Throws AdminError for anything that is none. */
export async function listFiles(folder: string, below = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isFile, isDirectory } of Deno.readDir(join(folder, below))) {
    const path = below === "" ? name : `${below}/${name}`;
    if (isDirectory) found.push(...await listFiles(folder, path));
    else if (isFile) found.push(path);
    else throw new AdminError(`${join(folder, path)} is a symbolic link or no plain file`);
  }
  return found.sort();
}

/** Makes the names in `folder` and in every folder below it durable. */
export async function syncFolders(folder: string): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) await syncFolders(join(folder, name));
  }
  await syncFolder(folder);
}

/** Removes a file or folder with everything in it; not there is fine. */
export async function removeAll(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Syncs a file that somebody else has written. */
export async function syncFile(path: string): Promise<void> {
  using file = await Deno.open(path);
  await file.sync();
}

/** The folder of a path, made if need be. */
export async function makeFolderOf(path: string): Promise<void> {
  await makeFolder(dirname(path));
}

/** Copies of a journal: as it is (snapshotTo), and sealed anew under another key (rekey). */
import { createHash } from "node:crypto";
import { concat } from "../../base/bytes.ts";
import { QpqError } from "../../base/errors.ts";
import type { OnProgress } from "../admin_store.ts";
import type { Disk, DiskFile } from "./disk.ts";
import { decodeHeader, type FileHeader, type FileKind, HEADER_BYTES, keyFits } from "./header.ts";
import type { OpenedRecord } from "./record.ts";
import { RecordReader } from "./record_reader.ts";
import { filePath, makeFile, sealerOf, type StoreFiles } from "./segment.ts";

/** A file of a journal and how much of it counts. */
export interface SourceFile {
  readonly kind: FileKind;
  readonly fileNumber: number;
  readonly path: string;
  readonly bytes: number;
}

/** How a long piece of work is watched: bytes done, and the signal that ends it. */
export interface Watch {
  readonly signal: AbortSignal;
  readonly onBytes: (bytes: number) => void;
}

const CHUNK_BYTES = 1024 * 1024;
/** Of a copy beside a store that writes: large reads and writes are felt by its own. */
const COPY_CHUNK_BYTES = 256 * 1024;
/** Written bytes are synced in pieces: a large backlog would make the journal's own syncs wait for all of it. */
const SYNC_EACH_BYTES = 4 * COPY_CHUNK_BYTES;

/**
 * Copies a file byte by byte into another folder; durable, but for the folder. After each piece `pause` is given the
 * time that it took, to leave the disk to others.
 */
export async function copyFile(
  disk: Disk,
  { source, folder, pause }: {
    source: SourceFile;
    folder: string;
    pause: (pieceMs: number) => Promise<void>;
  },
  watch: Watch,
): Promise<string> {
  const path = filePath(folder, source.kind, source.fileNumber);
  const from = await disk.open(source.path, "read");
  try {
    await writing(disk, path, async (to) => {
      let pieceBegan = performance.now();
      for (let offset = 0; offset < source.bytes;) {
        watch.signal.throwIfAborted();
        const chunk = await from.read(offset, Math.min(COPY_CHUNK_BYTES, source.bytes - offset));
        if (chunk.length === 0) throw damagedSource(source.path, offset);
        await to.write(offset, chunk);
        offset += chunk.length;
        watch.onBytes(chunk.length);
        if (offset % SYNC_EACH_BYTES !== 0) continue;
        await to.sync();
        await pause(performance.now() - pieceBegan);
        pieceBegan = performance.now();
      }
    });
  } finally {
    from.close();
  }
  return path;
}

async function writing(disk: Disk, path: string, write: (file: DiskFile) => Promise<void>): Promise<void> {
  const file = await disk.open(path, "create");
  try {
    await write(file);
    await file.sync();
  } finally {
    file.close();
  }
}

/**
 * Writes the file anew for `target`: each record at the same place with the same content, so that whatever refers
 * to places goes on to be right. Then reads it back, and compares. Returns the new file's path and bytes.
 */
export async function resealFile(
  source: SourceFile,
  { from, to }: { from: StoreFiles; to: StoreFiles },
  watch: Watch,
): Promise<{ path: string; header: Uint8Array; bytes: number }> {
  const file = await from.disk.open(source.path, "read");
  try {
    const head = await file.read(0, HEADER_BYTES);
    const { firstBatch } = decodeHeader(head) as FileHeader;
    const written = createHash("sha256");
    const reader = await RecordReader.begin(file, sealerOf(from, head));
    const { kind, fileNumber } = source;
    const made = await makeFile(to, { kind, fileNumber, firstBatch }, async (target, sealer) => {
      for (let batch: Uint8Array[] = [], offset = HEADER_BYTES, size = 0;;) {
        watch.signal.throwIfAborted();
        const record = reader.offset < source.bytes ? await reader.next() : undefined;
        if (record === null) throw damagedSource(source.path, reader.offset);
        if (record) {
          digest(written, record);
          batch.push(sealer.seal(record.kind, record.body, record));
          size += record.length;
          watch.onBytes(record.length);
        }
        if (size < CHUNK_BYTES && record) continue;
        await target.write(offset, concat(...batch));
        offset += size;
        [batch, size] = [[], 0];
        if (!record) break;
      }
    });
    made.file.close();
    return await readBack(to, { path: made.path, expected: written.digest("hex"), source }, watch);
  } finally {
    file.close();
  }
}

async function readBack(
  files: StoreFiles,
  { path, expected, source }: { path: string; expected: string; source: SourceFile },
  watch: Watch,
): Promise<{ path: string; header: Uint8Array; bytes: number }> {
  const file = await files.disk.open(path, "read");
  try {
    const header = await file.read(0, HEADER_BYTES);
    const read = createHash("sha256");
    const reader = await RecordReader.begin(file, sealerOf(files, header));
    while (!reader.atEnd) {
      watch.signal.throwIfAborted();
      const record = await reader.next();
      if (!record) break;
      digest(read, record);
      watch.onBytes(record.length);
    }
    const same = reader.atEnd && reader.offset === source.bytes && read.digest("hex") === expected;
    if (!same || !keyFits(header, files.masterKey)) {
      throw new QpqError("storeUnavailable", `Cannot use ${path} as it does not read back as it was written`);
    }
    return { path, header, bytes: source.bytes };
  } finally {
    file.close();
  }
}

function digest(hash: ReturnType<typeof createHash>, { kind, batch, offset, body }: OpenedRecord): void {
  hash.update(`${kind} ${batch} ${offset} ${body.length} `).update(body);
}

function damagedSource(path: string, offset: number): QpqError {
  return new QpqError(
    "storeUnavailable",
    `Cannot read ${path} as it is damaged at offset ${offset}: restore the latest backup`,
  );
}

/** Bytes done as a share of all there are, rising. */
export function watchOf(signal: AbortSignal, onProgress: OnProgress) {
  let [done, total] = [0, 0];
  const onTotal = (bytes: number) => total = bytes;
  const onBytes: Watch["onBytes"] = (bytes) => {
    done += bytes;
    onProgress(Math.min(1, done / total));
  };
  return { signal, onTotal, onBytes };
}

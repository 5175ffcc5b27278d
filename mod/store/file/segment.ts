/** The files of a journal: making one so that its name means it is complete, and reading from a segment. */
import { join } from "node:path";
import { type Bytes, randomBytes } from "../../base/bytes.ts";
import type { StoreKey } from "../key.ts";
import type { Disk, DiskFile } from "./disk.ts";
import { encodeHeader, fileKeyOf, type FileKind, type MasterKey } from "./header.ts";
import { Sealer } from "./record.ts";

/** What all files of one store share. */
export interface StoreFiles {
  readonly disk: Disk;
  readonly folder: string;
  readonly masterKey: MasterKey;
  readonly keyKind: StoreKey["kind"];
  readonly storeId: Bytes;
  readonly scryptLogN: number;
}

/** A file that was made. Its handle is open. */
export interface MadeFile {
  readonly file: DiskFile;
  readonly sealer: Sealer;
  readonly path: string;
}

/** Path of a file of the journal. */
export function filePath(folder: string, kind: FileKind, fileNumber: number): string {
  return join(folder, `${String(fileNumber).padStart(10, "0")}.${kind}`);
}

/** The sealer of the file that begins with these bytes. */
export function sealerOf(files: StoreFiles, header: Uint8Array): Sealer {
  const protection = files.keyKind === "none" ? "checksummed" : "encrypted";
  return new Sealer(fileKeyOf(header, files.masterKey), protection);
}

/**
 * Makes a file under a temporary name, has `fill` write what follows the header, and gives it its name. The folder
 * is not synced: the name is durable after the caller did that.
 */
export async function makeFile(
  files: StoreFiles,
  header: { kind: FileKind; fileNumber: number; firstBatch: number },
  fill: (file: DiskFile, sealer: Sealer) => Promise<void>,
): Promise<MadeFile> {
  const path = filePath(files.folder, header.kind, header.fileNumber);
  const temporary = `${path}.tmp`;
  const { storeId, scryptLogN, keyKind } = files;
  const bytes = encodeHeader(
    { ...header, storeId, scryptLogN, keyKind, fileSalt: randomBytes(32) },
    files.masterKey,
  );
  const sealer = sealerOf(files, bytes);
  const file = await files.disk.open(temporary, "create");
  try {
    await file.write(0, bytes);
    await fill(file, sealer);
    await file.sync();
    await files.disk.rename(temporary, path);
    return { file, sealer, path };
  } catch (error) {
    file.close();
    await files.disk.remove(temporary).catch(() => {}); // the next start removes it
    throw error;
  }
}

/** A segment that payloads are read from. */
export class Segment {
  readonly fileNumber: number;
  readonly path: string;
  readonly sealer: Sealer;
  size: number;
  readonly #disk: Disk;
  #reader: DiskFile | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(disk: Disk, options: { fileNumber: number; path: string; sealer: Sealer; size: number }) {
    this.#disk = disk;
    this.fileNumber = options.fileNumber;
    this.path = options.path;
    this.sealer = options.sealer;
    this.size = options.size;
  }

  /** Reads one after another: they share a handle. */
  read(offset: number, length: number): Promise<Bytes> {
    const read = this.#turn.then(async () => {
      this.#reader ??= await this.#disk.open(this.path, "read");
      return await this.#reader.read(offset, length);
    });
    this.#turn = read.catch(() => {}); // the reader of this turn gets the error
    return read;
  }

  /** Opens the handle now, so that reads go on when the file's name becomes another's. */
  async hold(): Promise<void> {
    await this.read(0, 0);
  }

  /** Closes the handle when the reads under way have ended. */
  async close(): Promise<void> {
    await this.#turn;
    this.#reader?.close();
    this.#reader = undefined;
  }
}

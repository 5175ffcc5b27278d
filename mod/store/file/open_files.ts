/**
 * The files that are there when a store is opened: their names, their headers, the key that opens them; and the
 * first file of a new store.
 */
import { join } from "node:path";
import { type Bytes, equal, randomBytes } from "../../base/bytes.ts";
import { parseStoreKey } from "../key.ts";
import { StoreOpenError } from "../store.ts";
import type { Disk } from "./disk.ts";
import {
  decodeHeader,
  type FileHeader,
  type FileKind,
  HEADER_BYTES,
  keyFits,
  type MasterKey,
  masterKeyOf,
  SCRYPT_LOG_N,
} from "./header.ts";
import { makeFile, sealerOf, Segment, type StoreFiles } from "./segment.ts";
import type { StateLimits } from "./state.ts";
import { ValueWriter } from "./value.ts";

/** What to do about damage. */
export const REMEDY = "nothing was changed; restore the latest backup";

/** A file that is there. */
export interface FoundFile {
  readonly kind: FileKind;
  readonly fileNumber: number;
  readonly path: string;
}

/** Everything that is read while opening. */
export interface Opening {
  readonly files: StoreFiles;
  readonly limits: StateLimits;
  readonly segments: readonly Segment[];
  readonly headers: ReadonlyMap<string, Bytes>;
}

/** The files of a journal, by number. */
export async function findFiles(disk: Disk, folder: string): Promise<FoundFile[]> {
  const found: FoundFile[] = [];
  for (const name of await disk.list(folder) ?? []) {
    const match = /^(\d{10})\.(segment|snapshot)$/.exec(name);
    if (!match) continue;
    found.push({ kind: match[2] as FileKind, fileNumber: Number(match[1]), path: join(folder, name) });
  }
  return found.sort((a, b) => a.fileNumber - b.fileNumber);
}

/** The first segment gets its name when it is complete: there is a whole store or none. */
export async function makeStore(disk: Disk, folder: string, keyText: string): Promise<void> {
  const seed: FileHeader = {
    kind: "segment",
    keyKind: parseStoreKey(keyText).kind,
    fileNumber: 1,
    firstBatch: 1,
    storeId: randomBytes(16),
    fileSalt: randomBytes(32),
    scryptLogN: SCRYPT_LOG_N,
  };
  const masterKey = (await masterKeyOf(keyText, seed))!;
  await disk.makeFolder(folder);
  const files: StoreFiles = { ...seed, disk, folder, masterKey };
  const rows = [
    ["incarnation", null, randomBytes(16)],
    ["realmId", null, randomBytes(16)],
  ] as const;
  const writer = new ValueWriter();
  writer.write(0);
  for (const fields of rows) writer.write([1, fields]);
  const made = await makeFile(files, seed, async (file, sealer) => {
    await file.write(HEADER_BYTES, sealer.seal("commit", writer.take(), { batch: 1, offset: HEADER_BYTES }));
  });
  made.file.close();
  await disk.syncFolder(folder);
}

/** Reads the start of every file and finds the key that opens them. */
export async function readHeaders(
  disk: Disk,
  found: readonly FoundFile[],
  { keys, limits, folder }: { keys: readonly string[]; limits: StateLimits; folder: string },
): Promise<Opening> {
  const headers = new Map<string, Bytes>();
  const segments: Segment[] = [];
  let files: StoreFiles | undefined;
  for (const { path, kind, fileNumber } of found) {
    const { bytes, size } = await readStart(disk, path);
    const header = decodeHeader(bytes);
    if (header === "newerSchema") throw newer(path);
    if (header === "damaged" || header.kind !== kind || header.fileNumber !== fileNumber) {
      throw damaged(path, 0);
    }
    files ??= { ...header, disk, folder, masterKey: await findKey(path, header, { bytes, keys }) };
    if (!equal(header.storeId, files.storeId) || !keyFits(bytes, files.masterKey)) {
      throw new StoreOpenError(
        "damaged",
        path,
        `${path} belongs to another store than its neighbours; ${REMEDY}`,
      );
    }
    headers.set(path, bytes);
    if (kind === "segment") {
      segments.push(new Segment(disk, { fileNumber, path, size, sealer: sealerOf(files, bytes) }));
    }
  }
  return { files: files!, limits, segments, headers };
}

async function readStart(disk: Disk, path: string): Promise<{ bytes: Bytes; size: number }> {
  const file = await disk.open(path, "read");
  try {
    return { bytes: await file.read(0, HEADER_BYTES), size: await file.size() };
  } finally {
    file.close();
  }
}

async function findKey(
  path: string,
  header: FileHeader,
  { bytes, keys }: { bytes: Bytes; keys: readonly string[] },
): Promise<MasterKey> {
  for (const key of keys) {
    const masterKey = await masterKeyOf(key, header);
    if (masterKey && keyFits(bytes, masterKey)) return masterKey;
  }
  const tried = keys.length === 1 ? "The key does" : `None of the ${keys.length} keys does`;
  const message = header.keyKind === "none"
    ? `${path} is not encrypted, but a key is configured: leave db_key empty, or use another data folder`
    : `${tried} not open ${path}: give the db_key that the store was made with`;
  throw new StoreOpenError("wrongKey", path, message);
}

/** The error for a file that does not pass its check. */
export function damaged(path: string, offset: number, cause?: unknown): StoreOpenError {
  return new StoreOpenError("damaged", path, `${path} is damaged at offset ${offset}; ${REMEDY}`, { cause });
}

function newer(path: string): StoreOpenError {
  const message =
    `${path} was written by a newer version of this program: install that version; nothing was changed`;
  return new StoreOpenError("newerSchema", path, message);
}

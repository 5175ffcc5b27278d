/**
 * Opening: makes a new store, or reads the newest snapshot and replays the segments from there on. A last record
 * that a crash left incomplete is cut off; anything else that does not pass its check is damage, and then nothing
 * is changed. Snapshot N holds everything before segment N, and perhaps some of what follows, which replaying
 * repeats: rows are written as they are, so that is the same.
 */
import { dirname, join } from "node:path";
import { logger } from "../../base/log.ts";
import { type OpenOptions, StoreOpenError } from "../store.ts";
import { findBrokenReference, loadChanges, loadRow } from "./batch.ts";
import type { Disk, DiskFile } from "./disk.ts";
import { decodeHeader, type FileHeader, FORMAT_VERSION, formatVersionOf } from "./header.ts";
import { Journal } from "./journal.ts";
import {
  damaged,
  findFiles,
  type FoundFile,
  makeStore,
  type Opening,
  readHeaders,
  REMEDY,
} from "./open_files.ts";
import { RECORD_EXTRA_BYTES } from "./record.ts";
import { hasLaterRecord, RecordReader } from "./record_reader.ts";
import { filePath, sealerOf, type Segment } from "./segment.ts";
import { State, type StateLimits } from "./state.ts";
import { ValueError, ValueReader } from "./value.ts";

const log = logger("store");

/** The journal's folder in the data folder. */
export const JOURNAL_FOLDER = "journal";

/** Opens the journal of a data folder, or makes it. Throws StoreOpenError or what the disk throws. */
export async function openJournal(
  options: OpenOptions,
  disk: Disk,
  limits: StateLimits,
): Promise<{ state: State; journal: Journal }> {
  const folder = join(options.dataDir, JOURNAL_FOLDER);
  if (options.keys.length === 0) {
    throw new StoreOpenError("keyMissing", folder, `No key for the store ${folder}`);
  }
  let found = await findFiles(disk, folder);
  if (found.length === 0) {
    if (options.mustExist) {
      throw new StoreOpenError("failed", folder, `There is no store in ${folder}: check the data folder`);
    }
    await makeStore(disk, folder, options.keys[0]!);
    found = await findFiles(disk, folder);
  }
  const opening = await readHeaders(disk, found, { keys: options.keys, limits, folder });
  // A process that was killed may not have come to it, and batches are to be as durable as the names that lead there.
  await disk.syncFolder(dirname(folder));
  const { state, start, snapshotBytes } = await loadSnapshot(opening, found);
  return await replay(opening, { state, start, snapshotBytes });
}

interface Loaded {
  state: State;
  /** The first segment to replay, and the batch that the state needs at least. */
  start: { segment: number; firstBatch: number; throughBatch: number };
  snapshotBytes: number;
}

/** Reads the newest snapshot; when it is damaged, the one before if it is still there. */
async function loadSnapshot(opening: Opening, found: readonly FoundFile[]): Promise<Loaded> {
  const snapshots = found.filter((file) => file.kind === "snapshot").reverse();
  for (const [index, snapshot] of snapshots.entries()) {
    try {
      return await readSnapshot(opening, snapshot);
    } catch (error) {
      const damage = error instanceof StoreOpenError && error.problem === "damaged";
      if (!damage || index === snapshots.length - 1) throw error;
      log.error("snapshot {path} is damaged; using the one before", { path: snapshot.path });
    }
  }
  const start = { segment: 1, firstBatch: 1, throughBatch: 1 };
  return { state: new State(opening.limits), start, snapshotBytes: 0 };
}

async function readSnapshot(opening: Opening, { path, fileNumber }: FoundFile): Promise<Loaded> {
  const header = opening.headers.get(path)!;
  const state = new State(opening.limits);
  const file = await opening.files.disk.open(path, "read");
  try {
    const records = await RecordReader.begin(file, sealerOf(opening.files, header));
    for (let place = 0;; place++) {
      const { offset } = records;
      const record = await records.next();
      if (record?.batch !== place) throw damaged(path, offset);
      const reader = new ValueReader(record.body);
      if (record.kind === "end") {
        const throughBatch = loading(path, offset, () => reader.read());
        if (typeof throughBatch !== "number" || !records.atEnd) throw damaged(path, offset);
        const { firstBatch } = decodeHeader(header) as FileHeader;
        const start = { segment: fileNumber, firstBatch, throughBatch };
        return { state, start, snapshotBytes: records.offset };
      }
      if (record.kind !== "rows") throw damaged(path, offset);
      loading(path, offset, () => {
        while (!reader.done) loadRow(state, reader.read());
      });
    }
  } finally {
    file.close();
  }
}

async function replay(
  opening: Opening,
  { state, start, snapshotBytes }: Loaded,
): Promise<{ state: State; journal: Journal }> {
  const { files } = opening;
  let expected = start.firstBatch;
  let fileNumber = start.segment;
  const active = opening.segments.filter((segment) => segment.fileNumber >= start.segment);
  if (active.length === 0) throw damaged(filePath(files.folder, "segment", fileNumber), 0);
  let cut: { from: number; to: number } | undefined;
  for (const segment of active) {
    const header = decodeHeader(opening.headers.get(segment.path)!) as FileHeader;
    const missing = segment.fileNumber !== fileNumber++;
    if (missing) throw damaged(filePath(files.folder, "segment", fileNumber - 1), 0);
    if (header.firstBatch !== expected) throw damaged(segment.path, 0);
    const last = segment === active.at(-1);
    const end = await replaySegment(state, segment, { file: files.disk, expected, last });
    if (end.goodBytes < segment.size) cut = { from: end.goodBytes, to: segment.size };
    segment.size = end.goodBytes;
    expected = end.nextBatch;
  }
  const segment = active.at(-1)!;
  if (expected <= start.throughBatch) throw damaged(segment.path, segment.size);
  checkReferences(state, opening);
  state.loaded();
  const file = await files.disk.open(segment.path, "write");
  await settle(file, files, { path: segment.path, cut });
  const journalStart = {
    segments: opening.segments,
    file,
    nextBatch: expected,
    firstBatch: (decodeHeader(opening.headers.get(segment.path)!) as FileHeader).firstBatch,
    snapshotBytes,
    snapshotNumber: snapshotBytes === 0 ? 0 : start.segment,
  };
  const journal = new Journal(files, journalStart);
  // An older version must not take what this one writes for damage: it refuses a file of a newer version.
  if (formatVersionOf(opening.headers.get(segment.path)!) < FORMAT_VERSION) await journal.rotate();
  return { state, journal };
}

/**
 * Cuts an incomplete tail off, and makes durable what is there. A process that was killed may not have synced its last
 * batch, or the name of the segment: answers that rest on them must not be lost with the power.
 */
async function settle(
  file: DiskFile,
  { disk, folder }: Opening["files"],
  { path, cut }: { path: string; cut: { from: number; to: number } | undefined },
): Promise<void> {
  try {
    if (cut) await file.truncate(cut.from);
    await file.sync();
    await disk.syncFolder(folder);
  } catch (error) {
    file.close();
    throw error;
  }
  if (!cut) return;
  log.warn("cut {bytes} bytes off {path} at {offset}: the last write before the stop was incomplete", {
    bytes: cut.to - cut.from,
    path,
    offset: cut.from,
  });
}

/** Loads the batches of one segment; returns where they end and what follows. */
async function replaySegment(
  state: State,
  segment: Segment,
  { file: disk, expected, last }: { file: Disk; expected: number; last: boolean },
): Promise<{ goodBytes: number; nextBatch: number }> {
  const file = await disk.open(segment.path, "read");
  try {
    const records = await RecordReader.begin(file, segment.sealer);
    let nextBatch = expected;
    let goodBytes = records.offset;
    let payloads = 0;
    while (!records.atEnd) {
      const { offset } = records;
      const record = await records.next();
      if (!record) {
        await refuseDamage(file, segment, { offset, last, batch: nextBatch });
        break;
      }
      const ours = record.kind === "payload" || record.kind === "commit";
      if (!ours || record.batch !== nextBatch) throw damaged(segment.path, offset);
      if (record.kind === "payload") {
        payloads++;
        continue;
      }
      const counted = loading(segment.path, offset, () => loadChanges(state, record.body));
      if (counted !== payloads) throw damaged(segment.path, goodBytes);
      payloads = 0;
      nextBatch++;
      goodBytes = records.offset;
    }
    if (goodBytes < segment.size && !last) throw damaged(segment.path, goodBytes);
    return { goodBytes, nextBatch };
  } finally {
    file.close();
  }
}

/** What does not pass is an incomplete last write only if nothing of a later batch follows. */
async function refuseDamage(
  file: DiskFile,
  segment: Segment,
  { offset, last, batch }: { offset: number; last: boolean; batch: number },
): Promise<void> {
  if (!last) throw damaged(segment.path, offset);
  const bytes = await file.read(offset, segment.size - offset);
  if (hasLaterRecord(bytes, segment.sealer, { offset, batch })) throw damaged(segment.path, offset);
}

function checkReferences(state: State, { segments, files }: Opening): void {
  const sizes = new Map(segments.map((segment) => [segment.fileNumber, segment.size]));
  const broken = findBrokenReference(state, ({ segment, offset, length }) => {
    return offset + length + RECORD_EXTRA_BYTES <= (sizes.get(segment) ?? 0);
  });
  if (broken) {
    throw new StoreOpenError("damaged", files.folder, `${files.folder} is damaged: ${broken}; ${REMEDY}`);
  }
  for (const name of ["incarnation", "realmId"]) {
    if (!state.meta.get(name)?.bytes) {
      throw new StoreOpenError("damaged", files.folder, `${files.folder} is damaged: no ${name}; ${REMEDY}`);
    }
  }
}

/** Records that pass their check but cannot be understood are damage as well. */
function loading<Result>(path: string, offset: number, load: () => Result): Result {
  try {
    return load();
  } catch (error) {
    if (error instanceof ValueError) throw damaged(path, offset, error);
    throw error;
  }
}

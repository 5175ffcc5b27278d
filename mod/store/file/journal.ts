/**
 * The journal's files while the store is open: the active segment, to which batches are appended, and the older
 * segments, in which payloads still live. In the folder: `0000000001.segment`, `0000000002.snapshot`, and `*.tmp`,
 * which is what a crash leaves of a file that was being made. A file that bears its final name is complete.
 *
 * A batch is one write and one fdatasync: records of its payloads, then one record of its changes. What a failed
 * write leaves is cut off before anything else is written.
 */
import { type Bytes, concat } from "../../base/bytes.ts";
import { QpqError } from "../../base/errors.ts";
import type { DiskFile } from "./disk.ts";
import { HEADER_BYTES } from "./header.ts";
import { RECORD_EXTRA_BYTES } from "./record.ts";
import { makeFile, Segment, type StoreFiles } from "./segment.ts";

/** A record of a payload in a segment; `length` is the payload's. */
export interface PayloadPlace {
  readonly segment: number;
  readonly offset: number;
  readonly length: number;
}

/** Reads that lie this close to each other are made in one. */
const READ_GAP_BYTES = 16 * 1024;
const READ_BYTES_MAX = 1024 * 1024;

/** What the journal begins with when it was opened. */
export interface JournalStart {
  readonly segments: readonly Segment[];
  /** Write handle of the last segment. */
  readonly file: DiskFile;
  readonly nextBatch: number;
  /** First batch of the last segment. */
  readonly firstBatch: number;
  readonly snapshotBytes: number;
  readonly snapshotNumber: number;
}

/** The journal of an open store. One writer at a time: the caller sees to it. */
export class Journal {
  #files: StoreFiles;
  #segments: Map<number, Segment>;
  #active: Segment;
  #file: DiskFile;
  #nextBatch: number;
  /** The active segment may be longer than its size says, or its name not durable. */
  #needsRepair = false;
  #activeFirstBatch: number;
  /** Size and number of the newest snapshot; 0: none. */
  snapshotBytes: number;
  snapshotNumber: number;

  constructor(files: StoreFiles, start: JournalStart) {
    this.#files = files;
    this.#segments = new Map(start.segments.map((segment) => [segment.fileNumber, segment]));
    this.#active = start.segments.at(-1)!;
    this.#file = start.file;
    this.#nextBatch = start.nextBatch;
    this.#activeFirstBatch = start.firstBatch;
    this.snapshotBytes = start.snapshotBytes;
    this.snapshotNumber = start.snapshotNumber;
  }

  /** Where the files are, and their key. */
  get files(): StoreFiles {
    return this.#files;
  }

  /** The segment that is written. */
  get active(): Segment {
    return this.#active;
  }

  /** The batch with which the active segment begins. */
  get activeFirstBatch(): number {
    return this.#activeFirstBatch;
  }

  /** Number of the next batch. */
  get nextBatch(): number {
    return this.#nextBatch;
  }

  /** All segments, oldest first. */
  get segments(): Segment[] {
    return [...this.#segments.values()];
  }

  /** Bytes on disk. */
  get diskBytes(): number {
    return this.segments.reduce((sum, segment) => sum + segment.size, this.snapshotBytes);
  }

  /** Appends the records of one batch; durable when it resolves, not there when it rejects. */
  async append(records: readonly Bytes[]): Promise<void> {
    if (this.#needsRepair) await this.#repair();
    const bytes = concat(...records);
    try {
      await this.#file.write(this.#active.size, bytes);
      await this.#file.sync();
    } catch (error) {
      this.#needsRepair = true;
      await this.#repair().catch(() => {}); // tried again before the next write, which fails if this does
      throw error;
    }
    this.#active.size += bytes.length;
    this.#nextBatch++;
  }

  async #repair(): Promise<void> {
    await this.#file.truncate(this.#active.size);
    await this.#file.sync();
    await this.files.disk.syncFolder(this.files.folder);
    this.#needsRepair = false;
  }

  /** Begins a new segment; what was appended before stays where it is. */
  async rotate(): Promise<void> {
    if (this.#needsRepair) await this.#repair();
    const fileNumber = this.#active.fileNumber + 1;
    const header = { kind: "segment", fileNumber, firstBatch: this.#nextBatch } as const;
    const { file, sealer, path } = await makeFile(this.files, header, async () => {});
    // From here on the new segment is there, whatever fails: going on with the old one would make two of one batch.
    this.#file.close();
    this.#file = file;
    this.#active = new Segment(this.files.disk, { fileNumber, path, sealer, size: HEADER_BYTES });
    this.#segments.set(fileNumber, this.#active);
    this.#activeFirstBatch = this.#nextBatch;
    this.#needsRepair = true;
    await this.#repair();
  }

  /** Payloads in the order of their places; null when a segment is gone, because its payloads were moved. */
  async readPayloads(places: readonly PayloadPlace[]): Promise<Bytes[] | null> {
    const payloads = new Map<PayloadPlace, Bytes>();
    for (const run of runsOf(places)) {
      const segment = this.#segments.get(run[0]!.segment);
      if (!segment) return null;
      const start = run[0]!.offset;
      const bytes = await segment.read(start, run.at(-1)!.offset + recordBytes(run.at(-1)!) - start);
      for (const place of run) {
        const from = place.offset - start;
        const record = segment.sealer.open(bytes.subarray(from, from + recordBytes(place)));
        if (record?.kind !== "payload" || record.offset !== place.offset) {
          throw damagedPayload(segment.path, place.offset);
        }
        payloads.set(place, record.body);
      }
    }
    return places.map((place) => payloads.get(place)!);
  }

  /** Deletes a segment that nothing needs. */
  async dropSegment(fileNumber: number): Promise<void> {
    const segment = this.#segments.get(fileNumber);
    if (!segment || segment === this.#active) return;
    this.#segments.delete(fileNumber);
    await segment.close();
    await this.files.disk.remove(segment.path);
  }

  /**
   * Goes on with other files that hold the same at the same places: what rekey has made. `file` is the write handle
   * of their last segment. The handles of the former are closed.
   */
  async replaceFiles(
    files: StoreFiles,
    { segments, file }: { segments: readonly Segment[]; file: DiskFile },
  ): Promise<void> {
    const former = [...this.#segments.values()];
    this.#file.close();
    this.#files = files;
    this.#file = file;
    this.#segments = new Map(segments.map((segment) => [segment.fileNumber, segment]));
    this.#active = segments.at(-1)!;
    for (const segment of former) await segment.close();
  }

  /** Closes all files. */
  async close(): Promise<void> {
    this.#file.close();
    for (const segment of this.#segments.values()) await segment.close();
  }
}

function recordBytes(place: PayloadPlace): number {
  return place.length + RECORD_EXTRA_BYTES;
}

/** Places grouped so that each group is one read. */
function runsOf(places: readonly PayloadPlace[]): PayloadPlace[][] {
  const sorted = [...places].sort((a, b) => a.segment - b.segment || a.offset - b.offset);
  const runs: PayloadPlace[][] = [];
  for (const place of sorted) {
    const run = runs.at(-1);
    const last = run?.at(-1);
    const near = last?.segment === place.segment &&
      place.offset - (last.offset + recordBytes(last)) <= READ_GAP_BYTES &&
      place.offset + recordBytes(place) - run![0]!.offset <= READ_BYTES_MAX;
    if (near) run!.push(place);
    else runs.push([place]);
  }
  return runs;
}

function damagedPayload(path: string, offset: number): QpqError {
  return new QpqError(
    "storeUnavailable",
    `Cannot read a payload as its record in ${path} at ${offset} is damaged: restore the latest backup`,
  );
}

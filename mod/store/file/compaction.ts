/**
 * Keeps the journal short: when the active segment has grown to `segmentBytes` (and to the size of the last
 * snapshot, so that snapshots never cost more than the writes between them), it begins a new segment, moves the
 * payloads of segments that are mostly dead, writes a snapshot and deletes what nothing needs any more.
 *
 * Verbs go on meanwhile. The snapshot is a walk over live tables in steps of some rows, each between two batches:
 * what changes during the walk is also in the new segment, and replaying that on top gives the same rows whatever
 * the walk saw of them. A crash between any two steps leaves either the files of before, whole, or more files than
 * needed, which the next run deletes.
 */
import { join } from "node:path";
import { messageOf } from "../../base/errors.ts";
import { logger } from "../../base/log.ts";
import { writeRow } from "./batch.ts";
import type { Committer } from "./committer.ts";
import { HEADER_BYTES } from "./header.ts";
import type { Journal } from "./journal.ts";
import { RECORD_EXTRA_BYTES } from "./record.ts";
import type { BodyRow } from "./rows.ts";
import { makeFile, type Segment } from "./segment.ts";
import type { State } from "./state.ts";
import { type AnyTable, numberKey } from "./table.ts";
import { ValueWriter } from "./value.ts";

const log = logger("store");

/** Rows are written and payloads moved in steps of about this size. */
const STEP_BYTES = 256 * 1024;

/** What compaction works on. */
export interface CompactionParts {
  readonly state: State;
  readonly journal: Journal;
  readonly committer: Committer;
  readonly segmentBytes: number;
}

/** Thrown inside a run when the store is being closed. */
class Stopped extends Error {
  override name = "Stopped";
}

/** Compaction of one open store. */
export class Compaction {
  readonly #parts: CompactionParts;
  #running: Promise<void> | undefined;
  #stopped = false;
  /** While above 0 no run begins. */
  #pauses = 0;
  /** After a failure: not before the active segment has this size. */
  #retryAtBytes = 0;

  constructor(parts: CompactionParts) {
    this.#parts = parts;
  }

  /** Begins a run if it is time for one. */
  check(): void {
    const { journal, segmentBytes } = this.#parts;
    const due = journal.active.size >= Math.max(segmentBytes, journal.snapshotBytes, this.#retryAtBytes);
    if (due && !this.#stopped && this.#pauses === 0) this.start();
  }

  /** Does `work` while no run is under way or begins: files stay where they are. */
  async paused<Result>(work: () => Promise<Result>): Promise<Result> {
    this.#pauses++;
    try {
      await this.#running;
      return await work();
    } finally {
      this.#pauses--;
    }
  }

  /**
   * Begins a run unless one is under way or {@link paused}; resolves, whatever came of it, when the run has ended.
   */
  start(): Promise<void> {
    if (this.#pauses > 0) return Promise.resolve();
    this.#running ??= this.#run().finally(() => this.#running = undefined);
    return this.#running;
  }

  /** Ends a run between two steps; resolves when it has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    const { journal, committer, segmentBytes } = this.#parts;
    try {
      await committer.alone(() => journal.rotate());
      for (const segment of await committer.alone(() => this.#sparseSegments())) await this.#move(segment);
      await this.#writeSnapshot();
      await this.dropUnneeded();
      this.#retryAtBytes = 0;
    } catch (error) {
      this.#retryAtBytes = journal.active.size + Math.ceil(segmentBytes / 4);
      if (error instanceof Stopped) return;
      const { path } = journal.active;
      log.warn("cannot compact the journal, will try again: {error}", { path, error: messageOf(error) });
    }
  }

  /** Segments of which more than half is dead. */
  #sparseSegments(): Segment[] {
    const { state, journal } = this.#parts;
    return journal.segments.filter((segment) => {
      const live = state.queueIndex.segmentBytes(segment.fileNumber);
      return segment !== journal.active && live > 0 && live * 2 < segment.size;
    });
  }

  /** Writes the segment's payloads anew, as any verb would. */
  async #move(segment: Segment): Promise<void> {
    const { state, committer } = this.#parts;
    const bodies = await committer.alone(() => {
      return [...state.queues.bodies.rows()].filter((body) => body.segment === segment.fileNumber);
    });
    for (let first = 0; first < bodies.length;) {
      const step: BodyRow[] = [];
      for (let bytes = 0; first < bodies.length && bytes < STEP_BYTES; first++) {
        step.push(bodies[first]!);
        bytes += bodies[first]!.length + RECORD_EXTRA_BYTES;
      }
      await this.#moveStep(step);
    }
  }

  async #moveStep(bodies: readonly BodyRow[]): Promise<void> {
    const { state, journal, committer } = this.#parts;
    if (this.#stopped) throw new Stopped();
    const payloads = await journal.readPayloads(bodies);
    if (!payloads) return;
    await committer.run(() => {
      bodies.forEach((body, index) => {
        const key = numberKey(body.bodyId);
        const current = state.queues.bodies.get(key);
        if (current?.segment !== body.segment || current.offset !== body.offset) return;
        state.put(state.queues.bodies, { ...current, segment: 0, offset: 0 });
        state.stagePayload(key, payloads[index]!);
      });
    });
  }

  async #writeSnapshot(): Promise<void> {
    const { state, journal, committer } = this.#parts;
    const { fileNumber } = journal.active;
    const firstBatch = journal.activeFirstBatch;
    const writer = new ValueWriter();
    let offset = HEADER_BYTES;
    const header = { kind: "snapshot", fileNumber, firstBatch } as const;
    const made = await makeFile(journal.files, header, async (file, sealer) => {
      const walk = walkRows(state);
      for (let place = 0;; place++) {
        if (this.#stopped) throw new Stopped();
        const { body, throughBatch } = await committer.alone(() => ({
          body: takeRows(walk, writer),
          throughBatch: journal.nextBatch - 1,
        }));
        const kind = body.length > 0 ? "rows" : "end";
        if (kind === "end") writer.write(throughBatch);
        const record = sealer.seal(kind, kind === "end" ? writer.take() : body, { batch: place, offset });
        await file.write(offset, record);
        offset += record.length;
        if (kind === "end") break;
      }
    });
    made.file.close();
    await journal.files.disk.syncFolder(journal.files.folder);
    journal.snapshotBytes = offset;
    journal.snapshotNumber = fileNumber;
  }

  /** Deletes files that the newest snapshot made superfluous, and what crashes have left. */
  async dropUnneeded(): Promise<void> {
    const { state, journal, committer } = this.#parts;
    const { disk, folder } = journal.files;
    const inUse = new Set(await committer.alone(() => state.queueIndex.segmentsInUse()));
    for (const { fileNumber } of journal.segments) {
      if (fileNumber < journal.snapshotNumber && !inUse.has(fileNumber)) {
        await journal.dropSegment(fileNumber);
      }
    }
    for (const name of await disk.list(folder) ?? []) {
      const older = /^(\d{10})\.snapshot$/.exec(name);
      const superfluous = older ? Number(older[1]) < journal.snapshotNumber : /^\d{10}\.\w+\.tmp$/.test(name);
      if (superfluous) await disk.remove(join(folder, name));
    }
  }
}

/** Every row of every table, also those that come during the walk. */
function* walkRows(state: State): Generator<{ table: AnyTable; key: string }> {
  for (const table of state.tables.values()) {
    for (const key of table.keys()) yield { table, key };
  }
}

/** Some rows of the walk; nothing at its end. */
function takeRows(walk: Iterator<{ table: AnyTable; key: string }>, writer: ValueWriter): Uint8Array {
  while (writer.length < STEP_BYTES) {
    const { value, done } = walk.next();
    if (done) break;
    writeRow(writer, value.table, value.key);
  }
  return writer.take();
}

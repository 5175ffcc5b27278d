/** The files that make up the journal at one moment, and a copy of them while verbs go on. */
import { join } from "node:path";
import type { Snapshot } from "../admin_store.ts";
import { asStoreError, refuseUnlessEmpty } from "../maintenance.ts";
import type { StoreCounts } from "../store.ts";
import type { Compaction } from "./compaction.ts";
import type { Committer } from "./committer.ts";
import { copyFile, type SourceFile, type Watch } from "./copy.ts";
import { FORMAT_VERSION } from "./header.ts";
import type { Journal } from "./journal.ts";
import { JOURNAL_FOLDER } from "./recovery.ts";
import { filePath } from "./segment.ts";
import { countAll } from "./server_rows.ts";
import type { State } from "./state.ts";

/** An open store from inside. */
export interface StoreParts {
  readonly state: State;
  readonly journal: Journal;
  readonly committer: Committer;
  readonly compaction: Compaction;
}

/**
 * What has to be read to have the state: the newest snapshot, the segments from there on, and older ones that hold
 * payloads in use. To be called between two batches; afterwards the files may grow, but not in what is listed.
 */
export function sourceFiles({ state, journal }: Pick<StoreParts, "state" | "journal">): SourceFile[] {
  const { snapshotNumber, snapshotBytes, files: { folder } } = journal;
  const inUse = new Set(state.queueIndex.segmentsInUse());
  const needed = journal.segments.filter(({ fileNumber }) => {
    return fileNumber >= snapshotNumber || inUse.has(fileNumber);
  });
  const sources = needed.map(({ fileNumber, path, size }): SourceFile => {
    return { kind: "segment", fileNumber, path, bytes: size };
  });
  if (snapshotNumber === 0) return sources;
  const path = filePath(folder, "snapshot", snapshotNumber);
  return [{ kind: "snapshot", fileNumber: snapshotNumber, path, bytes: snapshotBytes }, ...sources];
}

/** Bytes of the files together. */
export function totalBytes(sources: readonly SourceFile[]): number {
  return sources.reduce((sum, source) => sum + source.bytes, 0);
}

/** See AdminStore.snapshotTo. */
export async function snapshotTo(
  parts: StoreParts,
  folder: string,
  watch: Watch & {
    readonly onTotal: (bytes: number) => void;
  },
): Promise<Snapshot> {
  const { committer, compaction, journal } = parts;
  const { disk } = journal.files;
  await refuseUnlessEmpty(folder);
  // Files must not be dropped before they are copied.
  return await compaction.paused(async () => {
    const { sources, counts } = await committer.alone(() => ({
      sources: sourceFiles(parts),
      counts: countAll(parts.state),
    }));
    watch.onTotal(totalBytes(sources));
    const target = join(folder, JOURNAL_FOLDER);
    try {
      await disk.makeFolder(target);
      const pause = pauseWhileWriting(journal);
      for (const source of sources) await copyFile(disk, { source, folder: target, pause }, watch);
      await disk.syncFolder(target);
      await disk.syncFolder(folder);
    } catch (error) {
      await Deno.remove(target, { recursive: true }).catch(() => {}); // the first error is the one to tell
      throw asStoreError(error, `Cannot write a snapshot into ${folder}`);
    }
    return snapshotOf(sources, counts);
  });
}

/** While the store writes, the disk is its for so many times what each piece of a copy took. */
const PAUSE_SHARE = 2;

function pauseWhileWriting(journal: Journal): (pieceMs: number) => Promise<void> {
  let seen = journal.nextBatch;
  return async (pieceMs) => {
    if (journal.nextBatch === seen) return;
    seen = journal.nextBatch;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_SHARE * pieceMs));
  };
}

function snapshotOf(sources: readonly SourceFile[], counts: StoreCounts): Snapshot {
  const files = sources.map(({ kind, fileNumber }) => filePath(JOURNAL_FOLDER, kind, fileNumber));
  return { files, schemaVersion: FORMAT_VERSION, counts };
}

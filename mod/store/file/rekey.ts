/**
 * Encrypts the journal anew: every record that is needed is sealed again under the new key, at the same place of a
 * file with the same number, so that the state in memory need not change. Until the swap nothing of the old folder
 * is touched; swap.ts says what a crash in between leaves.
 */
import { dirname } from "node:path";
import { randomBytes } from "../../base/bytes.ts";
import { parseStoreKey } from "../key.ts";
import { asStoreError } from "../maintenance.ts";
import { completeDraft, draftPath, removeDraft, swapBack, swapIn } from "../swap.ts";
import { resealFile, type SourceFile, type Watch } from "./copy.ts";
import { masterKeyOf, SCRYPT_LOG_N } from "./header.ts";
import type { Journal } from "./journal.ts";
import { JOURNAL_FOLDER } from "./recovery.ts";
import { filePath, sealerOf, Segment, type StoreFiles } from "./segment.ts";
import { sourceFiles, type StoreParts, totalBytes } from "./snapshot.ts";

/** See AdminStore.rekey. To be called while no verb runs and no compaction. */
export async function rekeyJournal(
  parts: Pick<StoreParts, "state" | "journal">,
  key: string,
  watch: Watch & { readonly onTotal: (bytes: number) => void },
): Promise<{ oldPath: string; bytes: number }> {
  const { journal } = parts;
  const dataDir = dirname(journal.files.folder);
  const sources = sourceFiles(parts);
  const bytes = totalBytes(sources);
  watch.onTotal(2 * bytes);
  let old: string | undefined;
  try {
    await removeDraft(dataDir, JOURNAL_FOLDER);
    const draft = await newFiles(journal.files, draftPath(dataDir, JOURNAL_FOLDER), key);
    const headers = await reseal(sources, { from: journal.files, to: draft }, watch);
    await completeDraft(dataDir, JOURNAL_FOLDER);
    for (const segment of journal.segments) await segment.hold();
    old = await swapIn(dataDir, JOURNAL_FOLDER);
    await goOn(journal, { ...draft, folder: journal.files.folder }, headers);
    return { oldPath: old, bytes };
  } catch (error) {
    if (old) await swapBack(dataDir, JOURNAL_FOLDER, old);
    else await removeDraft(dataDir, JOURNAL_FOLDER).catch(() => {}); // the next start removes it
    throw asStoreError(error, "Cannot change the store's key");
  }
}

async function newFiles(former: StoreFiles, folder: string, key: string): Promise<StoreFiles> {
  const keyKind = parseStoreKey(key).kind;
  const shared = { keyKind, storeId: randomBytes(16), scryptLogN: SCRYPT_LOG_N };
  const masterKey = (await masterKeyOf(key, shared))!;
  await former.disk.makeFolder(folder);
  return { ...shared, disk: former.disk, folder, masterKey };
}

type Headers = readonly { source: SourceFile; header: Uint8Array }[];

async function reseal(
  sources: readonly SourceFile[],
  files: { from: StoreFiles; to: StoreFiles },
  watch: Watch,
): Promise<Headers> {
  const headers: { source: SourceFile; header: Uint8Array }[] = [];
  for (const source of sources) {
    const { header } = await resealFile(source, files, watch);
    headers.push({ source, header });
  }
  await files.to.disk.syncFolder(files.to.folder);
  return headers;
}

/** Has the open journal use the new files. */
async function goOn(journal: Journal, files: StoreFiles, headers: Headers): Promise<void> {
  const segments = headers.filter(({ source }) => source.kind === "segment").map(({ source, header }) => {
    const { fileNumber, bytes: size } = source;
    const path = filePath(files.folder, "segment", fileNumber);
    return new Segment(files.disk, { fileNumber, path, size, sealer: sealerOf(files, header) });
  });
  const file = await files.disk.open(segments.at(-1)!.path, "write");
  await journal.replaceFiles(files, { segments, file });
}

/** The long verbs of AdminStore, between the worker that has the store and a second one that works beside it. */
import { join } from "node:path";
import { syncFolder } from "../../base/files.ts";
import type { OnProgress, Snapshot } from "../admin_store.ts";
import { asStoreError, refuseUnlessEmpty } from "../maintenance.ts";
import type { StoreCounts } from "../store.ts";
import { completeDraft, draftPath, removeDraft } from "../swap.ts";
import { SCHEMA_VERSION } from "./schema.ts";
import { StoreThread } from "./store_thread.ts";
import type { Task } from "./wire.ts";

const DATABASE_NAME = "qpq.db";

/** The open store. */
export interface LongParts {
  readonly thread: StoreThread;
  readonly dataDir: string;
}

/** How a long verb is watched and ended. */
export interface Watch {
  readonly signal: AbortSignal;
  readonly onProgress: OnProgress;
}

/** See AdminStore.snapshotTo. */
export async function snapshotTo({ thread }: LongParts, folder: string, watch: Watch): Promise<Snapshot> {
  await refuseUnlessEmpty(folder);
  const target = join(folder, DATABASE_NAME);
  try {
    const counts = await thread.task({ name: "copyTo", target }, watch) as StoreCounts;
    await syncFolder(folder);
    return { files: [DATABASE_NAME], schemaVersion: SCHEMA_VERSION, counts };
  } catch (error) {
    await Deno.remove(target).catch(() => {}); // the first error is the one to tell
    throw asStoreError(error, `Cannot write a snapshot into ${folder}`);
  }
}

/** See AdminStore.checkIntegrity. */
export async function checkIntegrity({ thread, dataDir }: LongParts, watch: Watch): Promise<string[]> {
  const path = join(dataDir, `${DATABASE_NAME}.checking`);
  try {
    await removeDraft(dataDir, DATABASE_NAME);
    const copied = { ...watch, onProgress: (share: number) => watch.onProgress(share / 2) };
    await thread.task({ name: "copyTo", target: path }, copied);
    const key = await thread.task({ name: "key" }) as string;
    const checked = { ...watch, onProgress: (share: number) => watch.onProgress(0.5 + share / 2) };
    return await inSecondWorker({ name: "check", path, key }, checked) as string[];
  } catch (error) {
    throw asStoreError(error, "Cannot check the store");
  } finally {
    await removeDraft(dataDir, DATABASE_NAME).catch(() => {}); // the next start removes it
  }
}

/** See AdminStore.rekey. */
export async function rekey(
  { thread, dataDir }: LongParts,
  key: string,
  watch: Watch,
): Promise<{ oldPath: string; bytes: number }> {
  await thread.holdWrites();
  try {
    await removeDraft(dataDir, DATABASE_NAME);
    const bytes = await writeDraft({ thread, dataDir }, key, watch);
    const oldPath = await thread.task({ name: "swap", key }) as string;
    return { oldPath, bytes };
  } catch (error) {
    await removeDraft(dataDir, DATABASE_NAME).catch(() => {}); // the next start removes it
    throw asStoreError(error, "Cannot change the store's key");
  } finally {
    thread.releaseWrites();
  }
}

/** Writes the store anew into a draft and completes it; the store itself is read by two meanwhile. */
async function writeDraft({ thread, dataDir }: LongParts, key: string, watch: Watch): Promise<number> {
  const draft = draftPath(dataDir, DATABASE_NAME);
  const sourceKey = await thread.task({ name: "key" }) as string;
  const work = { source: join(dataDir, DATABASE_NAME), sourceKey, draft, draftKey: key };
  await thread.task({ name: "share" });
  try {
    await inSecondWorker({ name: "reencrypt", work }, watch);
    using file = await Deno.open(draft, { read: true, write: true });
    await file.sync();
    const { size } = await file.stat();
    await completeDraft(dataDir, DATABASE_NAME);
    return size;
  } catch (error) {
    await thread.task({ name: "unshare" });
    throw error;
  }
}

async function inSecondWorker(task: Task, watch: Watch): Promise<unknown> {
  const helper = new StoreThread();
  try {
    return await helper.task(task, watch);
  } finally {
    helper.terminate();
  }
}

/**
 * Copies a store into one of another backend, or of the same one: everything that is stored goes over as rows
 * (store_rows.ts), and the new store is opened again and compared with the old one before it gets its place. A crash
 * leaves a folder `.convert-…`, which the next run removes.
 */
import { join } from "node:path";
import { exists, syncFolder } from "../base/files.ts";
import { QpqError } from "../base/errors.ts";
import { randomId } from "../base/ids.ts";
import type { OnProgress } from "./admin_store.ts";
import { DATA_PATHS, openStore, type StoreBackend } from "./open.ts";
import { RowDigest } from "./row_digest.ts";
import { type Store, StoreOpenError } from "./store.ts";
import type { RowKind } from "./store_rows.ts";

/** What to convert, and into what. */
export interface Conversion {
  /** Nothing may write to it meanwhile. */
  readonly from: Store;
  /**
   * The data folder of the new store; it exists and holds no store of this backend. When it is the folder of `from`,
   * the caller closes `from` afterwards and moves its file away (putAside in swap.ts): a folder with two stores is
   * not opened.
   */
  readonly to: { readonly backend: StoreBackend; readonly dataDir: string; readonly key: string };
  readonly onProgress: OnProgress;
}

/** What was converted. */
export interface Converted {
  /** Where the new store is. */
  readonly path: string;
  readonly rows: Readonly<Record<RowKind, number>>;
}

const DRAFT_PREFIX = ".convert-";
/** Shares of the work after copying and comparing. */
const COPIED = 0.5;
const COMPARED = 0.8;

/** Converts a store; on failure nothing of the new one is left. */
export async function convertStore({ from, to, onProgress }: Conversion): Promise<Converted> {
  const path = join(to.dataDir, DATA_PATHS[to.backend]);
  if (await exists(path)) {
    throw new StoreOpenError("failed", path, `Cannot convert into ${path} as it exists: name another folder`);
  }
  await removeDrafts(to.dataDir);
  const draft = join(to.dataDir, DRAFT_PREFIX + randomId());
  await Deno.mkdir(draft, { mode: 0o700 });
  try {
    const digest = await copyRows(from, { ...to, dataDir: draft }, onProgress);
    await compare(digest, { ...to, dataDir: draft }, onProgress);
    await Deno.rename(join(draft, DATA_PATHS[to.backend]), path);
    await syncFolder(to.dataDir);
    onProgress(1);
    return { path, rows: digest.counts };
  } finally {
    await Deno.remove(draft, { recursive: true });
  }
}

async function copyRows(from: Store, to: Conversion["to"], onProgress: OnProgress): Promise<RowDigest> {
  const { accounts, queueEntries, keyPackages } = await from.counts();
  const expected = 1 + accounts + queueEntries + keyPackages;
  const digest = new RowDigest();
  await using store = await openStore({ backend: to.backend, dataDir: to.dataDir, keys: [to.key] });
  let done = 0;
  for await (const rows of from.exportRows()) {
    digest.add(rows);
    await store.importRows(rows);
    done += rows.length;
    onProgress(COPIED * Math.min(1, done / expected));
  }
  return digest;
}

async function compare(expected: RowDigest, to: Conversion["to"], onProgress: OnProgress): Promise<void> {
  const options = { backend: to.backend, dataDir: to.dataDir, keys: [to.key], mustExist: true };
  await using store = await openStore(options);
  const problems = expected.differences(await RowDigest.of(store.exportRows()));
  onProgress(COMPARED);
  problems.push(...await store.checkIntegrity((share) => onProgress(COMPARED + (1 - COMPARED) * share)));
  if (problems.length === 0) return;
  throw new QpqError("storeUnavailable", `The converted store is not the same: ${problems.join("; ")}`);
}

async function removeDrafts(dataDir: string): Promise<void> {
  for await (const { name } of Deno.readDir(dataDir)) {
    if (name.startsWith(DRAFT_PREFIX)) await Deno.remove(join(dataDir, name), { recursive: true });
  }
}

/**
 * Opens the store of a data folder: takes the folder for this process, sees that no other backend's data is in
 * it, and loads the backend. Each backend is a literal import so that a compiled executable embeds it.
 */
import { join } from "node:path";
import { messageOf } from "../base/errors.ts";
import { refuseHalfRestored } from "./restore_mark.ts";
import { logRevocations } from "./revocation_log.ts";
import { type FolderLock, isNoSpace, lockFolder } from "./folder_lock.ts";
import { type OpenOptions, type Store, StoreOpenError } from "./store.ts";

/** Names of the backends. */
export type StoreBackend = "sqlcipher" | "file";

/** Where each backend keeps its data, under the data folder. */
export const DATA_PATHS = { sqlcipher: "qpq.db", file: "journal" } as const satisfies Record<
  StoreBackend,
  string
>;

/** Opens the store; throws StoreOpenError. Closing it releases the folder. */
export async function openStore(options: OpenOptions & { readonly backend: StoreBackend }): Promise<Store> {
  const lock = await lockFolder(options.dataDir);
  try {
    await refuseHalfRestored(options.dataDir);
    await refuseOtherBackend(options.dataDir, options.backend);
    await refuseReadOnlyFolder(options.dataDir, options.backend);
    return logRevocations(releaseAfterClose(await openBackend(options), lock), options.dataDir);
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** An open store and the key that it is under. */
export interface StoreAndKey {
  readonly store: Store;
  /** The text that fitted, of OpenOptions.keys. */
  readonly key: string;
}

/** Like {@link openStore}, and tells under which of the keys the store is; a new one is under the first. */
export async function openStoreTellingKey(
  options: OpenOptions & { readonly backend: StoreBackend },
): Promise<StoreAndKey> {
  for (const key of options.keys.slice(0, -1)) {
    try {
      return { store: await openStore({ ...options, keys: [key] }), key };
    } catch (error) {
      if (!(error instanceof StoreOpenError && error.problem === "wrongKey")) throw error;
    }
  }
  // With all of them: should none fit, the message tells of all.
  return { store: await openStore(options), key: options.keys.at(-1)! };
}

async function openBackend(options: OpenOptions & { readonly backend: StoreBackend }): Promise<Store> {
  if (options.backend === "file") return (await import("./file/mod.ts")).openFileStore(options);
  return (await import("./sqlcipher/mod.ts")).openSqlcipherStore(options);
}

async function refuseOtherBackend(dataDir: string, backend: StoreBackend): Promise<void> {
  const other: StoreBackend = backend === "file" ? "sqlcipher" : "file";
  const path = join(dataDir, DATA_PATHS[other]);
  const found = await Deno.lstat(path).then(() => true, () => false);
  if (!found) return;
  throw new StoreOpenError(
    "failed",
    path,
    `The data folder ${dataDir} holds a store of the ${other} backend (${path}): set store_backend to ${other}, ` +
      `or give the ${backend} backend a folder of its own`,
  );
}

/** A journal's folder that takes no new file would be noticed at its next segment, in the middle of the night. */
async function refuseReadOnlyFolder(dataDir: string, backend: StoreBackend): Promise<void> {
  const journal = join(dataDir, DATA_PATHS.file);
  const folder = backend === "file" && await Deno.lstat(journal).then(() => true, () => false)
    ? journal
    : dataDir;
  const probe = join(folder, `.writable-${crypto.randomUUID()}`);
  try {
    (await Deno.open(probe, { write: true, createNew: true, mode: 0o600 })).close();
    await Deno.remove(probe);
  } catch (cause) {
    if (isNoSpace(cause)) return; // a store on a full disk can still be read, and made smaller
    throw new StoreOpenError(
      "readOnly",
      folder,
      `Cannot write in ${folder}: make it writable for the user that runs the server, and its file system ` +
        `writable (${messageOf(cause)})`,
      { cause },
    );
  }
}

function releaseAfterClose(store: Store, lock: FolderLock): Store {
  const closeBackend = store.close.bind(store);
  store.close = async () => {
    try {
      await closeBackend();
    } finally {
      lock.release();
    }
  };
  store[Symbol.asyncDispose] = () => store.close();
  return store;
}

/**
 * The SQLCipher store: one encrypted file, `qpq.db`, in a worker of its own. Verbs that are called while a batch
 * is being written share the next transaction (group commit); a promise resolves when that is on disk.
 */
import { join } from "node:path";
import { messageOf, QpqError } from "../../base/errors.ts";
import { Maintenance } from "../maintenance.ts";
import { type OpenOptions, type Store, StoreOpenError } from "../store.ts";
import { findOldStores, settleSwap } from "../swap.ts";
import type { ExportPosition } from "./export_rows.ts";
import { checkIntegrity, type LongParts, rekey, snapshotTo } from "./long_verbs.ts";
import { SCHEMA_VERSION } from "./schema.ts";
import { type Opened, StoreThread } from "./store_thread.ts";
import { type InnerStore, READ_VERBS, type VerbName, WRITE_VERBS } from "./verb_names.ts";

const DATABASE_NAME = "qpq.db";

/** Opens the store in `dataDir`, or makes it; throws StoreOpenError. Taking the folder is the caller's. */
export async function openSqlcipherStore(options: OpenOptions): Promise<Store> {
  const { dataDir, keys, mustExist = false } = options;
  await settle(dataDir);
  const thread = new StoreThread(options.onBatch);
  try {
    const opened = await thread.open({ dataDir, keys: [...keys], mustExist });
    return makeStore(thread, { opened, dataDir });
  } catch (error) {
    thread.terminate();
    throw error;
  }
}

async function settle(dataDir: string): Promise<void> {
  try {
    await settleSwap(dataDir, DATABASE_NAME);
  } catch (cause) {
    const path = join(dataDir, DATABASE_NAME);
    const message =
      `Cannot open ${path} as what a change of key has left beside it cannot be put in order: ` +
      `${messageOf(cause)}`;
    throw new StoreOpenError("failed", path, message, { cause });
  }
}

function makeStore(thread: StoreThread, { opened, dataDir }: { opened: Opened; dataDir: string }): Store {
  const verbs = Object.fromEntries(
    [...READ_VERBS, ...WRITE_VERBS].map((verb) => [verb, (...args: unknown[]) => thread.call(verb, args)]),
  ) as unknown as Pick<InnerStore, VerbName>;
  const { exportPage, ...plainVerbs } = verbs;
  const path = join(dataDir, DATABASE_NAME);
  const maintenance = new Maintenance();
  const parts: LongParts = { thread, dataDir };
  let incarnation = opened.incarnation;
  const close = async () => {
    thread.refuseCalls();
    await maintenance.stop();
    await thread.close();
  };
  return {
    ...plainVerbs,
    backend: "sqlcipher",
    schemaVersion: SCHEMA_VERSION,
    get incarnation() {
      return incarnation;
    },
    realmId: opened.realmId,
    onRelaying: (listener) => thread.listenRelaying(listener),
    onEnqueued: (listener) => thread.listen(listener),
    diskBytes: async () => await fileBytes(path) + await fileBytes(`${path}-wal`),
    markRestored: async () => incarnation = await verbs.markRestored(),
    snapshotTo: (folder, onProgress) =>
      maintenance.run(
        { name: "a snapshot", onProgress },
        (signal) => snapshotTo(parts, folder, { signal, onProgress }),
      ),
    rekey: (key, onProgress) =>
      maintenance.run(
        { name: "a change of key", onProgress },
        (signal) => rekey(parts, key, { signal, onProgress }),
      ),
    checkIntegrity: (onProgress) =>
      maintenance.run(
        { name: "an integrity check", onProgress },
        (signal) => checkIntegrity(parts, { signal, onProgress }),
      ),
    oldStores: () => findOldStores(dataDir, DATABASE_NAME),
    exportRows: async function* () {
      let position: ExportPosition | null = null;
      do {
        const page: Awaited<ReturnType<typeof exportPage>> = await exportPage(position);
        if (page.rows.length > 0) yield page.rows;
        position = page.next;
      } while (position);
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function fileBytes(path: string): Promise<number> {
  try {
    return (await Deno.stat(path)).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw new QpqError("storeUnavailable", `Cannot look at ${path}: ${messageOf(error)}`, { cause: error });
  }
}

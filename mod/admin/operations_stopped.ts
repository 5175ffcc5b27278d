/** Operations on the data folder of a stopped server: held, like a server holds it, by those that change it. */
import { systemClock } from "../base/clock.ts";
import { exists } from "../base/files.ts";
import type { Settings } from "../config/options.ts";
import { type FolderLock, lockFolder } from "../store/folder_lock.ts";
import { openStoreTellingKey, type StoreAndKey } from "../store/open.ts";
import { storeKeysOf } from "./rotate_db_key_file.ts";
import {
  type AdminContext,
  AdminError,
  type JsonObject,
  noStep,
  type Operation,
  OperationRunner,
  type Progress,
} from "./operations.ts";

/** What is not administration's own, and what a test may put in. */
export interface StoppedOptions {
  readonly deviceRevokedNotice: AdminContext["deviceRevokedNotice"];
  readonly step?: AdminContext["step"];
}

/** Runs `operation` on the folder that `settings` name. Throws StoreOpenError `inUse` when a server holds it. */
export async function runStopped(
  operation: Operation,
  call: { settings: Settings; input: JsonObject; progress?: Progress } & StoppedOptions,
): Promise<JsonObject> {
  const { settings } = call;
  if (!operation.withoutFolder && !await exists(settings.dataDir)) {
    throw new AdminError(
      `There is no data folder ${settings.dataDir}: start the server or run 'qpq-server init', or set data_dir (QPQ_DATA_DIR)`,
    );
  }
  await using folder = new StoppedFolder(settings, operation.whenStopped === "changes");
  await folder.take();
  const context: AdminContext = {
    via: "stopped",
    clock: systemClock,
    settings,
    store: async () => (await folder.store()).store,
    storeKey: async () => (await folder.store()).key,
    deviceRevokedNotice: call.deviceRevokedNotice,
    server: null,
    step: call.step ?? noStep,
  };
  const progress = call.progress ? { progress: call.progress } : {};
  return await new OperationRunner(context).run(operation, { input: call.input, ...progress });
}

/** The folder's lock, which passes to the store once that is opened. */
class StoppedFolder implements AsyncDisposable {
  readonly #settings: Settings;
  readonly #hold: boolean;
  #lock: FolderLock | null = null;
  #store: Promise<StoreAndKey> | null = null;

  constructor(settings: Settings, hold: boolean) {
    this.#settings = settings;
    this.#hold = hold;
  }

  async take(): Promise<void> {
    if (this.#hold) this.#lock = await lockFolder(this.#settings.dataDir);
  }

  store(): Promise<StoreAndKey> {
    return this.#store ??= this.#openStore();
  }

  async #openStore(): Promise<StoreAndKey> {
    const { dataDir, storeBackend } = this.#settings;
    const keys = storeKeysOf(this.#settings);
    if (!keys) {
      throw new AdminError("There is no database key: set db_key_file (QPQ_DB_KEY_FILE) as for the server");
    }
    this.#lock?.release();
    this.#lock = null;
    return await openStoreTellingKey({ backend: storeBackend, dataDir, keys, mustExist: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await (await this.#store?.catch(() => null))?.store.close();
    this.#lock?.release();
  }
}

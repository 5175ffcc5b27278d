/** What operations on accounts and on the store's key need of the running server. */
import type { LiveAccounts, LiveStoreKey } from "../admin/operations_live.ts";
import type { OpaqueSetups } from "../auth/setups.ts";
import { managedSecretPath } from "../config/load.ts";
import type { Secret } from "../config/options.ts";
import type { ServerContext } from "./context.ts";
import type { LiveSettings } from "./reload_settings.ts";

/** Connections, blobs and setups follow what an operation did in the store. */
export function liveAccounts(context: ServerContext, setups: OpaqueSetups): LiveAccounts {
  const { registry, blobs } = context;
  return {
    sessionsEnded: (ended) => registry.closeEnded(ended),
    removeBlobs: async (hashes) => void await blobs.remove(hashes),
    refreshOpaqueSetups: () => setups.refresh(),
  };
}

/** Remembers the key that the store is under. */
export class RunningStoreKey implements LiveStoreKey {
  readonly #context: ServerContext;
  readonly #settings: LiveSettings;
  #current: string;

  constructor(context: ServerContext, parts: { settings: LiveSettings; storeKey: string }) {
    this.#context = context;
    this.#settings = parts.settings;
    this.#current = parts.storeKey;
  }

  get current(): string {
    return this.#current;
  }

  async changing<T>(work: () => Promise<T>): Promise<T> {
    this.#context.rekeying = true;
    try {
      return await work();
    } finally {
      this.#context.rekeying = false;
    }
  }

  replaced(key: string, lines: readonly string[]): void {
    this.#current = key;
    const settings = this.#settings.current;
    // A store that was not encrypted has a managed key from now on.
    const path = managedSecretPath(settings.dataDir, "db_key");
    const dbKey: Secret = { ...settings.dbKey ?? { from: "managed", path }, lines };
    this.#settings.replace({ ...settings, dbKey });
  }
}

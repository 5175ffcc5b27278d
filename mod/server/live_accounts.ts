/** What operations on accounts and on the store's key need of the running server. */
import type { LiveAccounts, LiveStoreKey } from "../admin/operations_live.ts";
import type { OpaqueSetups } from "../auth/setups.ts";
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
  readonly #settings: LiveSettings;
  #current: string;

  constructor(settings: LiveSettings, current: string) {
    this.#settings = settings;
    this.#current = current;
  }

  get current(): string {
    return this.#current;
  }

  replaced(key: string, lines: readonly string[]): void {
    this.#current = key;
    const { dbKey } = this.#settings.current;
    if (dbKey) this.#settings.replace({ ...this.#settings.current, dbKey: { ...dbKey, lines } });
  }
}

/** What every backend promises operators, verb by verb as admin_store.ts says it. The tests are in admin/. */
import type { StoreBackend } from "../../mod/store/open.ts";
import { openStore } from "../../mod/store/open.ts";
import { accountsAdminContract } from "./admin/accounts.ts";
import type { AdminTest, Backend } from "./admin/backend.ts";
import { KEY } from "./admin/backend.ts";
import { integrityContract } from "./admin/integrity.ts";
import { queuesAdminContract } from "./admin/queues.ts";
import { rekeyContract } from "./admin/rekey.ts";
import { restoredContract } from "./admin/restored.ts";
import { snapshotContract } from "./admin/snapshot.ts";
import { World } from "./store/world.ts";

/** Registers the suite for a backend. */
export function adminStoreContract(name: StoreBackend): void {
  const backend: Backend = {
    name,
    open: (dataDir, ...keys) => openStore({ backend: name, dataDir, keys: keys.length > 0 ? keys : [KEY] }),
  };
  const test: AdminTest = (sentence, run, options = {}) => {
    Deno.test(`${name} store: ${sentence}`, options, async () => {
      await using world = await World.make((dataDir) => backend.open(dataDir));
      await run(world, backend);
    });
  };
  accountsAdminContract(test);
  queuesAdminContract(test);
  restoredContract(test);
  integrityContract(test);
  snapshotContract(test);
  rekeyContract(test);
}

/**
 * What every backend of mod/store promises, verb by verb as store.ts says it. The tests are in store/, by the
 * interfaces of store.ts; they use nothing but those, so that each backend passes the same suite.
 */
import { accountContract } from "./store/accounts.ts";
import { blobContract } from "./store/blobs.ts";
import { countsContract } from "./store/counts.ts";
import { deliveryContract } from "./store/delivery.ts";
import { deviceContract } from "./store/devices.ts";
import { enqueueContract } from "./store/enqueue.ts";
import { guardContract } from "./store/guards.ts";
import { idempotencyContract } from "./store/idempotency.ts";
import { keyPackageContract } from "./store/key_packages.ts";
import { originContract } from "./store/origins.ts";
import { outboxContract } from "./store/outbox.ts";
import { serverContract } from "./store/server.ts";
import { type ContractTest, type OpenStore, World } from "./store/world.ts";

/** Registers the suite for a backend. */
export function storeContract(name: string, open: OpenStore): void {
  const test: ContractTest = (sentence, run) => {
    Deno.test(`${name} store: ${sentence}`, async () => {
      await using world = await World.make(open);
      await run(world);
    });
  };
  accountContract(test);
  deviceContract(test);
  keyPackageContract(test);
  enqueueContract(test);
  idempotencyContract(test);
  guardContract(test);
  deliveryContract(test);
  outboxContract(test);
  originContract(test);
  blobContract(test);
  serverContract(test);
  countsContract(test);
}

/** `login`: a connection, Hello, and a login with the password (OPAQUE), one after another by each worker. */
import type { ServerLink } from "../identity.ts";
import type { Prepare } from "./load.ts";
import { paceOf } from "./pace.ts";
import { runWorkers } from "./workers.ts";

/** Prepares `login`: each connection is a worker with an account of its own. */
export const prepareLogin: Prepare = async ({ accounts }, options) => {
  const devices = await accounts.make(options.connections);
  const closing = new Set<Promise<void>>();
  const close = ({ connection }: ServerLink) => {
    const closed = connection.close().finally(() => closing.delete(closed));
    closing.add(closed);
  };
  return {
    run: (meter) =>
      runWorkers(devices.length, {
        meter,
        pace: paceOf(options.perSecond),
        work: async (worker) => close(await accounts.login(devices[worker]!)),
      }),
    [Symbol.asyncDispose]: async () => void await Promise.all(closing),
  };
};

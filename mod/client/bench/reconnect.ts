/**
 * `reconnect`: all devices come back in the same moment, as after a restart of the server or of a router: connect,
 * Hello, Resume. A latency is the time from that moment until a device is back; the longest is when all are.
 */
import type { ServerLink } from "../identity.ts";
import { closeAll } from "./lanes.ts";
import type { Prepare } from "./load.ts";
import { operate } from "./workers.ts";

/** Prepares `reconnect`: ends by itself when every device is back or was refused. */
export const prepareReconnect: Prepare = async ({ accounts }, options) => {
  const devices = await accounts.make(options.connections);
  await closeAll(await accounts.connect(devices));
  const back: ServerLink[] = [];
  return {
    async run(meter) {
      const beganAt = performance.now();
      await Promise.all(
        devices.map((device) =>
          operate(meter, beganAt, async () => void back.push(await accounts.resume(device)))
        ),
      );
      meter.stop();
    },
    [Symbol.asyncDispose]: () => closeAll(back),
  };
};

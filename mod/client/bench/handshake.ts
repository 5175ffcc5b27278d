/** `handshake`: new QUIC connections (TLS 1.3, no resumption), closed as soon as they are there; no Hello. */
import type { Connection } from "../../transport/transport.ts";
import type { Prepare } from "./load.ts";
import { paceOf } from "./pace.ts";
import { runWorkers } from "./workers.ts";

/** Prepares `handshake`: each connection is a worker. */
export const prepareHandshake: Prepare = async ({ server }, options) => {
  const link = await server.connect(); // what later ones are verified by
  await link.connection.close();
  const closing = new Set<Promise<void>>();
  return {
    run: (meter) =>
      runWorkers(options.connections, {
        meter,
        pace: paceOf(options.perSecond),
        work: async () => {
          const connection = await server.handshake();
          const closed = close(connection).finally(() => closing.delete(closed));
          closing.add(closed);
        },
      }),
    [Symbol.asyncDispose]: async () => void await Promise.all(closing),
  };
};

async function close(connection: Connection): Promise<void> {
  await connection[Symbol.asyncDispose]();
}

/**
 * `idle`: connections that are held, each with a parked FetchWait and a Subscribe, as a messenger in a pocket is. What
 * is measured is a Ping on one after another: is the server still quick, with so many?
 */
import type { ClientConnection } from "../connection.ts";
import type { Prepare } from "./load.ts";
import { closeAll } from "./lanes.ts";
import { paceOf } from "./pace.ts";
import { Receiver } from "./receiver.ts";
import { runWorkers } from "./workers.ts";

const PINGS_PER_SECOND = 100;
const PINGERS = 16;

/** Prepares `idle`. */
export const prepareIdle: Prepare = async ({ accounts }, options) => {
  const devices = await accounts.make(options.connections);
  const beganAt = performance.now();
  const links = await accounts.connect(devices);
  const connectSeconds = (performance.now() - beganAt) / 1000;
  let lost = 0;
  const receivers = links.map(({ connection }) => new Receiver(connection, { onMessage() {}, onTurn() {} }));
  for (const receiver of receivers) await receiver.start("subscribe", () => lost++);
  const stopping = new AbortController();
  for (const { connection, hello } of links) {
    park(connection, { waitMs: hello.limits!.waitMsMax, signal: stopping.signal }).catch(() => {}); // counted above
  }
  let turn = 0;
  return {
    run: (meter) =>
      runWorkers(PINGERS, {
        meter,
        pace: paceOf(options.perSecond ?? PINGS_PER_SECOND),
        work: async () => void await links[turn++ % links.length]!.connection.call("ping", {}),
      }),
    figures: () => ({ held: links.length - lost, lost, connectedPerSecond: links.length / connectSeconds }),
    async [Symbol.asyncDispose]() {
      stopping.abort();
      await Promise.all(receivers.map((receiver) => receiver.stop()));
      await closeAll(links);
    },
  };
};

/** Waits for messages again and again, until told or the connection ends. */
async function park(
  connection: ClientConnection,
  { waitMs, signal }: { waitMs: number; signal: AbortSignal },
): Promise<void> {
  while (!signal.aborted) {
    await connection.call("fetchWait", { timeoutMs: waitMs }, { timeoutMs: 2 * waitMs });
  }
}

/**
 * `drain`: devices that were away fetch and acknowledge what waits for them. The backlog is made first and is not
 * measured; the next page is fetched while the last one is acknowledged. Latency is that of a page, from its fetch to
 * the end of its acknowledgement.
 */
import type { ClientConnection } from "../connection.ts";
import { recipientOf } from "./bench_accounts.ts";
import { EnqueueTemplate } from "./enqueue_template.ts";
import { EnqueueRequests } from "./enqueue_requests.ts";
import { closeAll, makeLanes, runAll } from "./lanes.ts";
import type { Prepare } from "./load.ts";
import { Meter } from "./meter.ts";

const FILLERS = 4;
const FILLERS_IN_FLIGHT = 256;

/** Prepares `drain`: ends by itself when everything is fetched. */
export const prepareDrain: Prepare = async (context, options) => {
  const { accounts } = context;
  const devices = await accounts.make(options.connections);
  const senders = await accounts.connect(await accounts.make(FILLERS));
  await using _closing = { [Symbol.asyncDispose]: () => closeAll(senders) };
  const turns = devices.map(recipientOf);
  const { run, payloadBytes } = { ...context, ...options };
  const template = new EnqueueTemplate({ run, payloadBytes, recipients: turns.slice(0, 1) });
  const filling = new Meter({ operationsMax: options.backlog });
  const filler = { ...options, inFlight: FILLERS_IN_FLIGHT, perSecond: null };
  await runAll(
    await makeLanes(senders, {
      meter: filling,
      options: filler,
      requests: (lane, first) =>
        new EnqueueRequests(lane, { context, template, meter: filling, turns, first, options: filler }),
    }),
  );
  const links = await accounts.connect(devices);
  return {
    async run(meter) {
      await Promise.all(links.map(({ connection }) => drain(connection, meter)));
      meter.stop();
    },
    [Symbol.asyncDispose]: () => closeAll(links),
  };
};

/** Fetches and acknowledges until the queue is empty. */
async function drain(connection: ClientConnection, meter: Meter): Promise<void> {
  let acknowledging: Promise<void> = Promise.resolve();
  for (let [after, empty] = [0n, false]; !empty && meter.open;) {
    const beganAt = performance.now();
    meter.begin();
    const [page] = await Promise.all([connection.call("fetch", { after }), acknowledging]);
    empty = page.empty;
    after = page.entries.at(-1)?.seq ?? after;
    if (page.entries.length === 0) break;
    acknowledging = connection.call("ack", { through: after }).then(() =>
      meter.end(performance.now() - beganAt, page.entries.length)
    );
  }
  await acknowledging;
}

/** `enqueue`: durable messages for one recipient each, in turn, over pipelined connections. */
import { recipientOf } from "./bench_accounts.ts";
import { EnqueueRequests } from "./enqueue_requests.ts";
import { EnqueueTemplate } from "./enqueue_template.ts";
import type { Lane } from "./lane.ts";
import { closeAll, makeLanes, runAll } from "./lanes.ts";
import type { BenchContext, Load, LoadOptions, Prepare } from "./load.ts";

/** Prepares `enqueue`. */
export const prepareEnqueue: Prepare = (context, options) =>
  prepareSending(context, options, { each: "one" });

/** Prepares connections that send: each message to the next recipient, or to all of them. */
export async function prepareSending(
  context: BenchContext,
  options: LoadOptions,
  to: { each: "one" | "all" },
): Promise<Load> {
  const { accounts, ackedLog } = context;
  const recipients = await accounts.make(options.recipients);
  ackedLog?.begin(context.server, recipients);
  const links = await accounts.connect(await accounts.make(options.connections));
  const addresses = recipients.map(recipientOf);
  const template = new EnqueueTemplate({
    run: context.run,
    payloadBytes: options.payloadBytes,
    recipients: to.each === "all" ? addresses : addresses.slice(0, 1),
  });
  const turns = to.each === "all" ? null : addresses;
  return {
    async run(meter) {
      const requests = (lane: Lane, first: number) =>
        new EnqueueRequests(lane, { context, template, meter, turns, first, options });
      await runAll(await makeLanes(links, { meter, options, requests }));
    },
    [Symbol.asyncDispose]: () => closeAll(links),
  };
}

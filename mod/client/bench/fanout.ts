/** `fanout`: each message goes to all recipients. */
import { prepareSending } from "./enqueue.ts";
import type { Prepare } from "./load.ts";

/** Prepares `fanout`; counts messages, and queue entries beside. */
export const prepareFanout: Prepare = async (context, options) => {
  const load = await prepareSending(context, options, { each: "all" });
  return {
    ...load,
    figures: (meter) => ({ entriesPerSecond: meter.operations * options.recipients / meter.seconds }),
  };
};

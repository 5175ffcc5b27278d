/** `queue …`: how full the delivery queues are, and emptying one. */
import { type JsonObject, type Operation } from "./operations.ts";
import { InputReader } from "./operations_input.ts";
import { findDevice } from "./users_find.ts";

/** Queues in a list when nobody says, and the most. */
const TOP_DEFAULT = 10;
const TOP_MAX = 10_000;

/** All queues together, and the fullest, or one. */
export const queueStats: Operation = {
  name: "queue stats",
  whenStopped: "reads",
  audited: false,
  async run(context, input) {
    const read = new InputReader(input);
    const device = read.text("device");
    const count = read.number("count", { min: 1, max: TOP_MAX, otherwise: TOP_DEFAULT });
    read.end();
    const store = await context.store();
    if (device !== null) {
      const { deviceId, userName, name, entries, bytes, lastSeenAt } = await findDevice(store, device);
      const cursor = await store.cursor(deviceId);
      return { deviceId, userName, name, lastSeenAt, entries, bytes, ...cursor };
    }
    const { queueEntries, queueBytes, devices } = await store.counts();
    const queues: JsonObject[] = (await store.topQueues(count)).map((queue) => ({ ...queue }));
    return { devices, entries: queueEntries, bytes: queueBytes, queues };
  },
};

/** Deletes what waits for a device; its owner sees that something was lost. */
export const queuePurge: Operation = {
  name: "queue purge",
  whenStopped: "changes",
  audited: true,
  async run(context, input) {
    const read = new InputReader(input);
    const typed = read.requiredText("device");
    const dryRun = read.flag("dryRun");
    read.end();
    const store = await context.store();
    const { deviceId, userName, name, entries } = await findDevice(store, typed);
    const purged = dryRun ? entries : await store.purgeQueue(deviceId) ?? 0;
    return { deviceId, userName, name, entries: purged, purged: !dryRun, dryRun };
  },
};

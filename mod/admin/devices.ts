/** `device …`: a user's devices, and their revocation by the operator. */
import { type JsonObject, type Operation } from "./operations.ts";
import { InputReader } from "./operations_input.ts";
import { deviceRow } from "./users.ts";
import { findDevice, findUser } from "./users_find.ts";

/** The devices of an account, oldest first. */
export const deviceList: Operation = {
  name: "device list",
  whenStopped: "reads",
  audited: false,
  async run(context, input) {
    const read = new InputReader(input);
    const name = read.requiredText("user");
    read.end();
    const store = await context.store();
    const { accountId, userName } = await findUser(store, name);
    const devices = await store.listDevices(accountId);
    const rows: JsonObject[] = await Promise.all(devices.map((device) => deviceRow(context, device)));
    return { userName, accountId, devices: rows };
  },
};

/**
 * Revokes a device: its queue, KeyPackages and sessions go at once, and the account's others are told. It stays in the
 * groups' keys until a member removes it.
 */
export const deviceRevoke: Operation = {
  name: "device revoke",
  whenStopped: "changes",
  audited: true,
  async run(context, input) {
    const read = new InputReader(input);
    const typed = read.requiredText("device");
    const dryRun = read.flag("dryRun");
    read.end();
    const store = await context.store();
    const { deviceId, accountId, userName, name, entries, lastSeenAt } = await findDevice(store, typed);
    if (!dryRun) {
      const now = context.clock.now();
      await store.revokeDevice(accountId, deviceId, context.deviceRevokedNotice(deviceId), now);
      context.server?.accounts.sessionsEnded({ accountId, deviceId });
    }
    return { deviceId, userName, name, lastSeenAt, entries, revoked: !dryRun, dryRun };
  },
};

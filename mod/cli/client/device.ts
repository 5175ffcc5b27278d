/** `devices list` and `devices revoke`. */
import type { Command } from "commander";
import type { DeviceInfo } from "../../client/mod.ts";
import type { Terminal } from "../terminal.ts";
import { ownPassword } from "./account.ts";
import { type Context, example, runCommand } from "./context.ts";
import { withClient } from "./open.ts";
import { oneLine, table, timeText } from "./output.ts";

/** Adds the commands. */
export function addDevices(client: Command, terminal: Terminal): void {
  const devices = client.command("devices").description("devices list|revoke: the devices of the account");
  devices.command("list").description("list them").addHelpText("after", example(terminal, "devices list"))
    .action((_options, command: Command) => runCommand(terminal, command, list));
  devices.command("revoke").argument("<id>", "from devices list; its first digits are enough")
    .description("take a device out of the account: it gets nothing more. Asks for the password")
    .addHelpText("after", example(terminal, "devices revoke 3f2a"))
    .action((id: string, _options, command: Command) =>
      runCommand(terminal, command, (context) => revoke(context, id))
    );
}

async function list(context: Context): Promise<void> {
  await withClient(context, async (client) => {
    const own = client.whoami()?.deviceId;
    const devices = await client.devices();
    const rows = devices.map((device) => [
      device.deviceId,
      oneLine(device.name),
      timeText(device.lastSeenAt),
      timeText(device.createdAt),
      [...(device.deviceId === own ? ["this device"] : []), ...(device.signed ? [] : ["not signed yet"])]
        .join(", "),
    ]);
    const objects = devices.map((device) => ({
      ...device,
      createdAt: new Date(device.createdAt).toISOString(),
      lastSeenAt: new Date(device.lastSeenAt).toISOString(),
      thisDevice: device.deviceId === own,
    }));
    context.output.data({ devices: objects }, table(["id", "name", "last seen", "since", ""], rows));
  });
}

async function revoke(context: Context, id: string): Promise<void> {
  await withClient(context, async (client) => {
    const { deviceId, name } = deviceOf(await client.devices(), id);
    if (deviceId === client.whoami()?.deviceId) {
      throw new Error("This is the device you are using: revoke it from another one, or log out");
    }
    await client.revokeDevice(deviceId, { password: await ownPassword(context, client) });
    context.output.done(
      { deviceId, revoked: true },
      `Revoked ${oneLine(name)} (${deviceId}) and removed it from the groups of this device. ` +
        "What it has received before it can still read; in groups that only it knew, others have to remove it.",
    );
  });
}

function deviceOf(devices: readonly DeviceInfo[], id: string): DeviceInfo {
  const found = devices.filter((device) => device.deviceId.startsWith(id.toLowerCase()));
  if (found.length === 1 && id !== "") return found[0]!;
  if (found.length === 0) throw new Error(`The account has no device ${id}; devices list shows them`);
  throw new Error(`Several devices begin with ${id}; give more of its id`);
}

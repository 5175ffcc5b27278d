/** `qpq-server device …`: a user's devices. */
import type { Command } from "commander";
import type { JsonObject } from "../admin/control.ts";
import { deviceList, deviceRevoke } from "../admin/devices.ts";
import { adminCommand } from "./admin_command.ts";
import { countOf, showSize, showTable, showTime } from "./admin_output.ts";
import { confirmed, destructive } from "./confirm.ts";
import type { Terminal } from "./terminal.ts";

/** Adds the commands to `program`. */
export function addDevice(program: Command, terminal: Terminal): void {
  const device = program.command("device").description("devices of users");
  adminCommand(device, {
    words: "list <user>",
    description: "show a user's devices, oldest first",
    operation: deviceList,
    input: (_, [user]) => ({ user: user! }),
    show: ({ devices }) => showDevices(devices as JsonObject[]),
  }, terminal);
  adminCommand(device, {
    words: "revoke <device>",
    description: "revoke a device (its id, or the beginning of it): sessions, queue and KeyPackages go",
    operation: deviceRevoke,
    declare: destructive,
    input: (flags, [id]) => ({ device: id!, dryRun: flags["dryRun"] === true }),
    reach: confirmed(
      deviceRevoke,
      ({ deviceId, userName, name, entries }) =>
        `Device ${deviceId} (${name}) of ${userName} will be revoked, and ${
          countOf(entries, "waiting message")
        } deleted.`,
    ),
    show: ({ deviceId, userName, name, dryRun }) =>
      dryRun
        ? `${deviceId} (${name}) of ${userName} would be revoked.\n`
        : `${deviceId} (${name}) of ${userName} was revoked. It can still read its groups until a member removes it: ` +
          `${userName}'s other devices and contacts do that by themselves when they are next online.\n`,
    help: "Example: qpq-server device revoke 3f2a91c0 --dry-run",
  }, terminal);
}

/** Devices as a table. */
export function showDevices(devices: readonly JsonObject[]): string {
  if (devices.length === 0) return "No devices.\n";
  const rows = devices.map(({ deviceId, name, signed, entries, bytes, lastSeenAt }) => [
    String(deviceId),
    String(name),
    signed ? "" : "unsigned",
    String(entries),
    showSize(Number(bytes)),
    showTime(lastSeenAt),
  ]);
  return showTable([["device", "name", "", "waiting", "size", "last seen"], ...rows]);
}

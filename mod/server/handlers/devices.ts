/** ListDevices, RevokeDevice, SignDevice. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { strangersDevice } from "../../federation/messages.ts";
import type { DeviceSchema } from "../../protocol/qpq_pb.ts";
import type { Device } from "../../store/store.ts";
import { idField } from "../../protocol/fields.ts";
import type { Handlers } from "./types.ts";

/** Methods of devices. */
export const deviceHandlers: Pick<Handlers, "listDevices" | "revokeDevice" | "signDevice"> = {
  async listDevices({ server, connection }) {
    const devices = await server.authenticator.listDevices(connection.auth);
    return { devices: devices.map((device) => deviceMessage(device, { own: true })) };
  },

  async revokeDevice({ server, connection }, request) {
    await server.authenticator.revokeDevice(connection.auth, idField(request.deviceId, "device_id"));
    return {};
  },

  async signDevice({ server, connection }, request) {
    await server.authenticator.signDevice(connection.auth, request.accountSignature);
    return {};
  },
};

/** A device on the wire; names and times are its owner's alone. */
export function deviceMessage(
  device: Device,
  options: { own: boolean },
): MessageInitShape<typeof DeviceSchema> {
  const known = strangersDevice(device);
  if (!options.own) return known;
  return {
    ...known,
    name: device.name,
    createdMs: BigInt(device.createdAt),
    lastSeenMs: BigInt(device.lastSeenAt),
  };
}

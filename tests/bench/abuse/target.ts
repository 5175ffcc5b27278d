/** What the processes of an abuse run tell each other: where the server is and whose devices may be used, as JSON. */
import { fromHex } from "../../../mod/base/bytes.ts";
import type { AccountId, DeviceId, SessionId } from "../../../mod/base/ids.ts";
import type { KeyPair } from "../../../mod/client/account_keys.ts";
import { connectServer, type ServerLink } from "../../../mod/client/identity.ts";
import { resume } from "../../../mod/client/session.ts";
import type { MeasuredServer, SeededDevice } from "../../../ops/scaling/measured_server.ts";
import { connect } from "../../../mod/transport/deno_quic.ts";
import type { Connection } from "../../../mod/transport/transport.ts";

/** A server, and devices that can resume their sessions. */
export interface Target {
  readonly hostname: string;
  readonly port: number;
  /** Hexadecimal. */
  readonly fingerprint: string;
  readonly accessToken: string;
  readonly devices: readonly TargetDevice[];
}

/** {@link SeededDevice} in text. */
interface TargetDevice {
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
  readonly sessionId: SessionId;
  readonly deviceKey: TextKeys;
  readonly accountKey: TextKeys;
}

/** Hexadecimal. */
type TextKeys = Record<keyof KeyPair, string>;

/** For the first line of a process' input. */
export function targetOf(server: MeasuredServer, devices: readonly SeededDevice[]): Target {
  return {
    hostname: "127.0.0.1",
    port: server.port,
    fingerprint: server.fingerprint.toHex(),
    accessToken: server.token,
    devices: devices.map(({ accountId, sessionId, accountKey, device: { deviceId, key } }) => ({
      accountId,
      deviceId,
      sessionId,
      deviceKey: textOf(key),
      accountKey: textOf(accountKey),
    })),
  };
}

/** A connection of a device whose session was resumed. */
export interface ResumedDevice {
  readonly link: ServerLink;
  readonly transport: Connection;
  readonly accountId: AccountId;
  readonly deviceId: Uint8Array;
  readonly own: SeededDevice;
}

/** Connects `target.devices[index]`. */
export async function resumeDevice(target: Target, index: number): Promise<ResumedDevice> {
  const { accountId, sessionId, deviceId, deviceKey, accountKey } = target.devices[index]!;
  const device = { deviceId, key: keysOf(deviceKey), name: "load" };
  const own: SeededDevice = { accountId, sessionId, device, accountKey: keysOf(accountKey) };
  let transport: Connection;
  const link = await connectServer({
    server: { hostname: target.hostname, port: target.port },
    choice: { fingerprint: fromHex(target.fingerprint) },
    accessToken: "",
    connect: async (to) => transport = await connect(to),
  });
  try {
    await resume(link, own);
  } catch (error) {
    transport!.close(0, "");
    throw error;
  }
  return { link, transport: transport!, accountId, deviceId: fromHex(deviceId), own };
}

function textOf({ publicKey, privateKey }: KeyPair): TextKeys {
  return { publicKey: publicKey.toHex(), privateKey: privateKey.toHex() };
}

function keysOf({ publicKey, privateKey }: TextKeys): KeyPair {
  return { publicKey: fromHex(publicKey), privateKey: fromHex(privateKey) };
}

/** Joining a group with one of this device's KeyPackages. */
import { hex } from "../base/bytes.ts";
import { readDomain } from "../base/user_address.ts";
import {
  clientConfig,
  HUB_EXTENSION,
  type MlsContext,
  suiteImplementation,
  suiteOf,
} from "./mls_credentials.ts";
import { MlsError, wrapErrors } from "./mls_error.ts";
import { groupInfo, memberAt, members, type MlsGroup, type MlsMember, privateKeysOf } from "./mls_group.ts";
import { joinByWelcome } from "./mls_join.ts";
import { type OwnKeyPackage, parseKeyPackage } from "./mls_key_packages.ts";
import { parseMessage } from "./mls_messages.ts";
import { pruneSecretTree } from "./mls_state.ts";

/** A group joined by a Welcome. */
export interface JoinedGroup {
  readonly group: MlsGroup;
  /** The KeyPackage that was used: delete its private keys with the transaction that saves the group, unless it is a last resort. */
  readonly used: OwnKeyPackage;
  /** Who committed this device's addition. */
  readonly inviter: MlsMember;
  /** Domain of the server that owns the group's commit guard, by the group or by the inviter; empty: not named. */
  readonly hub: string;
}

/**
 * Joins by a Welcome with whichever of `keyPackages` it names. The caller refuses groups whose id it has already.
 * Throws MlsError `noKeyPackage`, `untrusted` (a member's device is not signed), `invalid` or `malformed`.
 */
export async function joinGroup(
  context: MlsContext,
  bytes: Uint8Array,
  findKeyPackage: (ref: string) => OwnKeyPackage | undefined,
): Promise<JoinedGroup> {
  const message = parseMessage(bytes);
  if (message.wireformat !== "mls_welcome") {
    throw new MlsError("malformed", `Cannot join by an MLS message of this kind: ${message.wireformat}`);
  }
  const { welcome } = message;
  const used = welcome.secrets.map((one) => findKeyPackage(hex(one.newMember))).find((one) =>
    one !== undefined
  );
  if (!used) {
    throw new MlsError("noKeyPackage", "Cannot join as the Welcome names no KeyPackage of this device");
  }
  const implementation = await suiteImplementation(suiteOf(welcome.cipherSuite));
  const { state, extensions, signerLeafIndex } = await wrapErrors(
    "Cannot join a group",
    () =>
      joinByWelcome(welcome, {
        keyPackage: parseKeyPackage(used.publicBytes),
        privateKeys: privateKeysOf(context, used),
        implementation,
        clientConfig: clientConfig(context),
      }),
  );
  const group = { state: pruneSecretTree(state) };
  const { creator } = groupInfo(group); // refuses a group without our extension
  const devices = new Set(members(group).map((member) => member.deviceId));
  if (devices.size !== members(group).length) {
    throw new MlsError("invalid", "Cannot join a group with a device twice");
  }
  const inviter = memberAt(state, signerLeafIndex);
  if (!inviter) throw new MlsError("invalid", "Cannot join a group by nobody's Welcome");
  const named = extensions.find((one) => one.extensionType === HUB_EXTENSION)?.extensionData;
  const hub = creator.domain || (named && readDomain(named)) || "";
  return { group, used, inviter, hub };
}

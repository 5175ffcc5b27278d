/**
 * MLS groups (RFC 9420) on ts-mls. A group is an immutable value: every operation, here and in mls_commits.ts,
 * mls_messages.ts and mls_welcome.ts, returns the new one beside the bytes to send, and the caller saves it before
 * anything leaves the device. Nothing here touches network or disk.
 */
import { type ClientState as GroupState, createGroup as createMlsGroup } from "ts-mls";
import { type Bytes, concat, copy, fromHex, utf8, utf8Text } from "../base/bytes.ts";
import { type GroupId, ID_BYTES, idOf } from "../base/ids.ts";
import type { MlsSuite } from "../base/mls_suites.ts";
import { readDomain } from "../base/user_address.ts";
import {
  clientConfig,
  decodeIdentity,
  type DeviceIdentity,
  encodeIdentity,
  GROUP_NAME_EXTENSION,
  type MlsContext,
  suiteImplementation,
  suiteOf,
} from "./mls_credentials.ts";
import { MlsError } from "./mls_error.ts";
import { createKeyPackages, type OwnKeyPackage, parseKeyPackage } from "./mls_key_packages.ts";
import { decodeGroupParts, encodeGroupParts, pruneSecretTree, type StoredGroup } from "./mls_state.ts";
import { nodeOfLeaf } from "./mls_tree.ts";

/** A group at one moment. Opaque: see {@link groupInfo} and {@link members}. */
export interface MlsGroup {
  readonly state: GroupState;
}

/** A member device. */
export interface MlsMember extends DeviceIdentity {
  readonly leafIndex: number;
}

/** What there is to know about a group beside its members. */
export interface MlsGroupInfo {
  readonly id: GroupId;
  readonly name: string;
  /** With the domain of the server that owns the commit guard (the hub); empty: older than that server's domain. */
  readonly creator: DeviceIdentity;
  readonly epoch: bigint;
  readonly suite: MlsSuite;
  readonly ownLeafIndex: number;
  /** `removed`: nothing can be sent any more, and only what was sent before can be read. */
  readonly status: "active" | "removed";
  /** Members who asked to leave and wait for anybody's commit. */
  readonly leaving: readonly MlsMember[];
}

const NAME_BYTES_MAX = 256;
const GROUP_ID_BYTES_MAX = 255;

/** A new group with this device as its only member. */
export async function createGroup(
  context: MlsContext,
  options: { groupId: GroupId; name: string; suite: MlsSuite },
): Promise<MlsGroup> {
  const name = utf8(options.name);
  if (name.length > NAME_BYTES_MAX) {
    throw new RangeError(`Cannot name a group with more than ${NAME_BYTES_MAX} bytes: ${name.length}`);
  }
  const groupId = fromHex(options.groupId);
  if (groupId.length < 1 || groupId.length > GROUP_ID_BYTES_MAX) {
    throw new RangeError(
      `Cannot use a group id that is not 1..${GROUP_ID_BYTES_MAX} bytes: ${groupId.length}`,
    );
  }
  const [own] = await createKeyPackages(context, { count: 1, suite: options.suite });
  const extensions = [{
    extensionType: GROUP_NAME_EXTENSION,
    extensionData: encodeOrigin(context.identity, name),
  }];
  const state = await createMlsGroup(
    groupId,
    parseKeyPackage(own!.publicBytes),
    privateKeysOf(context, own!),
    extensions,
    await suiteImplementation(options.suite),
    clientConfig(context),
  );
  return { state: pruneSecretTree(state) };
}

/** Id, name, epoch and the like. */
export function groupInfo(group: MlsGroup): MlsGroupInfo {
  const { groupContext, privatePath, groupActiveState, unappliedProposals } = group.state;
  const extension = groupContext.extensions.find((one) => one.extensionType === GROUP_NAME_EXTENSION);
  const { creator, name } = decodeOrigin(extension?.extensionData ?? new Uint8Array(0));
  const leaving: MlsMember[] = [];
  for (const { proposal } of Object.values(unappliedProposals)) {
    if (proposal.proposalType !== "remove") continue;
    const member = memberAt(group.state, proposal.remove.removed);
    if (member) leaving.push(member);
  }
  return {
    id: idOf<GroupId>(groupContext.groupId),
    name,
    creator,
    epoch: groupContext.epoch,
    suite: suiteOf(groupContext.cipherSuite),
    ownLeafIndex: privatePath.leafIndex,
    status: groupActiveState.kind === "active" ? "active" : "removed",
    leaving,
  };
}

/** Between the creator and a domain; no UTF-8 text begins with it, so that a group without a domain has none. */
const DOMAIN_MARK = 0xff;

/** Creator (32) ‖ name; with a domain, creator (32) ‖ 0xff ‖ its length (1) ‖ domain ‖ name. */
function encodeOrigin(creator: DeviceIdentity, name: Uint8Array): Bytes {
  const { domain } = creator;
  const ids = encodeIdentity({ ...creator, domain: "" });
  if (domain === "") return concat(ids, name);
  return concat(ids, Uint8Array.of(DOMAIN_MARK, domain.length), utf8(domain), name);
}

function decodeOrigin(data: Uint8Array): { creator: DeviceIdentity; name: string } {
  const ids = decodeIdentity({ credentialType: "basic", identity: data.subarray(0, 2 * ID_BYTES) });
  let rest = data.subarray(2 * ID_BYTES);
  let domain: string | undefined = "";
  if (rest[0] === DOMAIN_MARK) {
    const end = 2 + (rest[1] ?? 0);
    domain = end > 2 && end <= rest.length ? readDomain(rest.subarray(2, end)) : undefined;
    rest = rest.subarray(end);
  }
  if (!ids || domain === undefined) {
    throw new MlsError("invalid", "Cannot use a group without a name and a creator");
  }
  return { creator: { ...ids, domain }, name: groupName(rest) };
}

function groupName(bytes: Uint8Array): string {
  try {
    return utf8Text(bytes);
  } catch (cause) {
    throw new MlsError("invalid", "Cannot use a group whose name is no text", { cause });
  }
}

/** The member devices in leaf order, this one included. */
export function members(group: MlsGroup): MlsMember[] {
  return membersOf(group.state);
}

/** Alike for two members exactly when they agree on everything that happened in the group (RFC 9420 §8.7). */
export function epochAuthenticator(group: MlsGroup): Bytes {
  return copy(group.state.keySchedule.epochAuthenticator);
}

/** The member at a leaf, if there is one. */
export function memberAt(state: Pick<GroupState, "ratchetTree">, leafIndex: number): MlsMember | undefined {
  const node = state.ratchetTree[nodeOfLeaf(leafIndex)];
  const identity = node?.nodeType === "leaf" ? decodeIdentity(node.leaf.credential) : undefined;
  return identity && { leafIndex, ...identity };
}

/** The members in a state of ts-mls. */
export function membersOf(state: Pick<GroupState, "ratchetTree">): MlsMember[] {
  const found: MlsMember[] = [];
  for (let leafIndex = 0; 2 * leafIndex < state.ratchetTree.length; leafIndex++) {
    const member = memberAt(state, leafIndex);
    if (member) found.push(member);
  }
  return found;
}

/** The state of a group with the callbacks of `context`, whichever it was made or read with. */
export function stateIn(context: MlsContext, group: MlsGroup): GroupState {
  return { ...group.state, clientConfig: clientConfig(context) };
}

/** The cryptography of a group's suite. */
export function implementationOf(group: MlsGroup) {
  return suiteImplementation(suiteOf(group.state.groupContext.cipherSuite));
}

/** Private keys of an own KeyPackage in the form of ts-mls. */
export function privateKeysOf(context: MlsContext, own: OwnKeyPackage) {
  return {
    initPrivateKey: own.initPrivateKey,
    hpkePrivateKey: own.leafPrivateKey,
    signaturePrivateKey: context.identity.key.privateKey,
  };
}

/** Throws MlsError `leaving` when this device has asked to leave in this epoch. */
export function checkStaying(group: MlsGroup): void {
  const { leaving, ownLeafIndex } = groupInfo(group);
  if (leaving.every((member) => member.leafIndex !== ownLeafIndex)) return;
  throw new MlsError(
    "leaving",
    "Cannot change or write to a group after asking to leave it: others commit that",
  );
}

/** Throws MlsError `removed` unless this device is a member. */
export function checkActive(group: MlsGroup): void {
  if (group.state.groupActiveState.kind === "active") return;
  throw new MlsError("removed", "Cannot send to a group that this device was removed from");
}

/** What to save of a group; hand in what was saved last, so that only what changed is written. */
export function encodeGroup(group: MlsGroup, previous?: StoredGroup): StoredGroup {
  return encodeGroupParts(group.state, previous);
}

/** A group as {@link encodeGroup} saved it. Throws MlsError `malformed`. */
export function decodeGroup(context: MlsContext, stored: StoredGroup): MlsGroup {
  return { state: decodeGroupParts(stored, clientConfig(context)) };
}

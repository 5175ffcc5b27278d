/**
 * Commits: adding and removing members, renewing keys, asking to leave. A commit is made ahead of its acceptance:
 * send it with its guard, go on processing with the old group, and {@link adoptCommit} when the server has taken
 * it, or drop it when another commit of the epoch came first.
 */
import {
  type ClientState as GroupState,
  createCommit,
  createProposal,
  encodeMlsMessage,
  mlsExporter,
  type MLSMessage,
  type Proposal,
} from "ts-mls";
import { type Bytes, copy, equal, sha256, utf8 } from "../base/bytes.ts";
import type { DeviceId } from "../base/ids.ts";
import { memberChanges, replacedLeaves } from "./mls_changes.ts";
import { credentialOf, HUB_EXTENSION, type MlsContext } from "./mls_credentials.ts";
import { MlsError, wrapErrors } from "./mls_error.ts";
import {
  checkActive,
  checkStaying,
  groupInfo,
  implementationOf,
  memberAt,
  membersOf,
  type MlsGroup,
  type MlsMember,
  stateIn,
} from "./mls_group.ts";
import { checkKeyPackage } from "./mls_key_packages.ts";
import { pruneSecretTree } from "./mls_state.ts";
import { nodeOfLeaf } from "./mls_tree.ts";

/** Proof for the server that this commit leaves the epoch it says (semantics: commit guard). */
export interface MlsCommitGuard {
  readonly groupId: Bytes;
  /** The epoch being left. */
  readonly epoch: bigint;
  readonly token: Bytes;
  readonly nextTokenSha256: Bytes;
}

/** A commit that the server has not accepted yet. */
export interface PendingCommit {
  /** MLSMessage for `recipients`. */
  readonly commit: Bytes;
  /** MLSMessage for `joiners`, with the ratchet tree; undefined when nobody joins. */
  readonly welcome: Bytes | undefined;
  readonly guard: MlsCommitGuard;
  /** All other members of the epoch being left, those being removed as well, so that they learn of it. */
  readonly recipients: readonly DeviceId[];
  readonly joiners: readonly DeviceId[];
  readonly added: readonly MlsMember[];
  readonly removed: readonly MlsMember[];
  /** The group after the commit: hand it to {@link adoptCommit}. */
  readonly group: MlsGroup;
}

const GUARD_LABEL = "qpq commit guard";

/** What a commit changes; leave requests that wait are always committed as well. */
export interface GroupChanges {
  /** KeyPackages as the server handed them out. */
  readonly add?: readonly Uint8Array[];
  readonly remove?: readonly DeviceId[];
  /** Told to those who join when the group does not name its hub itself. */
  readonly hub?: string;
}

/** A device of another server cannot be added as members' leaves do not say yet which server they are on. */
export class DomainMissingError extends MlsError {
  readonly devices: readonly MlsMember[];

  constructor(devices: readonly MlsMember[]) {
    const ids = devices.map((one) => one.deviceId).join(", ");
    super("domainMissing", `Cannot add a device of another server as devices name no domain yet: ${ids}`);
    this.devices = devices;
  }
}

/** Adds devices by their KeyPackages. Throws MlsError `untrusted`, `lifetime`, `invalid` or `alreadyMember`. */
export function addMembers(
  context: MlsContext,
  group: MlsGroup,
  keyPackages: readonly Uint8Array[],
): Promise<PendingCommit> {
  return changeMembers(context, group, { add: keyPackages });
}

/** Removes devices; they cannot read what is sent afterwards. Throws MlsError `notMember`. */
export function removeMembers(
  context: MlsContext,
  group: MlsGroup,
  devices: readonly DeviceId[],
): Promise<PendingCommit> {
  return changeMembers(context, group, { remove: devices });
}

/** Renews this device's keys in the group, and commits leave requests that wait. */
export function update(context: MlsContext, group: MlsGroup): Promise<PendingCommit> {
  return changeMembers(context, group, {});
}

/** One commit of all `changes`: a device that lost its state is removed and added again in one step. */
export async function changeMembers(
  context: MlsContext,
  group: MlsGroup,
  changes: GroupChanges,
): Promise<PendingCommit> {
  checkActive(group);
  checkStaying(group);
  const state = stateIn(context, group);
  const info = groupInfo(group);
  const before = membersOf(state);
  const removals = removalsOf(before, changes.remove ?? [], info.leaving);
  const stays = new Set(
    before.map((member) => member.deviceId).filter((id) => !changes.remove?.includes(id)),
  );
  const additions: Proposal[] = [];
  const joiners: DeviceId[] = [];
  for (const bytes of changes.add ?? []) {
    const { keyPackage, deviceId } = await checkKeyPackage(context, bytes, { suite: info.suite });
    if (stays.has(deviceId) || joiners.includes(deviceId)) {
      throw new MlsError("alreadyMember", `Cannot add device ${deviceId} as it is a member`);
    }
    joiners.push(deviceId);
    additions.push({ proposalType: "add", add: { keyPackage } });
  }
  const extraProposals = [...removals, ...additions];
  const renewsLeaf = removals.length > 0 || info.leaving.length > 0 || additions.length === 0;
  const cipherSuite = await implementationOf(group);
  const made = await wrapErrors(
    "Cannot make a commit",
    () =>
      createCommit({ state: renewsLeaf ? withOwnDomain(context, state) : state, cipherSuite }, {
        extraProposals,
        ratchetTreeExtension: true,
        groupInfoExtensions: hubExtensions(info.creator.domain, changes.hub),
      }),
  );
  const next = { state: withPastTree(pruneSecretTree(made.newState), state) };
  checkDomains(context, membersOf(next.state));
  const { added, removed } = memberChanges(state, next.state, replacedLeaves(removals));
  return {
    commit: copy(encodeMlsMessage(made.commit)),
    welcome: made.welcome && encodeWelcome(made.welcome),
    guard: await commitGuard(group, next),
    recipients: before.map((member) => member.deviceId).filter((id) => id !== context.identity.deviceId),
    joiners,
    added,
    removed,
    group: next,
  };
}

type RemoveProposal = Extract<Proposal, { proposalType: "remove" }>;

/** Remove proposals for `devices`, apart from those whose own leave request is committed anyway. */
function removalsOf(
  before: readonly MlsMember[],
  devices: readonly DeviceId[],
  leaving: readonly MlsMember[],
): RemoveProposal[] {
  const wanted = devices.filter((device) => !leaving.some((member) => member.deviceId === device));
  return wanted.map((device) => {
    const member = before.find((one) => one.deviceId === device);
    if (!member) throw new MlsError("notMember", `Cannot remove device ${device} as it is not in the group`);
    return { proposalType: "remove", remove: { removed: member.leafIndex } };
  });
}

/** Does this device's leaf lack the domain that its server has by now? An {@link update} then sets it. */
export function lacksDomain(context: MlsContext, group: MlsGroup): boolean {
  const own = memberAt(group.state, groupInfo(group).ownLeafIndex);
  return own?.domain === "" && context.identity.domain !== "";
}

/** The state to commit from: the leaf of the commit's path takes over the credential that is in the tree. */
function withOwnDomain(context: MlsContext, state: GroupState): GroupState {
  if (!lacksDomain(context, { state })) return state;
  const index = nodeOfLeaf(state.privatePath.leafIndex);
  const node = state.ratchetTree[index];
  if (node?.nodeType !== "leaf") return state;
  const leaf = { ...node.leaf, credential: credentialOf(context.identity) };
  return { ...state, ratchetTree: state.ratchetTree.with(index, { nodeType: "leaf", leaf }) };
}

/** What is kept of the epoch that was left has the tree as it was. */
function withPastTree(next: GroupState, { groupContext, ratchetTree }: GroupState): GroupState {
  const past = next.historicalReceiverData.get(groupContext.epoch);
  if (!past || past.ratchetTree === ratchetTree) return next;
  const historicalReceiverData = new Map(next.historicalReceiverData)
    .set(groupContext.epoch, { ...past, ratchetTree });
  return { ...next, historicalReceiverData };
}

/** Whoever is on another server would take a member without a domain for one of theirs. */
function checkDomains(context: MlsContext, members: readonly MlsMember[]): void {
  const domain = context.identity.domain || context.formerDomain;
  if (members.every((one) => one.domain === "" || one.domain === domain)) return;
  const missing = members.filter((one) => one.domain === "");
  if (missing.length > 0) throw new DomainMissingError(missing);
}

function hubExtensions(named: string, hub: string | undefined) {
  return named === "" && hub ? [{ extensionType: HUB_EXTENSION, extensionData: utf8(hub) }] : [];
}

function encodeWelcome(welcome: Extract<MLSMessage, { wireformat: "mls_welcome" }>["welcome"]): Bytes {
  return copy(encodeMlsMessage({ version: "mls10", wireformat: "mls_welcome", welcome }));
}

/** The token that only members of this epoch can derive. */
async function guardToken(group: MlsGroup): Promise<Bytes> {
  const { keySchedule, groupContext } = group.state;
  const implementation = await implementationOf(group);
  return copy(
    await mlsExporter(keySchedule.exporterSecret, GUARD_LABEL, groupContext.groupId, 32, implementation),
  );
}

async function commitGuard(left: MlsGroup, entered: MlsGroup): Promise<MlsCommitGuard> {
  const { groupId, epoch } = left.state.groupContext;
  return {
    groupId: copy(groupId),
    epoch,
    token: await guardToken(left),
    nextTokenSha256: await sha256(await guardToken(entered)),
  };
}

/**
 * The group after an own commit was accepted. `current` is the group of the epoch being left as it is now: what
 * it received while the commit was on its way is not received again.
 */
export function adoptCommit(current: MlsGroup, pending: MlsGroup): MlsGroup {
  const { epoch, groupId } = current.state.groupContext;
  const next = pending.state;
  if (next.groupContext.epoch !== epoch + 1n || !equal(next.groupContext.groupId, groupId)) {
    throw new MlsError(
      "invalid",
      `Cannot adopt a commit to epoch ${next.groupContext.epoch} in epoch ${epoch}`,
    );
  }
  const historical = new Map(next.historicalReceiverData);
  for (const [old, data] of historical) {
    const secretTree = old === epoch
      ? current.state.secretTree
      : current.state.historicalReceiverData.get(old)?.secretTree;
    if (secretTree) historical.set(old, { ...data, secretTree });
  }
  return { state: { ...next, historicalReceiverData: historical } };
}

/**
 * Asks the others to remove this device: MLS lets nobody commit its own removal. Until somebody commits it, this
 * device still reads the group but sends nothing; the others must commit before they send.
 */
export async function proposeLeave(group: MlsGroup): Promise<{ bytes: Bytes; group: MlsGroup }> {
  checkActive(group);
  checkStaying(group);
  const { state } = group;
  const proposal: Proposal = { proposalType: "remove", remove: { removed: state.privatePath.leafIndex } };
  const cipherSuite = await implementationOf(group);
  const { message, newState } = await createProposal(state, false, proposal, cipherSuite);
  return { bytes: copy(encodeMlsMessage(message)), group: { state: newState } };
}

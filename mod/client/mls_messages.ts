/** Messages of a group: encrypting, reading what others sent, and telling which group bytes are for. */
import {
  type ClientState as GroupState,
  createApplicationMessage,
  decodeMlsMessage,
  emptyPskIndex,
  encodeMlsMessage,
  type IncomingMessageCallback,
  type MLSMessage,
  type PrivateMessage,
  processPrivateMessage,
  type Proposal,
} from "ts-mls";
import { decryptSenderData } from "ts-mls/privateMessage.js";
import { type Bytes, copy, equal, hex } from "../base/bytes.ts";
import { type GroupId, idOf } from "../base/ids.ts";
import { memberChanges, replacedLeaves } from "./mls_changes.ts";
import type { MlsContext } from "./mls_credentials.ts";
import { MlsError, wrapErrors } from "./mls_error.ts";
import {
  checkActive,
  checkStaying,
  implementationOf,
  memberAt,
  type MlsGroup,
  type MlsMember,
  stateIn,
} from "./mls_group.ts";
import { pruneSecretTree } from "./mls_state.ts";

/** What a message turned out to be. */
export type Processed =
  | {
    readonly kind: "application";
    readonly group: MlsGroup;
    readonly sender: MlsMember;
    readonly epoch: bigint;
    readonly plaintext: Bytes;
  }
  | {
    readonly kind: "commit";
    readonly group: MlsGroup;
    readonly sender: MlsMember;
    /** The epoch after the commit. */
    readonly epoch: bigint;
    readonly added: readonly MlsMember[];
    readonly removed: readonly MlsMember[];
    readonly selfRemoved: boolean;
    /** The sender's leaf names its domain from now on, and did not before. */
    readonly gotDomain: boolean;
  }
  | {
    readonly kind: "proposal";
    readonly group: MlsGroup;
    readonly sender: MlsMember;
    /** The sender asks to be removed; any other proposal is ignored. */
    readonly leaving: boolean;
  };

/** Application messages are padded to a multiple of this. */
const PADDING_BYTES = 256;
/** Length field and bytes of an Ed25519 signature behind the message. */
const SIGNATURE_FIELD_BYTES = 2 + 64;

/** Encrypts an application message for the group, padded to a multiple of 256 bytes. */
export async function encrypt(
  group: MlsGroup,
  plaintext: Uint8Array,
): Promise<{ bytes: Bytes; group: MlsGroup }> {
  checkActive(group);
  checkStaying(group);
  const { state } = group;
  if (Object.keys(state.unappliedProposals).length > 0) {
    throw new MlsError("commitFirst", "Cannot send before the proposals that wait are committed");
  }
  const paddingConfig = { kind: "alwaysPad" as const, paddingLength: paddingFor(plaintext.length) };
  const padded = { ...state, clientConfig: { ...state.clientConfig, paddingConfig } };
  const made = await createApplicationMessage(padded, plaintext, await implementationOf(group));
  const message: MLSMessage = {
    version: "mls10",
    wireformat: "mls_private_message",
    privateMessage: made.privateMessage,
  };
  return {
    bytes: copy(encodeMlsMessage(message)),
    group: { state: { ...state, secretTree: made.newState.secretTree } },
  };
}

function paddingFor(plaintextBytes: number): number {
  const lengthField = plaintextBytes < 64 ? 1 : plaintextBytes < 16384 ? 2 : 4;
  const content = lengthField + plaintextBytes + SIGNATURE_FIELD_BYTES;
  return (PADDING_BYTES - content % PADDING_BYTES) % PADDING_BYTES;
}

/** What is to be seen of a message without keys, to know which group it is for. */
export type MessageHeader =
  | {
    readonly kind: "message";
    readonly groupId: GroupId;
    readonly epoch: bigint;
    readonly content: "application" | "proposal" | "commit";
  }
  | { readonly kind: "welcome"; readonly keyPackageRefs: readonly string[] };

/** Reads the header. Throws MlsError `malformed` for anything but a PrivateMessage or a Welcome. */
export function readHeader(bytes: Uint8Array): MessageHeader {
  const message = parseMessage(bytes);
  if (message.wireformat === "mls_welcome") {
    return { kind: "welcome", keyPackageRefs: message.welcome.secrets.map((one) => hex(one.newMember)) };
  }
  const { groupId, epoch, contentType } = privateMessageOf(message);
  return { kind: "message", groupId: idOf<GroupId>(groupId), epoch, content: contentType };
}

/** Any MLS message. Throws MlsError `malformed`. */
export function parseMessage(bytes: Uint8Array): MLSMessage {
  let decoded: ReturnType<typeof decodeMlsMessage>;
  try {
    decoded = decodeMlsMessage(bytes, 0);
  } catch (cause) {
    throw new MlsError("malformed", "Cannot read an MLS message", { cause });
  }
  if (!decoded || decoded[1] !== bytes.length) throw new MlsError("malformed", "Cannot read an MLS message");
  return decoded[0];
}

function privateMessageOf(message: MLSMessage): PrivateMessage {
  if (message.wireformat === "mls_private_message") return message.privateMessage;
  throw new MlsError("malformed", `Cannot take an MLS message of this kind: ${message.wireformat}`);
}

/** Reads a message of a group. Throws MlsError; the group given stays as it was. */
export async function processMessage(
  context: MlsContext,
  group: MlsGroup,
  bytes: Uint8Array,
): Promise<Processed> {
  const message = privateMessageOf(parseMessage(bytes));
  const sender = await openSender(group, message);
  if (sender.deviceId === context.identity.deviceId) {
    throw new MlsError("own", "Cannot read a message that this device sent");
  }
  let proposals: readonly Proposal[] = [];
  const callback: IncomingMessageCallback = (incoming) => {
    if (incoming.kind === "proposal") return isLeaveRequest(incoming.proposal) ? "accept" : "reject";
    proposals = incoming.proposals.map((one) => one.proposal);
    return proposals.every(isKnownProposal) ? "accept" : "reject";
  };
  const cipherSuite = await implementationOf(group);
  const result = await wrapErrors(
    "Cannot read an MLS message",
    () => processPrivateMessage(stateIn(context, group), message, emptyPskIndex, cipherSuite, callback),
  );
  if (result.kind === "applicationMessage") {
    const { newState, message: plaintext } = result;
    return {
      kind: "application",
      group: { state: newState },
      sender,
      epoch: message.epoch,
      plaintext: copy(plaintext),
    };
  }
  if (message.contentType === "proposal") {
    const leaving = result.actionTaken === "accept";
    return { kind: "proposal", group: { state: result.newState }, sender, leaving };
  }
  if (result.actionTaken === "reject") {
    throw new MlsError("invalid", "Cannot follow a commit with proposals that this version does not know");
  }
  return afterCommit(group, { newState: result.newState, sender, proposals });
}

function afterCommit(
  group: MlsGroup,
  commit: { newState: GroupState; sender: MlsMember; proposals: readonly Proposal[] },
): Processed {
  const { newState, sender, proposals } = commit;
  const { added, removed } = memberChanges(group.state, newState, replacedLeaves(proposals));
  const selfRemoved = newState.groupActiveState.kind === "removedFromGroup";
  return {
    kind: "commit",
    group: { state: selfRemoved ? newState : pruneSecretTree(newState) },
    sender,
    epoch: group.state.groupContext.epoch + 1n,
    added,
    removed,
    selfRemoved,
    gotDomain: sender.domain === "" && Boolean(memberAt(newState, sender.leafIndex)?.domain),
  };
}

function isLeaveRequest(incoming: { proposal: Proposal; senderLeafIndex: number | undefined }): boolean {
  const { proposal, senderLeafIndex } = incoming;
  return proposal.proposalType === "remove" && proposal.remove.removed === senderLeafIndex;
}

function isKnownProposal(proposal: Proposal): boolean {
  return proposal.proposalType === "add" || proposal.proposalType === "remove";
}

/** Who sent the message: the sender data says so, and only members can make it. */
async function openSender(group: MlsGroup, message: PrivateMessage): Promise<MlsMember> {
  const { state } = group;
  const { groupId, epoch } = state.groupContext;
  if (!equal(message.groupId, groupId)) {
    throw new MlsError("wrongGroup", "Cannot read a message of another group");
  }
  if (message.epoch > epoch) {
    throw new MlsError("futureEpoch", `Cannot read a message of epoch ${message.epoch} in epoch ${epoch}`);
  }
  const historical = message.epoch < epoch ? state.historicalReceiverData.get(message.epoch) : undefined;
  if (message.epoch < epoch && (!historical || message.contentType !== "application")) {
    throw new MlsError("epochTooOld", `Cannot read a message of epoch ${message.epoch} in epoch ${epoch}`);
  }
  const secret = historical?.senderDataSecret ?? state.keySchedule.senderDataSecret;
  const implementation = await implementationOf(group);
  const data = await wrapErrors(
    "Cannot read who sent a message",
    () => decryptSenderData(message, secret, implementation),
  );
  const sender = data && memberAt(historical ?? state, data.leafIndex);
  if (!sender) throw new MlsError("invalid", "Cannot read a message from nobody in the group");
  return sender;
}

/** Who came and who went between two states of a group. */
import type { ClientState as GroupState, Proposal } from "ts-mls";
import { equal } from "../base/bytes.ts";
import type { DeviceId } from "../base/ids.ts";
import { decodeIdentity } from "./mls_credentials.ts";
import { MlsError } from "./mls_error.ts";
import { memberAt, type MlsMember } from "./mls_group.ts";

type RemoveProposal = Extract<Proposal, { proposalType: "remove" }>;

/** Leaves that Remove proposals empty, even if somebody else is added there in the same commit. */
export function replacedLeaves(proposals: readonly Proposal[]): Set<number> {
  const removed = proposals.filter((one): one is RemoveProposal => one.proposalType === "remove");
  return new Set(removed.map((one) => one.remove.removed));
}

/**
 * Who came and who went between two epochs. Refuses a leaf that became another device or got another signature
 * key without being removed first (RFC 9420 §5.3.1 leaves that to the application), and a device that is there twice.
 * A leaf may get the domain that it did not have before; whether it is the right one the authentication service says.
 */
export function memberChanges(before: GroupState, after: GroupState, replaced: ReadonlySet<number>) {
  const added: MlsMember[] = [];
  const removed: MlsMember[] = [];
  const devices = new Set<DeviceId>();
  const leaves = (Math.max(before.ratchetTree.length, after.ratchetTree.length) + 1) / 2;
  for (let leafIndex = 0; leafIndex < leaves; leafIndex++) {
    const old = memberAt(before, leafIndex);
    const now = memberAt(after, leafIndex);
    const gone = old && (!now || replaced.has(leafIndex));
    if (gone) removed.push(old);
    if (now && (!old || gone)) added.push(now);
    if (old && now && !gone && !sameLeafIdentity(before, after, leafIndex)) {
      throw new MlsError(
        "invalid",
        `Cannot follow a commit that turns leaf ${leafIndex} into another device`,
      );
    }
    if (now && devices.size === devices.add(now.deviceId).size) {
      throw new MlsError("invalid", `Cannot follow a commit that adds a device twice: ${now.deviceId}`);
    }
  }
  return { added, removed };
}

function sameLeafIdentity(before: GroupState, after: GroupState, leafIndex: number): boolean {
  const [old, now] = [before.ratchetTree[2 * leafIndex], after.ratchetTree[2 * leafIndex]];
  if (old?.nodeType !== "leaf" || now?.nodeType !== "leaf") return false;
  const [a, b] = [decodeIdentity(old.leaf.credential), decodeIdentity(now.leaf.credential)];
  return a !== undefined && a.deviceId === b?.deviceId && a.accountId === b.accountId &&
    (a.domain === b.domain || a.domain === "") &&
    equal(old.leaf.signaturePublicKey, now.leaf.signaturePublicKey);
}

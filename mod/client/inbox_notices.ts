/** Notices of the own server: what they say to a person, and what this client has to do. */
import { fromBinary } from "@bufbuild/protobuf";
import { messageOf } from "../base/errors.ts";
import { type DeviceId, type EntryId, idOf, type MessageId } from "../base/ids.ts";
import { type DeliveryFailed, DeliveryFailure, type Notice, NoticeSchema } from "../protocol/qpq_pb.ts";
import { addChore, addNotice, choreKey } from "./inbox_rows.ts";
import { ownAccount } from "./messenger_contacts.ts";
import { MlsError } from "./mls_error.ts";
import type { StateTransaction } from "./state.ts";
import type { DeliveryFailedReason } from "./state_records.ts";

/** A notice as it came, and what to call when KeyPackages run out. */
export interface ArrivedNotice {
  readonly id: EntryId;
  readonly seq: number;
  readonly acceptedMs: number;
  readonly payload: Uint8Array;
  readonly now: number;
  readonly onKeyPackagesLow: () => void;
}

const FAILURES: Partial<Record<DeliveryFailure, DeliveryFailedReason>> = {
  [DeliveryFailure.EXPIRED]: "expired",
  [DeliveryFailure.UNKNOWN_DEVICE]: "unknownDevice",
  [DeliveryFailure.QUEUE_FULL]: "queueFull",
  [DeliveryFailure.BLOCKED]: "blocked",
  [DeliveryFailure.PEER_REMOVED]: "peerRemoved",
};

/** Applies a notice. Throws MlsError `malformed`. */
export function applyNotice(tx: StateTransaction, arrived: ArrivedNotice): void {
  const { notice } = readNotice(arrived.payload);
  const common = { entryId: arrived.id, seq: arrived.seq, acceptedMs: arrived.acceptedMs };
  const { accountId } = ownAccount(tx);
  const sinceMs = arrived.now;
  if (notice.case === "deviceAdded") {
    const deviceId = idOf<DeviceId>(notice.value.deviceId);
    addNotice(tx, { ...common, notice: { kind: "deviceAdded", deviceId } });
    addChore(tx, { kind: "addDevice", accountId, deviceId, sinceMs });
  } else if (notice.case === "deviceRevoked") {
    const deviceId = idOf<DeviceId>(notice.value.deviceId);
    addNotice(tx, { ...common, notice: { kind: "deviceRevoked", deviceId } });
    tx.delete("chores", choreKey({ kind: "addDevice", deviceId }));
    addChore(tx, { kind: "removeDevice", accountId, deviceId, sinceMs });
  } else if (notice.case === "keyPackagesLow") arrived.onKeyPackagesLow();
  else if (notice.case === "deliveryFailed") applyFailure(tx, { arrived, failed: notice.value });
}

/** Says who was not reached; devices that are gone there are to be removed from the group, as they are here. */
function applyFailure(
  tx: StateTransaction,
  { arrived, failed }: { arrived: ArrivedNotice; failed: DeliveryFailed },
): void {
  const { id, seq, acceptedMs, now } = arrived;
  const messageId = idOf<MessageId>(failed.messageId);
  const groupId = tx.get("relayed", messageId)?.groupId;
  const devices = failed.deviceIds.map((deviceId) => idOf<DeviceId>(deviceId));
  const reason = FAILURES[failed.reason] ?? "refused";
  addNotice(tx, {
    notice: { kind: "deliveryFailed", messageId, domain: failed.domain, devices, reason },
    entryId: id,
    seq,
    acceptedMs,
    ...(groupId ? { groupId } : {}),
  });
  if (reason !== "unknownDevice" || !groupId) return;
  for (const deviceId of devices) {
    const owner = tx.all("contacts").find((contact) => contact.devices?.[deviceId] !== undefined);
    if (!owner || (owner.domain ?? "") !== failed.domain) continue; // only of its own users does a server know that
    addChore(tx, { kind: "removeDevice", groupId, accountId: owner.accountId, deviceId, sinceMs: now });
  }
}

function readNotice(payload: Uint8Array): Notice {
  try {
    return fromBinary(NoticeSchema, payload);
  } catch (cause) {
    throw new MlsError("malformed", `Cannot read a notice of the server: ${messageOf(cause)}`, { cause });
  }
}

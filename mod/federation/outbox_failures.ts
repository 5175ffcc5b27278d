/** What became of an outbox's messages at the peer, and the notices that tell their senders of failures. */
import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { type ErrorCode, errorCodeOf } from "../base/errors.ts";
import { fromHex, hex } from "../base/bytes.ts";
import { type RelayedMessage, RelayedMessageSchema, type RelayResult } from "../protocol/federation_pb.ts";
import { type DeliveryFailedSchema, DeliveryFailure, RecipientStatus } from "../protocol/qpq_pb.ts";
import type { OutboxEntry } from "../store/store.ts";
import type { Failure } from "./peer_metrics.ts";

/** Makes a notice for the sender's queue. */
export type DeliveryFailedInit = MessageInitShape<typeof DeliveryFailedSchema>;

/** Devices that a message did not reach, for one reason. */
export interface FailedRecipients {
  readonly reason: Failure;
  readonly deviceIds: readonly Uint8Array[];
}

/** Answers after which the same message is sent again. */
const TEMPORARY: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "internal",
  "rateLimited",
  "overloaded",
  "shuttingDown",
  "quotaExceeded",
  "storeUnavailable",
  "storeFull",
]);

const ON_WIRE: Record<Failure, DeliveryFailure> = {
  expired: DeliveryFailure.EXPIRED,
  unknown_device: DeliveryFailure.UNKNOWN_DEVICE,
  queue_full: DeliveryFailure.QUEUE_FULL,
  blocked: DeliveryFailure.BLOCKED,
  refused: DeliveryFailure.REFUSED,
  peer_removed: DeliveryFailure.PEER_REMOVED,
};

const BY_STATUS: ReadonlyMap<RecipientStatus, Failure> = new Map([
  [RecipientStatus.UNKNOWN_DEVICE, "unknown_device"],
  [RecipientStatus.QUEUE_FULL, "queue_full"],
  [RecipientStatus.BLOCKED, "blocked"],
]);

/** The message in an outbox row. */
export function readBody({ body }: Pick<OutboxEntry, "body">): RelayedMessage {
  return fromBinary(RelayedMessageSchema, body);
}

/** Is a message to be sent again after this? */
export function isTemporary(code: ErrorCode): boolean {
  return TEMPORARY.has(code);
}

/** Is the message to be sent again? Its error's code then. */
export function temporaryCode(result: RelayResult): ErrorCode | null {
  const code = result.code === 0 ? undefined : errorCodeOf(result.code);
  return code !== undefined && isTemporary(code) ? code : null;
}

/** The recipients that a final result leaves without the message. */
export function failuresOf(message: RelayedMessage, result: RelayResult): FailedRecipients[] {
  if (result.code !== 0) return [allOf(message, "refused")];
  const failed = new Map<Failure, Map<string, Uint8Array>>();
  recipientsOf(message).forEach((deviceId, i) => {
    const status = result.statuses[i];
    if (status === RecipientStatus.OK) return;
    const reason = (status !== undefined && BY_STATUS.get(status)) || "refused";
    const devices = failed.get(reason) ?? new Map<string, Uint8Array>();
    failed.set(reason, devices.set(hex(deviceId), deviceId));
  });
  return [...failed].map(([reason, devices]) => ({ reason, deviceIds: [...devices.values()] }));
}

/** All of a message's recipients, for one reason. */
export function allOf(message: RelayedMessage, reason: Failure): FailedRecipients {
  const devices = new Map(recipientsOf(message).map((deviceId) => [hex(deviceId), deviceId]));
  return { reason, deviceIds: [...devices.values()] };
}

/** What the sender is told. */
export function failedNotice(
  entry: Pick<OutboxEntry, "messageId">,
  { domain, failed }: { domain: string; failed: FailedRecipients },
): DeliveryFailedInit {
  return {
    messageId: fromHex(entry.messageId),
    domain,
    deviceIds: [...failed.deviceIds],
    reason: ON_WIRE[failed.reason],
  };
}

function recipientsOf(message: RelayedMessage): Uint8Array[] {
  return message.parts.flatMap((part) => part.recipients);
}

/**
 * Between wire messages and the terms of delivery, for what clients and other servers both send: commit guards, the
 * commits among payloads, statuses, accounts as strangers see them.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { ERRORS, QpqError } from "../base/errors.ts";
import { idOf } from "../base/ids.ts";
import type { ClaimedAccount } from "../delivery/keypackages.ts";
import type { CommitHeader, GuardRequest } from "../delivery/queues.ts";
import { boundedBytes, bytesField, idBytes, numberField } from "../protocol/fields.ts";
import { parseMlsMessage } from "../protocol/mls_header.ts";
import {
  type CommitGuard,
  type DeviceSchema,
  type ErrorResponseSchema,
  type FetchKeyPackagesResponseSchema,
  type GetAccountResponseSchema,
  RecipientStatus,
} from "../protocol/qpq_pb.ts";
import type { Account, Device, RecipientStatus as StoredStatus } from "../store/store.ts";

/** Longest MLS group id that is taken. */
const GROUP_ID_BYTES_MAX = 255;

/** Statuses of the store on the wire. */
export const STATUSES: Readonly<Record<StoredStatus, RecipientStatus>> = {
  ok: RecipientStatus.OK,
  unknownDevice: RecipientStatus.UNKNOWN_DEVICE,
  queueFull: RecipientStatus.QUEUE_FULL,
  blocked: RecipientStatus.BLOCKED,
};

/** A commit guard as it came. Throws `malformedRequest`. */
export function readGuard(guard: CommitGuard): GuardRequest {
  if (guard.groupId.length === 0) throw new QpqError("malformedRequest", "The guard names no group");
  return {
    groupId: idOf(boundedBytes(guard.groupId, "guard.group_id", GROUP_ID_BYTES_MAX)),
    epoch: numberField(guard.epoch, "guard.epoch"),
    token: bytesField(guard.token, "guard.token", 32),
    nextTokenSha256: bytesField(guard.nextTokenSha256, "guard.next_token_sha256", 32),
  };
}

/** The commits among the payloads, as far as their MLS headers tell. */
export function readCommits(parts: readonly { payload: Uint8Array }[]): CommitHeader[] {
  const commits: CommitHeader[] = [];
  for (const { payload } of parts) {
    const header = parseMlsMessage(payload);
    if (!header || (header.kind !== "privateMessage" && header.kind !== "publicMessage")) continue;
    if (header.contentType !== "commit" || header.groupId.length > GROUP_ID_BYTES_MAX) continue;
    const external = header.kind === "publicMessage" && header.senderType !== "member";
    commits.push({ groupId: idOf(header.groupId), epoch: header.epoch, external });
  }
  return commits;
}

/** A device as others than its owner see it: without name and times. */
export function strangersDevice(device: Device): MessageInitShape<typeof DeviceSchema> {
  return {
    deviceId: idBytes(device.deviceId),
    deviceKey: device.deviceKey,
    ...(device.accountSignature ? { accountSignature: device.accountSignature } : {}),
  };
}

/** An account as others see it. */
export function strangersAccount(
  account: Pick<Account, "accountId" | "userName" | "accountKey">,
  devices: readonly Device[],
): MessageInitShape<typeof GetAccountResponseSchema> {
  return {
    accountId: idBytes(account.accountId),
    userName: account.userName,
    accountKey: account.accountKey,
    devices: devices.map(strangersDevice),
  };
}

/** What a claim gave. */
export function claimedMessage(
  claimed: ClaimedAccount,
): MessageInitShape<typeof FetchKeyPackagesResponseSchema> {
  return {
    accountId: idBytes(claimed.accountId),
    userName: claimed.userName,
    accountKey: claimed.accountKey,
    devices: claimed.devices.map(strangersDevice),
    keyPackages: claimed.keyPackages.map(({ deviceId, bytes, lastResort }) => ({
      deviceId: idBytes(deviceId),
      keyPackage: bytes,
      lastResort,
    })),
  };
}

/** What a peer or client is told of an expected failure. */
export function errorMessage({ code, details }: QpqError): MessageInitShape<typeof ErrorResponseSchema> {
  return {
    text: ERRORS[code].text,
    retryAfterMs: Math.ceil(details.retryAfterMs ?? 0),
    ...(details.currentEpoch === undefined ? {} : { currentEpoch: BigInt(details.currentEpoch) }),
  };
}

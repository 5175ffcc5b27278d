/** What can be said of an Enqueue without the store: its bounds, its guard, and what makes two of them the same. */
import { createHash } from "node:crypto";
import { type Bytes, hex } from "../base/bytes.ts";
import { QpqError } from "../base/errors.ts";
import type { DeliveryLimits, EnqueueRequest, MessageSender } from "./queues.ts";

/** Checks the bounds of an Enqueue; returns its payload bytes, each payload once. */
export function checkParts(
  { parts, remote = [], mayBeForNobody = false }: Pick<EnqueueRequest, "parts" | "remote"> & {
    readonly mayBeForNobody?: boolean;
  },
  limits: DeliveryLimits,
): number {
  const { partsMax, recipientsMax, payloadBytesMax, enqueueBytesMax } = limits;
  if (parts.length < 1 || parts.length > partsMax) {
    throw new QpqError("malformedRequest", `Parts must be 1..${partsMax}: ${parts.length}`);
  }
  let bytes = 0;
  let recipients = 0;
  for (const [index, part] of parts.entries()) {
    const count = remote.reduce(
      (sum, domain) => sum + (domain.recipients[index]?.length ?? 0),
      part.recipients.length,
    );
    if (part.payload.length === 0 || (count === 0 && !mayBeForNobody)) {
      throw new QpqError("malformedRequest", "A part needs a payload and a recipient");
    }
    if (part.payload.length > payloadBytesMax) {
      throw new QpqError(
        "payloadTooLarge",
        `Payload must be <= ${payloadBytesMax}: ${part.payload.length}`,
      );
    }
    bytes += part.payload.length;
    recipients += count;
  }
  if (recipients > recipientsMax) {
    throw new QpqError("malformedRequest", `Recipients must be <= ${recipientsMax}: ${recipients}`);
  }
  if (bytes > enqueueBytesMax) {
    throw new QpqError("payloadTooLarge", `Payloads together must be <= ${enqueueBytesMax}: ${bytes}`);
  }
  return bytes;
}

/** A guard belongs to exactly one commit of its group and epoch, which is no external one. */
export function checkGuard({ guard, commits }: EnqueueRequest): void {
  if (!guard) return;
  const agrees = commits.length === 1 && commits[0]!.groupId === guard.groupId &&
    commits[0]!.epoch === guard.epoch && !commits[0]!.external;
  if (!agrees) {
    throw new QpqError("guardMismatch", "The guard needs exactly one commit of its group and epoch");
  }
}

/** SHA-256. */
export function sha256Sync(bytes: Uint8Array): Bytes {
  return new Uint8Array(createHash("sha256").update(bytes).digest());
}

/** SHA-256 over everything that makes two requests the same one: all but the payloads as text, then the payloads. */
export function requestHash(
  { ttlMs, parts, guard, remote = [] }: EnqueueRequest,
  { origin, ...sender }: MessageSender,
): Bytes {
  // Without what local messages to local devices do not have: their hashes are those of earlier versions.
  const elsewhere = remote.map(({ domain, recipients }) => [domain, recipients]);
  const from = origin === null ? [] : [origin, sender.senderAccount, sender.senderDevice];
  const shape = JSON.stringify([
    // Another server says what is left, which is less each time it tries.
    origin === null ? ttlMs : null,
    parts.map(({ payload, recipients }) => [payload.length, recipients]),
    guard && [guard.groupId, guard.epoch, hex(guard.token), hex(guard.nextTokenSha256)],
    ...elsewhere.length > 0 ? [elsewhere] : [],
    ...from,
  ]);
  const hash = createHash("sha256").update(shape);
  for (const { payload } of parts) hash.update(payload);
  return new Uint8Array(hash.digest());
}

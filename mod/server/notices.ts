/** Entries that the server itself puts into queues. */
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { Clock } from "../base/clock.ts";
import { fromHex } from "../base/bytes.ts";
import { type DeviceId, type EntryId, randomId } from "../base/ids.ts";
import type { Settings } from "../config/options.ts";
import { NoticeSchema } from "../protocol/qpq_pb.ts";
import type { ServerNotice } from "../store/store.ts";

/** Makes notices that live for `ttlMs`. */
export function noticeMaker(
  deps: { clock: Clock; ttlMs: () => number },
): (notice: MessageInitShape<typeof NoticeSchema>["notice"] & object) => ServerNotice {
  return (notice) => ({
    entryId: randomId<EntryId>(),
    payload: toBinary(
      NoticeSchema,
      create(NoticeSchema, { notice } as MessageInitShape<typeof NoticeSchema>),
    ),
    expiresAt: deps.clock.now() + deps.ttlMs(),
  });
}

/** What the account's other devices are told when the operator revokes a device. */
export function deviceRevokedNotice(
  { clock, settings }: { readonly clock: Clock; readonly settings: Settings },
  deviceId: DeviceId,
): ServerNotice {
  const make = noticeMaker({ clock, ttlMs: () => settings.limits.ttlDefaultMs });
  return make({ case: "deviceRevoked", value: { deviceId: fromHex(deviceId) } });
}

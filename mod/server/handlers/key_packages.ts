/** UploadKeyPackages, CountKeyPackages, FetchKeyPackages. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { normaliseUserName } from "../../base/user_name.ts";
import type { DeviceId } from "../../base/ids.ts";
import { claimedMessage } from "../../federation/messages.ts";
import type { KeyPackageCountSchema } from "../../protocol/qpq_pb.ts";
import type { KeyPackageCount } from "../../store/store.ts";
import { callerOf } from "../context.ts";
import { boundedList, idField } from "../../protocol/fields.ts";
import { claimAcross, otherDomain } from "./across.ts";
import type { Handlers } from "./types.ts";

/** Methods of KeyPackages. */
export const keyPackageHandlers: Pick<
  Handlers,
  "uploadKeyPackages" | "countKeyPackages" | "fetchKeyPackages"
> = {
  async uploadKeyPackages(context, request) {
    const { server, connection } = context;
    const { accountId, deviceId, deviceKey } = callerOf(context);
    const deviceSigned = await server.authenticator.isDeviceSigned(connection.auth);
    const { stored, counts } = await server.keyPackages.upload(
      { accountId, deviceId, deviceKey, deviceSigned },
      request.keyPackages.map(({ keyPackage, lastResort }) => ({ bytes: keyPackage, lastResort })),
    );
    server.metrics.keyPackageUploadTotal.inc(stored.filter((isNew) => isNew).length);
    return { stored, counts: counts.map(countMessage) };
  },

  async countKeyPackages(context) {
    const counts = await context.server.keyPackages.count(callerOf(context).deviceId);
    return { counts: counts.map(countMessage) };
  },

  async fetchKeyPackages(context, request) {
    const { server, connection, turn } = context;
    await turn.take();
    const domain = otherDomain(server, request.domain);
    if (domain !== null) return await claimAcross(context, { domain, request });
    const target = request.userName !== ""
      ? { userName: normaliseUserName(request.userName) }
      : { accountId: idField<never>(request.accountId, "account_id") };
    const devices = boundedList(request.deviceIds, "device_ids", server.settings.limits.devicesMax)
      .map((bytes) => idField<DeviceId>(bytes, "device_ids"));
    const claimed = await server.keyPackages.claim({
      target,
      suite: request.suite,
      devices: devices.length > 0 ? devices : null,
      mayTakeFresh: (accountId) => server.limits.claim(connection, accountId),
    });
    return claimedMessage(claimed);
  },
};

function countMessage(count: KeyPackageCount): MessageInitShape<typeof KeyPackageCountSchema> {
  return {
    suite: count.suite,
    count: count.count,
    lastResortNotAfterMs: BigInt(count.lastResortNotAfter ?? 0),
  };
}

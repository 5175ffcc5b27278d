/** Hello and Ping. */
import { VERSION } from "../../base/version.ts";
import { QpqError } from "../../base/errors.ts";
import { fromHex } from "../../base/bytes.ts";
import { FRAME_BODY_BYTES_MAX } from "../../protocol/frame.ts";
import type { ServerContext } from "../context.ts";
import { boundedBytes, boundedList } from "../../protocol/fields.ts";
import type { Handlers } from "./types.ts";

/** Longest access token, client version and feature name, in characters. */
const TOKEN_CHARACTERS_MAX = 512;
const NAME_CHARACTERS_MAX = 128;
const FEATURES_MAX = 64;
const ECHO_BYTES_MAX = 64;

/** What this server can do beyond the first version of the protocol. */
const FEATURES: readonly string[] = [];

/** Methods of the connection itself. */
export const connectionHandlers: Pick<Handlers, "hello" | "ping"> = {
  async hello(context, request) {
    const { connection, server } = context;
    if (connection.helloDone) throw new QpqError("helloRepeated", "Hello came twice");
    boundedList(request.features, "features", FEATURES_MAX);
    const tooLong = request.accessToken.length > TOKEN_CHARACTERS_MAX ||
      [request.clientVersion, ...request.features].some((name) => name.length > NAME_CHARACTERS_MAX);
    if (tooLong) throw new QpqError("malformedRequest", "A text of Hello is too long");
    await server.authenticator.admit(connection.auth, request.accessToken);
    connection.helloDone = true;
    return {
      serverVersion: VERSION,
      limits: limitsMessage(server),
      serverTimeMs: BigInt(server.clock.now()),
      serverNonce: connection.auth.serverNonce,
      features: [...FEATURES],
      storeIncarnation: server.store.incarnation,
      admitted: connection.auth.admitted,
      certificateChain: request.wantCertificateChain ? [...server.certificates.info.chainDer] : [],
      nextCertificateSha256: server.certificates.nextLeafSha256 ?? fromHex(""),
      realmId: server.store.realmId,
      domain: server.federation?.domain ?? "",
    };
  },

  ping({ server }, request) {
    return {
      echo: boundedBytes(request.echo, "echo", ECHO_BYTES_MAX),
      serverTimeMs: BigInt(server.clock.now()),
    };
  },
};

function limitsMessage({ settings, deliveryLimits }: ServerContext) {
  const { limits } = settings;
  return {
    frameBytesMax: FRAME_BODY_BYTES_MAX,
    payloadBytesMax: deliveryLimits.payloadBytesMax,
    enqueueBytesMax: deliveryLimits.enqueueBytesMax,
    recipientsMax: deliveryLimits.recipientsMax,
    partsMax: deliveryLimits.partsMax,
    fetchEntriesMax: deliveryLimits.fetchEntriesMax,
    waitMsMax: deliveryLimits.waitMsMax,
    blobBytesMax: BigInt(limits.blobBytesMax),
    ttlSDefault: deliveryLimits.ttlDefaultMs / 1000,
    ttlSMax: deliveryLimits.ttlMaxMs / 1000,
    keyPackagesMax: limits.keyPackagesMax,
    requestsInFlightMax: limits.requestsInFlightMax,
    streamsMax: limits.streamsMax,
    devicesMax: limits.devicesMax,
  };
}

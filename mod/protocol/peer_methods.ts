/**
 * The methods between servers (ALPN {@link PEER_ALPN}): number, request and response type, how large a request may be.
 * Numbers are never reused, and none is one of methods.ts.
 */
import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import * as pb from "./federation_pb.ts";
import { FRAME_BODY_BYTES_MAX } from "./frame.ts";
import type { StreamUse } from "./methods.ts";
import {
  EmptySchema,
  FetchKeyPackagesResponseSchema,
  GetAccountResponseSchema,
  GetBlobRequestSchema,
  GetBlobResponseSchema,
  PingRequestSchema,
  PingResponseSchema,
} from "./qpq_pb.ts";

/** ALPN of the protocol between servers. */
export const PEER_ALPN = "qpq-federation/1";
/** Largest body of PeerHello, PeerProve and their replies. */
export const PEER_HANDSHAKE_BYTES_MAX = 64 * 1024;
/** Most messages in one Relay. */
export const RELAY_MESSAGES_MAX = 256;
/** A Relay of several messages holds at most this much of them. */
export const RELAY_BYTES_MAX = 1 << 20;

interface PeerMethodRow<
  Request extends DescMessage = DescMessage,
  Response extends DescMessage = DescMessage,
> {
  readonly number: number;
  readonly request: Request;
  readonly response: Response;
  /** `handshake`: before the initiator has proven who it is, and only then. */
  readonly access: "handshake" | "proven";
  /** `own`: the first frame of a stream, on which raw bytes follow the reply. */
  readonly stream: StreamUse;
  readonly bytesMax: number;
}

const row = <Request extends DescMessage, Response extends DescMessage, Use extends StreamUse = "shared">(
  number: number,
  request: Request,
  response: Response,
  rest: { access?: PeerMethodRow["access"]; bytesMax?: number; stream?: Use } = {},
) => ({
  number,
  request,
  response,
  access: rest.access ?? "proven" as PeerMethodRow["access"],
  stream: (rest.stream ?? "shared") as Use,
  bytesMax: rest.bytesMax ?? 4 * 1024,
});

const handshake = { access: "handshake", bytesMax: PEER_HANDSHAKE_BYTES_MAX } as const;

/** All methods by name. */
export const PEER_METHODS = {
  peerHello: row(101, pb.PeerHelloRequestSchema, pb.PeerHelloResponseSchema, handshake),
  peerProve: row(102, pb.PeerProveRequestSchema, EmptySchema, handshake),
  peerPing: row(103, PingRequestSchema, PingResponseSchema),
  relay: row(110, pb.RelayRequestSchema, pb.RelayResponseSchema, { bytesMax: FRAME_BODY_BYTES_MAX }),
  submitCommit: row(111, pb.SubmitCommitRequestSchema, pb.SubmitCommitResponseSchema, {
    bytesMax: FRAME_BODY_BYTES_MAX,
  }),
  peerClaim: row(112, pb.PeerClaimRequestSchema, FetchKeyPackagesResponseSchema),
  peerGetAccount: row(113, pb.PeerGetAccountRequestSchema, GetAccountResponseSchema),
  peerGetBlob: row(120, GetBlobRequestSchema, GetBlobResponseSchema, { stream: "own" }),
} as const;

/** Name of a method between servers. */
export type PeerMethodName = keyof typeof PEER_METHODS;
/** Names of those that share a stream, after the handshake. */
export type PeerCallName = "peerPing" | "relay" | "submitCommit" | "peerClaim" | "peerGetAccount";
/** A request message of method `M`, as it is read. */
export type PeerRequestOf<M extends PeerMethodName> = MessageShape<(typeof PEER_METHODS)[M]["request"]>;
/** A response message of method `M`, as it is read. */
export type PeerResponseOf<M extends PeerMethodName> = MessageShape<(typeof PEER_METHODS)[M]["response"]>;
/** What a request of method `M` can be made from. */
export type PeerRequestInit<M extends PeerMethodName> = MessageInitShape<(typeof PEER_METHODS)[M]["request"]>;
/** What a response of method `M` can be made from. */
export type PeerResponseInit<M extends PeerMethodName> = MessageInitShape<
  (typeof PEER_METHODS)[M]["response"]
>;

/** A row with its name. */
export interface PeerMethod extends PeerMethodRow {
  readonly name: PeerMethodName;
}

const byNumber = new Map<number, PeerMethod>(
  (Object.keys(PEER_METHODS) as PeerMethodName[]).map((
    name,
  ) => [PEER_METHODS[name].number, { name, ...PEER_METHODS[name] }]),
);

/** The method with this number; undefined when there is none. */
export function peerMethodOf(number: number): PeerMethod | undefined {
  return byNumber.get(number);
}

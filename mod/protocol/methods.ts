/**
 * THE method table: number, request and response type, who may call, how large a request may be, and which
 * rate class it is charged to. Numbers are never reused.
 */
import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import * as pb from "./qpq_pb.ts";
import { FRAME_BODY_BYTES_MAX } from "./frame.ts";

/**
 * Who may call a method: `anyone` before Hello; `hello` after Hello; `admitted` with the right access token
 * or a login; `login` after LoginFinish or Resume; `freshLogin` within 5 minutes of a LoginFinish.
 */
export type Access = "anyone" | "hello" | "admitted" | "login" | "freshLogin";

/** Which token bucket a request is charged to (limits.ts in mod/server). */
export type RateClass = "hello" | "registration" | "login" | "resume" | "claim" | "request";

/** How a method uses its stream: `shared` with other requests, or `own`: the first frame of a new stream. */
export type StreamUse = "shared" | "own";

interface MethodRow<Request extends DescMessage = DescMessage, Response extends DescMessage = DescMessage> {
  readonly number: number;
  readonly request: Request;
  readonly response: Response;
  readonly access: Access;
  readonly rate: RateClass;
  readonly stream: StreamUse;
  /** Largest request body. */
  readonly bytesMax: number;
}

const KIB = 1024;
/** A row that keeps its message types, so that a client's call is typed by the method's name. */
const row = <Request extends DescMessage, Response extends DescMessage, Use extends StreamUse = "shared">(
  number: number,
  request: Request,
  response: Response,
  access: Access,
  rate: RateClass = "request",
  bytesMax = 4 * KIB,
  stream: Use = "shared" as Use,
): MethodRow & { readonly request: Request; readonly response: Response; readonly stream: Use } => ({
  number,
  request,
  response,
  access,
  rate,
  stream,
  bytesMax,
});

/** All methods by name. */
export const METHODS = {
  hello: row(1, pb.HelloRequestSchema, pb.HelloResponseSchema, "anyone", "hello"),
  ping: row(2, pb.PingRequestSchema, pb.PingResponseSchema, "admitted"),

  registerStart: row(
    10,
    pb.RegisterStartRequestSchema,
    pb.RegisterStartResponseSchema,
    "hello",
    "registration",
  ),
  registerFinish: row(11, pb.RegisterFinishRequestSchema, pb.RegisterFinishResponseSchema, "hello"),
  loginStart: row(12, pb.LoginStartRequestSchema, pb.LoginStartResponseSchema, "hello", "login"),
  loginFinish: row(13, pb.LoginFinishRequestSchema, pb.LoginFinishResponseSchema, "hello"),
  resume: row(14, pb.ResumeRequestSchema, pb.ResumeResponseSchema, "hello", "resume"),
  logout: row(15, pb.EmptySchema, pb.EmptySchema, "login"),
  changePasswordStart: row(
    16,
    pb.ChangePasswordStartRequestSchema,
    pb.ChangePasswordStartResponseSchema,
    "freshLogin",
  ),
  changePasswordFinish: row(17, pb.ChangePasswordFinishRequestSchema, pb.EmptySchema, "freshLogin"),
  deleteAccount: row(18, pb.EmptySchema, pb.EmptySchema, "freshLogin"),
  getAccount: row(19, pb.GetAccountRequestSchema, pb.GetAccountResponseSchema, "login"),

  listDevices: row(20, pb.EmptySchema, pb.ListDevicesResponseSchema, "login"),
  revokeDevice: row(21, pb.RevokeDeviceRequestSchema, pb.EmptySchema, "freshLogin"),
  signDevice: row(22, pb.SignDeviceRequestSchema, pb.EmptySchema, "login"),
  block: row(23, pb.BlockRequestSchema, pb.EmptySchema, "login"),
  unblock: row(24, pb.BlockRequestSchema, pb.EmptySchema, "login"),
  listBlocks: row(25, pb.EmptySchema, pb.ListBlocksResponseSchema, "login"),
  createInvitation: row(26, pb.CreateInvitationRequestSchema, pb.CreateInvitationResponseSchema, "login"),

  uploadKeyPackages: row(
    30,
    pb.UploadKeyPackagesRequestSchema,
    pb.UploadKeyPackagesResponseSchema,
    "login",
    "request",
    512 * KIB,
  ),
  countKeyPackages: row(31, pb.EmptySchema, pb.CountKeyPackagesResponseSchema, "login"),
  fetchKeyPackages: row(
    32,
    pb.FetchKeyPackagesRequestSchema,
    pb.FetchKeyPackagesResponseSchema,
    "login",
    "claim",
  ),

  enqueue: row(
    40,
    pb.EnqueueRequestSchema,
    pb.EnqueueResponseSchema,
    "login",
    "request",
    FRAME_BODY_BYTES_MAX,
  ),
  fetch: row(41, pb.FetchRequestSchema, pb.FetchResponseSchema, "login"),
  fetchWait: row(42, pb.FetchWaitRequestSchema, pb.FetchResponseSchema, "login"),
  ack: row(43, pb.AckRequestSchema, pb.AckResponseSchema, "login"),
  subscribe: row(44, pb.SubscribeRequestSchema, pb.PushBatchSchema, "login", "request", 4 * KIB, "own"),

  putBlob: row(50, pb.PutBlobRequestSchema, pb.PutBlobResponseSchema, "login", "request", 4 * KIB, "own"),
  getBlob: row(51, pb.GetBlobRequestSchema, pb.GetBlobResponseSchema, "login", "request", 4 * KIB, "own"),
  deleteBlob: row(52, pb.DeleteBlobRequestSchema, pb.EmptySchema, "login"),
} as const;

/** Name of a method. */
export type MethodName = keyof typeof METHODS;
/** Names of the methods whose requests share a stream. */
export type SharedMethodName = {
  [Name in MethodName]: (typeof METHODS)[Name]["stream"] extends "shared" ? Name : never;
}[MethodName];

/** A request message of method `M`. */
export type RequestOf<M extends MethodName> = MessageShape<(typeof METHODS)[M]["request"]>;

/** A response message of method `M`. */
export type ResponseOf<M extends MethodName> = MessageShape<(typeof METHODS)[M]["response"]>;

/** What a response, or a request, of method `M` can be made from. */
export type ResponseInit<M extends MethodName> = MessageInitShape<(typeof METHODS)[M]["response"]>;
export type RequestInit<M extends MethodName> = MessageInitShape<(typeof METHODS)[M]["request"]>;

/** A row with its name. */
export interface Method extends MethodRow {
  readonly name: MethodName;
}

const byNumber = new Map<number, Method>(
  (Object.keys(METHODS) as MethodName[]).map((name) => [METHODS[name].number, { name, ...METHODS[name] }]),
);

/** The method with this number; undefined when there is none. */
export function methodOf(number: number): Method | undefined {
  return byNumber.get(number);
}

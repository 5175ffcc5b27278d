/**
 * What a store holds, as rows that every backend can give and take: AdminStore.exportRows and importRows, and the
 * digest by which two stores are compared. Only what is stored, nothing that follows from it (counters, indexes).
 *
 * Rows come in the order of ROW_KINDS: whatever a row refers to has come before it. Within a kind the order is the
 * one in which things were made, where that has a meaning (devices, KeyPackages, message ids of a device).
 */
import type { AccountId, BlobHash, DeviceId, EntryId, GroupId, MessageId, SessionId } from "../base/ids.ts";
import type { Credential, EntryKind, OpaqueSetup, RecipientStatus, RemoteStatus } from "./store.ts";

/** Kinds of rows in their order. */
export const ROW_KINDS = [
  "store",
  "setup",
  "reservedName",
  "account",
  "block",
  "invitation",
  "device",
  "session",
  "keyPackageRef",
  "keyPackage",
  "lowSupply",
  "queue",
  "peer",
  "outbox",
  "payload",
  "messageId",
  "daily",
  "guard",
  "blobReference",
] as const;

/** Kind of a row. */
export type RowKind = typeof ROW_KINDS[number];

/** One thing that is stored. */
export type StoreRow =
  | {
    readonly kind: "store";
    readonly incarnation: Uint8Array;
    readonly realmId: string;
    readonly mark: number | null;
  }
  | { readonly kind: "setup" } & OpaqueSetup
  /** The name of a deleted account. */
  | { readonly kind: "reservedName"; readonly userName: string; readonly accountId: AccountId }
  | {
    readonly kind: "account";
    readonly accountId: AccountId;
    readonly userName: string;
    readonly credential: Credential;
    readonly accountKey: Uint8Array;
    readonly createdAt: number;
    readonly enabled: boolean;
  }
  | { readonly kind: "block"; readonly accountId: AccountId; readonly blocked: AccountId }
  | {
    readonly kind: "invitation";
    readonly sha256: Uint8Array;
    readonly createdBy: AccountId | null;
    readonly forAccount: AccountId | null;
    readonly expiresAt: number;
  }
  | {
    readonly kind: "device";
    readonly deviceId: DeviceId;
    readonly accountId: AccountId;
    readonly deviceKey: Uint8Array;
    readonly name: string;
    readonly accountSignature: Uint8Array | null;
    readonly createdAt: number;
    readonly lastSeenAt: number;
    readonly revoked: boolean;
  }
  | {
    readonly kind: "session";
    readonly sessionId: SessionId;
    readonly deviceId: DeviceId;
    readonly createdAt: number;
    readonly lastSeenAt: number;
    readonly ended: boolean;
  }
  /** A KeyPackage with this ref was uploaded once, and cannot be again. */
  | { readonly kind: "keyPackageRef"; readonly ref: Uint8Array; readonly notAfter: number }
  /** A KeyPackage that can be given out; its ref is among the others. */
  | {
    readonly kind: "keyPackage";
    readonly deviceId: DeviceId;
    readonly suite: number;
    readonly lastResort: boolean;
    readonly notAfter: number;
    readonly bytes: Uint8Array;
  }
  /** The owner of this supply was told that it is low. */
  | { readonly kind: "lowSupply"; readonly deviceId: DeviceId; readonly suite: number }
  | {
    readonly kind: "queue";
    readonly deviceId: DeviceId;
    readonly ackedThrough: number;
    readonly nextSeq: number;
    readonly droppedThrough: number;
    readonly droppedCount: number;
  }
  /** Another server that the store knows of. */
  | { readonly kind: "peer"; readonly domain: string; readonly blockedAt: number | null }
  /** A message that waits for a peer. */
  | {
    readonly kind: "outbox";
    readonly domain: string;
    readonly senderAccount: AccountId;
    readonly senderDevice: DeviceId;
    readonly messageId: MessageId;
    readonly recipients: number;
    readonly acceptedAt: number;
    readonly expiresAt: number;
    readonly bytes: Uint8Array;
  }
  /** A payload with the entries that still refer to it. */
  | {
    readonly kind: "payload";
    readonly entryKind: EntryKind;
    readonly entryId: EntryId;
    readonly senderAccount: AccountId | null;
    readonly senderDevice: DeviceId | null;
    readonly senderDomain: string | null;
    readonly acceptedAt: number;
    readonly expiresAt: number;
    readonly bytes: Uint8Array;
    readonly entries: readonly { readonly deviceId: DeviceId; readonly seq: number }[];
  }
  | {
    readonly kind: "messageId";
    /** Null when it came from another server. */
    readonly senderAccount: AccountId | null;
    readonly senderDomain: string | null;
    /** Null when the device was forgotten since, or it came from another server. */
    readonly senderDevice: DeviceId | null;
    readonly messageId: MessageId;
    readonly requestSha256: Uint8Array;
    readonly recipients: readonly RecipientStatus[];
    readonly remote: readonly RemoteStatus[];
    readonly acceptedAt: number;
    readonly expiresAt: number;
  }
  | {
    readonly kind: "daily";
    /** Null: a peer's. */
    readonly accountId: AccountId | null;
    readonly domain: string | null;
    readonly day: number;
    readonly sentBytes: number;
    readonly guards: number;
  }
  | {
    readonly kind: "guard";
    readonly groupId: GroupId;
    readonly epoch: number;
    readonly tokenSha256: Uint8Array;
    readonly usedAt: number;
  }
  | {
    readonly kind: "blobReference";
    readonly hash: BlobHash;
    readonly owner: AccountId;
    readonly bytes: number;
    readonly expiresAt: number;
  };

/** The rows of one kind. */
export type RowOf<Kind extends RowKind> = Extract<StoreRow, { readonly kind: Kind }>;

/** Rows of about this size make one batch of an export. */
export const EXPORT_BATCH_BYTES = 512 * 1024;

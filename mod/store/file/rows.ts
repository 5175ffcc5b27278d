/**
 * Every kind of row that the file backend keeps. Keys are hex text where possible. Columns are append-only and a
 * table's number is never reused: this is the format on disk, FORMAT_VERSION in header.ts counts its changes.
 */
import type {
  AccountId,
  BlobHash,
  DeviceId,
  EntryId,
  GroupId,
  MessageId,
  SessionId,
} from "../../base/ids.ts";
import type { EntryKind } from "../store.ts";

/**
 * Who sends, where something is counted for a sender: an account, or `@` and the domain of a server that brings
 * messages of its users.
 */
export type SenderKey = AccountId | `@${string}`;

/** A number or text of the store itself. */
export interface MetaRow {
  readonly name: string;
  readonly number: number | null;
  readonly bytes: Uint8Array | null;
}

/** A user name in use or reserved for ever. */
export interface NameRow {
  readonly userName: string;
  readonly accountId: AccountId;
}

/** An account that was not deleted. */
export interface AccountRow {
  readonly accountId: AccountId;
  readonly userName: string;
  readonly suiteId: number;
  readonly setupId: number;
  readonly record: Uint8Array;
  readonly wrappedAccountKey: Uint8Array;
  readonly accountKey: Uint8Array;
  readonly createdAt: number;
  readonly enabled: boolean;
}

/** One account blocks another. */
export interface BlockRow {
  readonly accountId: AccountId;
  readonly blocked: AccountId;
}

/** An unused invitation. */
export interface InvitationRow {
  readonly sha256: string;
  readonly createdBy: AccountId | null;
  readonly forAccount: AccountId | null;
  readonly expiresAt: number;
}

/** An OPAQUE server setup. */
export interface SetupRow {
  readonly setupId: number;
  readonly suiteId: number;
  readonly secret: Uint8Array;
  readonly createdAt: number;
  readonly retiredAt: number | null;
}

/** A device, also a revoked one. */
export interface DeviceRow {
  readonly deviceId: DeviceId;
  readonly accountId: AccountId;
  readonly deviceKey: Uint8Array;
  readonly name: string;
  readonly accountSignature: Uint8Array | null;
  readonly createdAt: number;
  readonly lastSeenAt: number;
  readonly revoked: boolean;
}

/** A login session, also an ended one. */
export interface SessionRow {
  readonly sessionId: SessionId;
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
  readonly createdAt: number;
  readonly lastSeenAt: number;
  readonly ended: boolean;
}

/** A KeyPackage; without bytes it was claimed, replaced or dropped, and only its ref is remembered. */
export interface KeyPackageRow {
  readonly ref: string;
  readonly deviceId: DeviceId;
  readonly suite: number;
  readonly bytes: Uint8Array | null;
  readonly notAfter: number;
  readonly lastResort: boolean;
}

/** The owner of this supply was told that it runs low. */
export interface LowNoticeRow {
  readonly deviceId: DeviceId;
  readonly suite: number;
}

/** Where a device's queue stands. */
export interface QueueRow {
  readonly deviceId: DeviceId;
  readonly ackedThrough: number;
  readonly nextSeq: number;
  readonly droppedThrough: number;
  readonly droppedCount: number;
}

/** A payload, its origin, and where its bytes are; segment 0: not written yet. Goes with its last entry. */
export interface BodyRow {
  readonly bodyId: number;
  /** A body in an outbox has the message id as its entry id. */
  readonly kind: EntryKind | "outbox";
  readonly entryId: EntryId;
  readonly senderAccount: AccountId | null;
  readonly senderDevice: DeviceId | null;
  readonly acceptedAt: number;
  readonly expiresAt: number;
  readonly segment: number;
  readonly offset: number;
  readonly length: number;
  readonly senderDomain: string | null;
}

/** A body in a queue. */
export interface EntryRow {
  readonly deviceId: DeviceId;
  readonly seq: number;
  readonly bodyId: number;
}

/** The result of an accepted message, for its retries. */
export interface MessageIdRow {
  readonly senderAccount: SenderKey;
  readonly messageId: MessageId;
  /** The sender again, when it is a domain. */
  readonly senderDevice: DeviceId | SenderKey;
  readonly requestSha256: Uint8Array;
  /** One letter for each recipient and remote message. */
  readonly recipients: string;
  readonly acceptedAt: number;
  readonly expiresAt: number;
}

/** What an account or another server has sent and begun in one UTC day. */
export interface DailyRow {
  readonly accountId: SenderKey;
  readonly day: number;
  readonly sentBytes: number;
  readonly guards: number;
}

/** Commit guard of a group. */
export interface GuardRow {
  readonly groupId: GroupId;
  readonly epoch: number;
  readonly tokenSha256: Uint8Array;
  readonly usedAt: number;
}

/** An owner's reference to a blob. */
export interface BlobRow {
  readonly hash: BlobHash;
  readonly owner: AccountId;
  readonly bytes: number;
  readonly expiresAt: number;
}

/** Another server. */
export interface PeerRow {
  readonly domain: string;
  readonly blockedAt: number | null;
}

/** A body in the outbox for a domain; its number is the id of the outbox entry. */
export interface OutboxRow {
  readonly bodyId: number;
  readonly domain: string;
  readonly recipients: number;
}

/** What a client keeps: the tables of its state, by name, and what a row of each holds. */
import type { Bytes } from "../base/bytes.ts";
import type { AccountId, DeviceId, EntryId, GroupId, MessageId, SessionId } from "../base/ids.ts";
import type { KeyPair } from "./account_keys.ts";
import type { FileReference } from "./content.ts";
import type { ServerTrust } from "./identity.ts";
import type { OwnKeyPackage } from "./mls_key_packages.ts";
import type { StoredGroup } from "./mls_state.ts";

/** The server this state belongs to. */
export interface ServerRecord {
  readonly hostname: string;
  readonly port: number;
  /** How it is recognised; null when the public certificate authorities vouch for it. */
  readonly trust: ServerTrust | null;
  /** What it has called itself in Hello; kept when it stops federating, as leaves and contacts go on naming it. */
  readonly domain?: string;
  /** It has a domain, but does not federate now. */
  readonly federationOff?: true;
}

/** The account that is logged in, with its private key. */
export interface AccountRecord {
  readonly accountId: AccountId;
  readonly userName: string;
  readonly key: KeyPair;
  /** The best OPAQUE suite that it was seen with. None: it was ristretto255, before there were others. */
  readonly suiteSeen?: number;
}

/** This device: made before its first login. */
export interface DeviceRecord {
  readonly deviceId: DeviceId;
  readonly key: KeyPair;
  readonly name: string;
}

/** The login session, to be resumed. */
export interface SessionRecord {
  readonly sessionId: SessionId;
}

/** How far the delivery queue was processed. */
export interface CursorRecord {
  /** The store incarnation that `after` counts in: another one makes it void. */
  readonly incarnation: Bytes;
  readonly after: number;
  /** Entries that were lost in the queue, as far as a person was told. */
  readonly droppedCount?: number;
}

/** A KeyPackage whose private keys wait for a Welcome; the key is its ref. */
export interface KeyPackageRecord extends OwnKeyPackage {
  readonly createdMs: number;
}

/** A group, and the MLS state of this device in it. */
export interface GroupRecord {
  readonly id: GroupId;
  readonly name: string;
  readonly mls: StoredGroup;
  readonly status: "active" | "removed";
  readonly joinedMs: number;
  /** With whom, when it is a conversation of two accounts. */
  readonly direct?: AccountId;
  /** A commit was missed: nothing more can be read until another member adds this device again. */
  readonly broken?: boolean;
  /** Number, in the delivery queue, of the last entry of this group. */
  readonly seq: number;
  /** Domain of the server that owns the commit guard, as told by the inviter: for groups that do not name it. */
  readonly hub?: string;
  /** User names of members, to be shown without asking the server. */
  readonly names: Readonly<Record<AccountId, string>>;
}

/** Another account as this one knows it. */
export interface ContactRecord {
  readonly accountId: AccountId;
  readonly userName: string;
  /** Of the account's server; without, it is on this account's own one. */
  readonly domain?: string;
  /** The account key that was pinned: at first sight, or when a change was accepted. */
  readonly accountKey: Bytes;
  readonly firstSeenMs: number;
  /** A person compared the safety number of this key. */
  readonly verified: boolean;
  /** Device keys that the pinned account key has signed. */
  readonly devices?: Readonly<Record<DeviceId, Bytes>>;
  /** The last change of the key; `announced` once a person was told. */
  readonly change?: { readonly formerKey: Bytes; readonly seenMs: number; readonly announced: boolean };
  /** Another key that the server names now: refused until a person trusts it. */
  readonly offered?: { readonly key: Bytes; readonly seenMs: number };
}

/** A request that must reach the server, again with the same message id after a crash. */
export interface OutboxRecord {
  readonly messageId: MessageId;
  /** The encoded EnqueueRequest. */
  readonly request: Bytes;
  readonly createdMs: number;
  readonly groupId?: GroupId;
  /** For a commit: the group to adopt when the server accepts it. */
  readonly commit?: { readonly next: StoredGroup; readonly epoch: bigint };
  /** For recipients whose queue was full: how often it was tried, and when it may be tried again. */
  readonly retry?: { readonly attempts: number; readonly notBeforeMs: number };
}

/** Something that was received and not shown yet; the key is its entry id, the order that of arrival. */
export interface InboxRecord {
  readonly entryId: EntryId;
  /** "" for what belongs to no group. */
  readonly groupId: GroupId;
  /** Number of the entry in the delivery queue. */
  readonly seq: number;
  readonly senderAccountId: AccountId;
  readonly senderDeviceId: DeviceId;
  readonly acceptedMs: number;
  /** The encoded Content (content.proto); empty with a notice. */
  readonly content: Bytes;
  /** What happened, when it is no message. */
  readonly notice?: InboxNotice;
}

/** Something that happened beside messages, to be shown. */
export type InboxNotice =
  | { readonly kind: "joined" }
  | {
    readonly kind: "membersChanged";
    readonly added: readonly AccountId[];
    readonly removed: readonly AccountId[];
  }
  | { readonly kind: "removedFromGroup" }
  | { readonly kind: "leaving" }
  | { readonly kind: "missedCommit" }
  | { readonly kind: "unreadable"; readonly reason: string }
  | { readonly kind: "deviceAdded" | "deviceRevoked"; readonly deviceId: DeviceId }
  | { readonly kind: "accountKeyChanged"; readonly accountId: AccountId }
  /** An own change of the group that waited for the group's hub; another member's came first. */
  | { readonly kind: "changeDropped" }
  | {
    readonly kind: "deliveryFailed";
    readonly messageId: MessageId;
    readonly domain: string;
    readonly devices: readonly DeviceId[];
    readonly reason: DeliveryFailedReason;
  }
  | { readonly kind: "lost"; readonly count: number };

/** Why a message that was accepted for another server did not reach a device there. */
export type DeliveryFailedReason =
  | "expired"
  | "unknownDevice"
  | "queueFull"
  | "blocked"
  | "refused"
  | "peerRemoved";

/** A message for another server: which group it belongs to, should a notice say that it was not delivered. */
export interface RelayedRecord {
  readonly messageId: MessageId;
  readonly groupId: GroupId;
}

/** A message that came before what it builds upon: a commit, or the Welcome to its group. */
export interface EarlyRecord {
  readonly entryId: EntryId;
  readonly groupId: GroupId;
  readonly epoch: number;
  readonly isCommit: boolean;
  readonly seq: number;
  readonly acceptedMs: number;
  readonly receivedMs: number;
  /** The server that vouches for the sender; empty: this account's own one. */
  readonly senderDomain: string;
  readonly payload: Bytes;
}

/**
 * A message of a device that its account's pinned key has not signed: shown when a person trusts the key that
 * has.
 */
export interface HeldRecord {
  /** Signature key that the sender's device has in the group. */
  readonly deviceKey: Bytes;
  readonly row: InboxRecord;
  /** Of the sender's server when it is another one. */
  readonly domain?: string;
}

/** Something that this device has to do in its groups, as soon as it can. */
export interface ChoreRecord {
  /** `nameDomain`: this device's leaf gets the domain that its server has by now. */
  readonly kind: "addDevice" | "removeDevice" | "nameDomain";
  /** In this group only; in all groups without. */
  readonly groupId?: GroupId;
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
  readonly sinceMs: number;
  readonly attempts: number;
}

/** A file that was sent or received, to be fetched by its id. */
export interface FileRecord {
  readonly fileId: string;
  readonly groupId: GroupId;
  readonly senderAccountId: AccountId;
  readonly acceptedMs: number;
  readonly file: FileReference;
}

/** All tables: key and row of each. Tables of one row have the key "". */
export interface Tables {
  server: { key: ""; row: ServerRecord };
  account: { key: ""; row: AccountRecord };
  device: { key: ""; row: DeviceRecord };
  session: { key: ""; row: SessionRecord };
  cursor: { key: ""; row: CursorRecord };
  keyPackages: { key: string; row: KeyPackageRecord };
  groups: { key: GroupId; row: GroupRecord };
  contacts: { key: AccountId; row: ContactRecord };
  outbox: { key: MessageId; row: OutboxRecord };
  inbox: { key: EntryId; row: InboxRecord };
  /** Entries that were processed, oldest first, bounded. */
  seen: { key: EntryId; row: true };
  /** Free for settings of the layers above. */
  settings: { key: string; row: string };
  held: { key: EntryId; row: HeldRecord };
  chores: { key: string; row: ChoreRecord };
  /** The last files, oldest first, bounded. */
  files: { key: string; row: FileRecord };
  /** The last messages for other servers, oldest first, bounded. */
  relayed: { key: MessageId; row: RelayedRecord };
  /** In the order in which they came, bounded. */
  early: { key: EntryId; row: EarlyRecord };
}

/** Name of a table. */
export type TableName = keyof Tables;
/** Key of a row. */
export type KeyOf<Table extends TableName> = Tables[Table]["key"];
/** A row. */
export type RowOf<Table extends TableName> = Tables[Table]["row"];
/** A table that has one row at most. */
export type SingleTable = { [Table in TableName]: KeyOf<Table> extends "" ? Table : never }[TableName];

/** Numbers of the tables on disk; never reused. */
export const TABLE_NUMBERS = {
  server: 1,
  account: 2,
  device: 3,
  session: 4,
  cursor: 5,
  keyPackages: 6,
  groups: 7,
  contacts: 8,
  outbox: 9,
  inbox: 10,
  seen: 11,
  settings: 12,
  held: 13,
  chores: 14,
  files: 15,
  relayed: 16,
  early: 17,
} as const satisfies Record<TableName, number>;

/**
 * Where the MLS bases of groups are kept, apart from their rows so that a message does not write them again.
 */
export const GROUP_BASE_TABLE = 100;

/**
 * What is kept, as verbs. A verb is one transaction named for its intent: atomic, durable before its promise
 * resolves (fsync), and safe to call concurrently, also from several processes on one store. Rules, quotas and
 * time are decided above and passed in; a backend applies them inside the transaction. Expected refusals are
 * values (`status`), never exceptions. Verbs reject with QpqError `storeFull` (no space; nothing was changed)
 * or `storeUnavailable` (anything else that keeps the store from working).
 *
 * Crash: a verb whose promise did not resolve is there completely or not at all.
 * Times are Unix milliseconds, sizes bytes, sequence numbers begin at 1.
 */
import type { AdminStore } from "./admin_store.ts";
import type { AccountId, BlobHash, DeviceId, EntryId, GroupId, MessageId, SessionId } from "../base/ids.ts";

// --- accounts ---------------------------------------------------------------------------------------------

/** What OPAQUE needs to know of an account (RFC 9807). */
export interface Credential {
  readonly suiteId: number;
  /** The server setup the record was made under. */
  readonly setupId: number;
  /** Registration record (192 bytes for ristretto255). */
  readonly record: Uint8Array;
  /** The private account key under OPAQUE's export key; opaque here. */
  readonly wrappedAccountKey: Uint8Array;
}

/** A person on this server. */
export interface Account {
  readonly accountId: AccountId;
  /** Normalised, unique for ever. */
  readonly userName: string;
  readonly credential: Credential;
  /** Ed25519 public key (32 bytes) that signs the account's devices. */
  readonly accountKey: Uint8Array;
  readonly createdAt: number;
  readonly enabled: boolean;
}

/** A registration to be stored. */
export interface NewAccount {
  readonly accountId: AccountId;
  readonly userName: string;
  readonly credential: Credential;
  readonly accountKey: Uint8Array;
  /** SHA-256 of the invitation that admits it; null when the access token did. */
  readonly invitationSha256: Uint8Array | null;
  readonly now: number;
}

/** Accounts, their credentials, whom they block, and invitations. */
export interface AccountStore {
  /**
   * Stores a new account and uses up the invitation. An invitation that was made for an account (`accountId`,
   * a reset) instead gives that account the new credential and key, and drops its devices with all they have.
   * `accountId` in the result is the account's. `nameTaken` also for names of deleted accounts.
   */
  createAccount(
    account: NewAccount,
  ): Promise<
    { status: "created"; accountId: AccountId } | { status: "nameTaken" } | { status: "invitationInvalid" }
  >;
  /** The account with this normalised name; null when there is none or it was deleted. */
  findAccountByName(userName: string): Promise<Account | null>;
  /** The account; null when there is none or it was deleted. */
  findAccount(accountId: AccountId): Promise<Account | null>;
  /**
   * Replaces the credential and ends every session of the account but `keepSession`; none with `all`. False: no such
   * account.
   */
  changeCredential(
    change: { accountId: AccountId; credential: Credential; keepSession: SessionId | "all" | null },
  ): Promise<boolean>;
  /**
   * Deletes the account with its devices, queues, KeyPackages, sessions, blocks and blob references; the name
   * stays reserved. Returns the devices it had, and the blobs whose last reference went.
   */
  deleteAccount(
    accountId: AccountId,
    now: number,
  ): Promise<{ devices: DeviceId[]; orphanedBlobs: BlobHash[] } | null>;
  /** Disabling ends all sessions, keeps everything else. False: no such account. */
  setAccountEnabled(accountId: AccountId, enabled: boolean): Promise<boolean>;
  /** `blocked` can enqueue nothing more to `accountId`'s devices. Idempotent; false when the list has `max`. */
  block(accountId: AccountId, blocked: AccountId, max: number): Promise<boolean>;
  /** Undoes {@link block}. Idempotent. */
  unblock(accountId: AccountId, blocked: AccountId): Promise<void>;
  /** Whom the account blocks. */
  listBlocks(accountId: AccountId): Promise<AccountId[]>;
  /** Stores an invitation; false when `createdBy` has `maxOpen` unused, unexpired ones already. */
  createInvitation(invitation: {
    sha256: Uint8Array;
    createdBy: AccountId | null;
    /** For a reset: the account that may be registered again. */
    forAccount: AccountId | null;
    expiresAt: number;
    maxOpen: number;
    now: number;
  }): Promise<boolean>;
  /** Is there such an invitation, unused and unexpired? Changes nothing. */
  hasInvitation(sha256: Uint8Array, now: number): Promise<boolean>;
}

// --- devices and sessions ---------------------------------------------------------------------------------

/** A device of an account. */
export interface Device {
  readonly deviceId: DeviceId;
  readonly accountId: AccountId;
  /** Ed25519 public key (32 bytes) of the device's MLS credential. */
  readonly deviceKey: Uint8Array;
  readonly name: string;
  /** By the account key; null until signDevice. */
  readonly accountSignature: Uint8Array | null;
  readonly createdAt: number;
  readonly lastSeenAt: number;
}

/** A login to be stored. */
export interface NewSession {
  readonly sessionId: SessionId;
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
  readonly deviceKey: Uint8Array;
  readonly deviceName: string;
  readonly devicesMax: number;
  /** Put into the queues of the account's other devices when this device is new. */
  readonly deviceAddedNotice: ServerNotice;
  readonly now: number;
}

/** Sessions of a device that are kept after their end; see {@link SessionStore.createSession}. */
export const ENDED_SESSIONS_KEPT = 4;

/** What a Resume needs to judge. The last sessions of a device are kept after their end, as long as it is known. */
export interface SessionState {
  readonly sessionId: SessionId;
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
  readonly deviceKey: Uint8Array;
  readonly createdAt: number;
  readonly lastSeenAt: number;
  /** Logged out, password changed, or expired by expireSessions. */
  readonly ended: boolean;
  readonly deviceRevoked: boolean;
  readonly deviceSigned: boolean;
  readonly accountEnabled: boolean;
}

/** Devices and their login sessions. */
export interface SessionStore {
  /**
   * Stores the session, and the device when it is new (with an empty queue); a known device keeps its key and
   * signature, takes the new name, and its older sessions end: {@link ENDED_SESSIONS_KEPT} of them are kept, those
   * made last, and the others forgotten. Refuses `tooManyDevices` beyond devicesMax, and
   * `deviceConflict` when the id belongs to another account or key, or was revoked.
   */
  createSession(
    session: NewSession,
  ): Promise<
    | { status: "created"; newDevice: boolean; deviceSigned: boolean }
    | { status: "tooManyDevices" | "deviceConflict" | "noAccount" }
  >;
  /** The session with its device and account; null when it never was or its device is forgotten. */
  findSession(sessionId: SessionId): Promise<SessionState | null>;
  /** Marks session and device as seen. */
  touchSession(sessionId: SessionId, now: number): Promise<void>;
  /** Logs out. Idempotent. */
  endSession(sessionId: SessionId): Promise<void>;
  /** Ends sessions idle since `idleBefore` or created before `createdBefore`, at most `limit`; returns how many. */
  expireSessions(idleBefore: number, createdBefore: number, limit: number): Promise<number>;

  /** The account's devices that are not revoked, oldest first. */
  listDevices(accountId: AccountId): Promise<Device[]>;
  /** Sets the account key's signature over the device. False: no such device of that account. */
  signDevice(accountId: AccountId, deviceId: DeviceId, signature: Uint8Array): Promise<boolean>;
  /**
   * Revokes the device: queue, KeyPackages and sessions go, id and key stay so that it can be told. `notice`
   * goes to the account's other devices. False: no such device of that account.
   */
  revokeDevice(accountId: AccountId, deviceId: DeviceId, notice: ServerNotice, now: number): Promise<boolean>;
  /** Forgets devices not seen since `idleBefore`, with all they have, at most `limit`. */
  expireDevices(idleBefore: number, limit: number): Promise<DeviceId[]>;
}

// --- KeyPackages ------------------------------------------------------------------------------------------

/** A validated KeyPackage. */
export interface NewKeyPackage {
  /** KeyPackageRef (RFC 9420 §5.2). */
  readonly ref: Uint8Array;
  readonly suite: number;
  readonly bytes: Uint8Array;
  readonly notAfter: number;
  readonly lastResort: boolean;
}

/** Supply of one device in one suite. */
export interface KeyPackageCount {
  readonly suite: number;
  /** Without the last-resort one. */
  readonly count: number;
  /** End of the last-resort package's lifetime; null when there is none. */
  readonly lastResortNotAfter: number | null;
}

/** One claimed package. */
export interface ClaimedKeyPackage {
  readonly deviceId: DeviceId;
  readonly bytes: Uint8Array;
  readonly lastResort: boolean;
}

/** KeyPackages by (device, suite). */
export interface KeyPackageStore {
  /**
   * Stores packages whose ref this store has not seen (claimed ones stay seen until their notAfter); a
   * last-resort one replaces the former. All or nothing: `full` when a (device, suite) would hold more than
   * `perSuiteMax` beside the last resort.
   */
  uploadKeyPackages(upload: {
    deviceId: DeviceId;
    packages: readonly NewKeyPackage[];
    perSuiteMax: number;
    now: number;
  }): Promise<
    { status: "stored"; stored: boolean[]; counts: KeyPackageCount[] } | { status: "full" | "noDevice" }
  >;
  /** Supply of a device, without expired ones. */
  countKeyPackages(deviceId: DeviceId, now: number): Promise<KeyPackageCount[]>;
  /**
   * Takes one package of `suite` for each device of the account (each of `devices` when given) that is signed
   * and not revoked. A taken package is gone: never given out again, even when the answer is lost. Without a
   * supply, or with `lastResortOnly`, the last-resort package answers and stays. When a device's supply falls
   * below `lowBelow`, `lowNotice(suite, count)` of it is put into its queue, once until the supply is refilled.
   */
  claimKeyPackages(claim: {
    accountId: AccountId;
    suite: number;
    devices: readonly DeviceId[] | null;
    lastResortOnly: boolean;
    lowBelow: number;
    lowNotice: ServerNotice;
    now: number;
  }): Promise<ClaimedKeyPackage[]>;
  /** Deletes packages and seen refs past their notAfter, at most `limit`; returns how many. */
  expireKeyPackages(now: number, limit: number): Promise<number>;
}

// --- delivery queues --------------------------------------------------------------------------------------

/** What an entry is. */
export type EntryKind = "message" | "notice";

/** An entry made by the server itself. Counts like any other, but passes over full queues and blocks. */
export interface ServerNotice {
  readonly entryId: EntryId;
  readonly payload: Uint8Array;
  readonly expiresAt: number;
}

/** Where a queue stands; in every reply about it. */
export interface Cursor {
  readonly ackedThrough: number;
  /** The number that the next entry will get. */
  readonly nextSeq: number;
  /** Something was lost at or below this number: expired, or refused because the queue was full. 0: never. */
  readonly droppedThrough: number;
  readonly droppedCount: number;
}

/** One message in one queue. */
export interface Entry {
  readonly seq: number;
  readonly kind: EntryKind;
  readonly entryId: EntryId;
  /** Null for notices. */
  readonly senderAccount: AccountId | null;
  readonly senderDevice: DeviceId | null;
  /** The server that vouches for the sender; null: this one. */
  readonly senderDomain: string | null;
  readonly payload: Uint8Array;
  readonly acceptedAt: number;
  readonly expiresAt: number;
}

/** A payload and the devices that get it. */
export interface EnqueuePart {
  readonly payload: Uint8Array;
  readonly recipients: readonly DeviceId[];
}

/** A message for devices of another server, as it will be sent there. */
export interface RemoteMessage {
  readonly domain: string;
  /** Opaque here. */
  readonly body: Uint8Array;
  /** Devices that it is for. */
  readonly recipients: number;
}

/** What proves that a commit comes from a member of the epoch it leaves. */
export interface CommitGuard {
  readonly groupId: GroupId;
  /** The epoch being left. */
  readonly epoch: number;
  /** SHA-256 of the token of that epoch. */
  readonly tokenSha256: Uint8Array;
  readonly nextTokenSha256: Uint8Array;
}

/** Bounds that an enqueue is held to. */
export interface EnqueueLimits {
  /** Entries in one queue. */
  readonly queueDepthMax: number;
  /** Logical payload bytes in one queue. */
  readonly queueBytesMax: number;
  /** A sender other than the queue's own account may hold at most this share of either (0.25). */
  readonly senderShare: number;
  /** Bytes × recipients that an account (or an origin) may send in a UTC day. */
  readonly senderBytesPerDay: number;
  /** How long, and for how many messages of a device (or an origin), an id is remembered. */
  readonly idempotencyMs: number;
  readonly idempotencyCountMax: number;
  /** Guarded groups that one account (or an origin) may begin in a UTC day. */
  readonly guardsPerDay: number;
  /** Messages in the outbox for one domain. */
  readonly outboxDepthMax: number;
  /** Bytes of their bodies. */
  readonly outboxBytesMax: number;
}

/** A message to be accepted. */
export interface NewMessage {
  /**
   * The domain of the server that vouches for the sender; null: a device of this server. The ids of a sender from
   * elsewhere could be made up by its server, so everything that is counted for a sender is counted for the origin.
   */
  readonly origin: string | null;
  readonly senderAccount: AccountId;
  readonly senderDevice: DeviceId;
  readonly messageId: MessageId;
  /** SHA-256 over what makes the request the same request. */
  readonly requestSha256: Uint8Array;
  readonly entryId: EntryId;
  readonly parts: readonly EnqueuePart[];
  /** What goes into the outbox, each domain once. */
  readonly remote: readonly RemoteMessage[];
  readonly expiresAt: number;
  /** Groups for which a payload is a commit, by its MLS header; each must be the guard's if it is guarded. */
  readonly commitsTo: readonly GroupId[];
  readonly guard: CommitGuard | null;
  /** Messages of the same account or origin that it must not overtake: it is accepted only if all are remembered. */
  readonly behind: readonly MessageId[];
  readonly limits: EnqueueLimits;
  readonly now: number;
}

/** What became of one recipient. */
export type RecipientStatus = "ok" | "unknownDevice" | "queueFull" | "blocked";

/** What became of a {@link RemoteMessage}: it is in the outbox, or that was full. */
export type RemoteStatus = "relaying" | "queueFull";

/** The result of an accepted enqueue; a replay returns the first one. */
export interface Accepted {
  readonly status: "accepted";
  readonly replayed: boolean;
  /** In the order of parts and their recipients. */
  readonly recipients: readonly RecipientStatus[];
  /** In the order of the message's `remote`. */
  readonly remote: readonly RemoteStatus[];
  readonly acceptedAt: number;
  readonly expiresAt: number;
}

/** All entries that one transaction put into a queue, in order, and where the queue stood after it. */
export interface FreshEntries {
  readonly entries: Entry[];
  readonly cursor: Cursor;
}

/**
 * Told of a transaction that put entries into queues. `fresh` gives what came for one of the devices, without
 * reading the store: null when it does not have it at hand. To be asked during the call only.
 */
export type EnqueuedListener = (
  devices: readonly DeviceId[],
  fresh: (deviceId: DeviceId) => FreshEntries | null,
) => void;

/** Delivery queues, one a device; the payloads in them; message ids; commit guards. */
export interface QueueStore {
  /**
   * Accepts a message: every payload is stored once, each recipient gets an entry with its queue's next
   * number, each remote message goes into its domain's outbox. In this order: a remembered (origin or senderAccount,
   * messageId) with the same request gives the first result, with another `idConflict`; a commit to a guarded group without its guard is `guardRequired`; a
   * guard whose epoch or token is not the group's is `wrongEpoch` (the first guard of a group sets it, at most
   * guardsPerDay for each account or origin: `guardLimit`); a message of `behind` that is not remembered makes it
   * `heldBack`; a used-up quota is `quotaExceeded`. Otherwise it is accepted, moves the guard to epoch + 1, and one recipient's failure fails neither the others nor the commit: a full queue (`queueFull`)
   * counts the message as dropped in that queue's cursor; a full outbox drops that domain's message. A device named twice gets one entry for each part.
   */
  enqueue(message: NewMessage): Promise<
    | Accepted
    | { status: "idConflict" | "guardRequired" | "guardLimit" | "heldBack" }
    | { status: "wrongEpoch"; currentEpoch: number }
    | { status: "quotaExceeded"; retryAfterMs: number }
  >;
  /**
   * Entries with numbers above `after`, unexpired, in order, as many as fit into entriesMax and bytesMax but at
   * least one. Deletes nothing. `more`: another entry waits behind them. Null: no such device.
   */
  fetchAfter(fetch: {
    deviceId: DeviceId;
    after: number;
    entriesMax: number;
    bytesMax: number;
    now: number;
  }): Promise<{ entries: Entry[]; more: boolean; cursor: Cursor } | null>;
  /** Deletes the device's entries up to `through`; a payload goes with its last entry. Idempotent. */
  ack(
    deviceId: DeviceId,
    through: number,
  ): Promise<{ status: "acked"; deleted: number; cursor: Cursor } | { status: "beyondEnd" | "noDevice" }>;
  /** Where the queue stands. Null: no such device. */
  cursor(deviceId: DeviceId): Promise<Cursor | null>;
  /** Deletes expired entries, at most `limit`; they count as dropped. Returns how many. */
  expireEntries(now: number, limit: number): Promise<number>;
  /**
   * Forgets message ids accepted before `before` (of origins: before `remoteBefore`, the same unless given) and daily
   * sums of other days, at most `limit`.
   */
  expireMessageIds(before: number, limit: number, options?: { remoteBefore: number }): Promise<number>;
  /** Forgets guards not used since `before`, at most `limit`. */
  expireGuards(before: number, limit: number): Promise<number>;
  /**
   * Calls `listener` after every transaction that put entries into queues, with their devices. This is what
   * wakes parked waits, whichever process wrote. Returns a function that ends it.
   */
  onEnqueued(listener: EnqueuedListener): () => void;
}

// --- other servers ----------------------------------------------------------------------------------------

/** What waits for one domain. */
export interface OutboxSums {
  readonly domain: string;
  /** Messages; above 0. */
  readonly depth: number;
  /** Of their bodies. */
  readonly bytes: number;
  readonly oldestAcceptedAt: number;
}

/** A message that waits for another server. */
export interface OutboxEntry {
  /** Rises in the order of acceptance, and is not used again while the store is open. */
  readonly id: number;
  readonly body: Uint8Array;
  readonly senderAccount: AccountId;
  readonly senderDevice: DeviceId;
  readonly messageId: MessageId;
  readonly recipients: number;
  readonly acceptedAt: number;
  readonly expiresAt: number;
}

/** Told, after a transaction that put messages into outboxes, for which domains. */
export type RelayingListener = (domains: readonly string[]) => void;

/**
 * The outboxes, one a domain, and which domains the operator has blocked. Messages come into an outbox with
 * {@link QueueStore.enqueue} only, and leave it with {@link PeerStore.settleOutbox} only: not by themselves when they
 * expire, nor with the account or device that sent them, nor in a restore.
 */
export interface PeerStore {
  /** Outboxes that hold anything, in order of their domains. */
  outboxes(): Promise<OutboxSums[]>;
  /**
   * What waits for a domain behind the id `after` (0: from the first), in order of acceptance, as many as fit into
   * entriesMax and bytesMax but at least one. Deletes nothing; expired ones are among them.
   */
  outboxAfter(
    after: { domain: string; after: number; entriesMax: number; bytesMax: number },
  ): Promise<OutboxEntry[]>;
  /**
   * Deletes messages that have been delivered or given up. `failures` go into the queue of the device that sent it,
   * past every bound; nowhere when that is gone. One transaction. Idempotent: an id that is no longer there, or is
   * another domain's, is passed over, with its notice.
   */
  settleOutbox(settle: {
    domain: string;
    settled: readonly { readonly id: number; readonly failures: readonly ServerNotice[] }[];
    now: number;
  }): Promise<void>;
  /** Calls `listener` after every transaction that put messages into outboxes. Returns a function that ends it. */
  onRelaying(listener: RelayingListener): () => void;
  /** Remembers that the operator blocks a domain, or no longer. Stops nothing by itself. Idempotent. */
  setPeerBlocked(domain: string, blocked: boolean, now: number): Promise<void>;
  /** Domains that are blocked, in order. */
  blockedPeers(): Promise<string[]>;
}

// --- blobs ------------------------------------------------------------------------------------------------

/** Owner of copies of other servers' blobs: no account has this id. */
export const BLOB_CACHE_OWNER = "0".repeat(32) as AccountId;

/** References to blobs. The bytes are files (blob_files.ts); a file may be removed when no reference is left. */
export interface BlobStore {
  /**
   * Adds the reference of an account or of {@link BLOB_CACHE_OWNER}, or extends its expiry. Call it when the bytes are on disk, or, with
   * `dryRun`, before to learn whether they may come.
   */
  putBlobReference(reference: {
    hash: BlobHash;
    owner: AccountId;
    bytes: number;
    expiresAt: number;
    /** Bytes that an owner may reference. */
    quotaBytes: number;
    dryRun: boolean;
    now: number;
  }): Promise<{ status: "ok"; known: boolean } | { status: "quotaExceeded" }>;
  /** Size of a blob with an unexpired reference; null when there is none. */
  findBlob(hash: BlobHash, now: number): Promise<{ bytes: number } | null>;
  /** Removes the owner's reference. `orphaned`: it was the last. Null: not the owner's. */
  deleteBlobReference(hash: BlobHash, owner: AccountId): Promise<{ orphaned: boolean } | null>;
  /** Removes expired references, at most `limit`; returns the blobs left without one. */
  expireBlobs(now: number, limit: number): Promise<BlobHash[]>;
  /** Which of these have no reference at all. */
  unreferencedBlobs(hashes: readonly BlobHash[]): Promise<BlobHash[]>;
}

// --- the server's own -------------------------------------------------------------------------------------

/** One OPAQUE server setup. */
export interface OpaqueSetup {
  readonly setupId: number;
  readonly suiteId: number;
  /** `oprf_seed ‖ sk ‖ dummy_pk`; secret. */
  readonly secret: Uint8Array;
  readonly createdAt: number;
  readonly retiredAt: number | null;
}

/** Numbers kept inside the transactions: each costs the same however much is stored. */
export interface StoreCounts {
  readonly accounts: number;
  readonly devices: number;
  readonly queueEntries: number;
  /** Logical payload bytes in all queues. */
  readonly queueBytes: number;
  readonly keyPackages: number;
  readonly blobs: number;
  readonly blobBytes: number;
  /** Messages in all outboxes. */
  readonly outboxEntries: number;
  /** Bytes of their bodies. */
  readonly outboxBytes: number;
}

/** Identity of the store, server setups, health. */
export interface ServerStore {
  /** 16 bytes made with the store; markRestored makes new ones. */
  readonly incarnation: Uint8Array;
  /** Realm id of OPAQUE (identifiers.server), made with the store. */
  readonly realmId: string;
  /** All setups, oldest first. */
  opaqueSetups(): Promise<OpaqueSetup[]>;
  /** Adds `setup` if the store has none yet; returns all, with whether it was added. */
  initOpaqueSetup(
    setup: Omit<OpaqueSetup, "setupId" | "retiredAt">,
  ): Promise<{ setups: OpaqueSetup[]; added: boolean }>;
  /** Numbers for gauges. */
  counts(): Promise<StoreCounts>;
  /** Bytes on disk of the database or journal, without blobs. */
  diskBytes(): Promise<number>;
  /** Writes a mark (the wall clock) durably: rejects when the store cannot be written. Returns the former mark. */
  writeMark(now: number): Promise<number | null>;
  /** Finishes what was accepted, closes the files and releases the folder. Idempotent. */
  close(): Promise<void>;
}

/** All of it. */
export interface Store
  extends
    AccountStore,
    SessionStore,
    KeyPackageStore,
    QueueStore,
    PeerStore,
    BlobStore,
    ServerStore,
    AdminStore,
    AsyncDisposable {
  /** `sqlcipher` or `file`. */
  readonly backend: string;
}

/** Why a store cannot be opened. */
export type StoreOpenProblem =
  | "keyMissing"
  | "wrongKey"
  | "damaged"
  | "newerSchema"
  | "inUse"
  | "readOnly"
  | "diskFull"
  | "failed";

/** The store cannot be opened; nothing was changed. The message names the file and the remedy. */
export class StoreOpenError extends Error {
  override name = "StoreOpenError";
  readonly problem: StoreOpenProblem;
  readonly path: string;

  constructor(problem: StoreOpenProblem, path: string, message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.problem = problem;
    this.path = path;
  }
}

/** What every backend's open function takes. */
export interface OpenOptions {
  /** The data folder; it exists. */
  readonly dataDir: string;
  /**
   * Keys that may open the store, the wanted one first: 64 hex digits are the raw key, anything else is a
   * passphrase; "" opens an unencrypted store. A new store gets the first. A store that only opens with a later
   * one is opened and stays under that key.
   */
  readonly keys: readonly string[];
  /** Refuse (`keyMissing` is decided above) instead of making a new store when there is none. */
  readonly mustExist?: boolean;
  /** Told of each transaction: how many verbs were in it, and how long it took, fsync included. */
  readonly onBatch?: (verbs: number, seconds: number) => void;
}

/**
 * What operators do to a store, beside what clients make it do. The same promises as store.ts: a verb is atomic
 * and durable when it resolves, refusals are values, a crash leaves the old state or the new one. Long verbs tell
 * their progress (0 to 1) and leave the store usable meanwhile unless they say otherwise.
 */
import type { AccountId, BlobHash, DeviceId } from "../base/ids.ts";
import type { OpaqueSetup } from "./store.ts";

/** Told now and then, rising from 0 to 1. Must not throw. */
export type OnProgress = (share: number) => void;

/** An account as a list shows it. */
export interface AccountSummary {
  readonly accountId: AccountId;
  readonly userName: string;
  readonly createdAt: number;
  readonly enabled: boolean;
  readonly devices: number;
  /** Entries waiting in its devices' queues. */
  readonly queueEntries: number;
  /** Of its devices, the latest; null when it has none. */
  readonly lastSeenAt: number | null;
  readonly setupId: number;
}

/** A delivery queue as a list shows it. */
export interface QueueSummary {
  readonly deviceId: DeviceId;
  readonly accountId: AccountId;
  readonly userName: string;
  readonly entries: number;
  readonly bytes: number;
  readonly oldestAcceptedAt: number | null;
}

/** A consistent copy of the store without blobs. */
export interface Snapshot {
  /** Files that were written, relative to the target folder. */
  readonly files: readonly string[];
  readonly schemaVersion: number;
  /** Rows by kind, for the manifest and its verification. */
  readonly counts: Readonly<Record<string, number>>;
}

/** Administration of a store. */
export interface AdminStore {
  /** Number of the newest migration that the store has. */
  readonly schemaVersion: number;
  /** Accounts in order of their names, those above `afterName`. */
  listAccounts(page: { afterName: string; limit: number }): Promise<AccountSummary[]>;
  /** How many accounts have a record under each setup; every setup is listed. */
  accountsBySetup(): Promise<{ setupId: number; accounts: number }[]>;
  /** Adds a setup; new records are made under the newest. */
  addOpaqueSetup(setup: Omit<OpaqueSetup, "setupId" | "retiredAt">): Promise<OpaqueSetup>;
  /**
   * Retires a setup: its records work no more. Refused (`inUse`, with up to `namesMax` of the accounts that would
   * be locked out) while there are any, unless `force`. The newest setup cannot be retired (`newest`).
   */
  retireOpaqueSetup(retire: { setupId: number; force: boolean; namesMax: number; now: number }): Promise<
    | { status: "retired"; lockedOut: number; names: string[] }
    | { status: "inUse"; accounts: number; names: string[] }
    | { status: "newest" | "unknown" }
  >;
  /** The fullest queues, most entries first. */
  topQueues(limit: number): Promise<QueueSummary[]>;
  /** Deletes all entries of a queue; they count as dropped. Null: no such device. */
  purgeQueue(deviceId: DeviceId): Promise<number | null>;
  /** Blobs with a reference, in order of their hashes, those above `after`. */
  listBlobs(page: { after: BlobHash | null; limit: number }): Promise<{ hash: BlobHash; bytes: number }[]>;
  /**
   * Writes a consistent copy, under the same key, into `folder` (which exists and is empty). Readers and writers go
   * on meanwhile.
   */
  snapshotTo(folder: string, onProgress: OnProgress): Promise<Snapshot>;
  /**
   * Encrypts the store anew under `key`: into a new file, which is verified, then swapped. Writes wait until it is
   * done; the old file is kept beside the new one as `oldPath` until the caller removes it.
   */
  rekey(key: string, onProgress: OnProgress): Promise<{ oldPath: string; bytes: number }>;
  /** Everything that is wrong with the store, in words; empty when it is sound. Reads all of it. */
  checkIntegrity(onProgress: OnProgress): Promise<string[]>;
  /**
   * After a restore: a new incarnation; KeyPackages (last resort too), sessions, guards and message ids go, in one
   * transaction.
   */
  markRestored(): Promise<void>;
}

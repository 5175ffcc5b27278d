/**
 * What operators do to a store, beside what clients make it do. The same promises as store.ts: a verb is atomic
 * and durable when it resolves, refusals are values, a crash leaves the old state or the new one. Long verbs tell
 * their progress (0 to 1) and leave the store usable meanwhile unless they say otherwise.
 */
import type { AccountId, BlobHash, DeviceId } from "../base/ids.ts";
import type { OpaqueSetup, StoreCounts } from "./store.ts";
import type { StoreRow } from "./store_rows.ts";

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

/** A device that is not revoked, as a list shows it, with what waits in its queue. */
export interface DeviceSummary {
  readonly deviceId: DeviceId;
  readonly accountId: AccountId;
  readonly userName: string;
  readonly name: string;
  /** The account key has signed it. */
  readonly signed: boolean;
  readonly createdAt: number;
  readonly lastSeenAt: number;
  readonly entries: number;
  readonly bytes: number;
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
  /** What counts() of the copy tells, for the manifest and its verification. */
  readonly counts: StoreCounts;
}

/** Another long verb is under way, or the store is being closed: nothing was begun. Try again later. */
export class StoreBusyError extends Error {
  override name = "StoreBusyError";
}

/**
 * Administration of a store. snapshotTo, rekey and checkIntegrity are long: only one of them runs at a time, another
 * is refused with {@link StoreBusyError}, and close() ends it as a crash would, with nothing lost. When they fail
 * (`storeFull`: no space for the copy or the new file; `storeUnavailable`) what they had made is removed and the
 * store is as it was.
 */
export interface AdminStore {
  /** Number of the newest migration that the store has. */
  readonly schemaVersion: number;
  /** Accounts in order of their names, those above `afterName`. */
  listAccounts(page: { afterName: string; limit: number }): Promise<AccountSummary[]>;
  /**
   * How many accounts have a record under each setup, by setup id; every setup is listed, with 0 too. Kept in the
   * transactions: costs the same however many accounts there are.
   */
  accountsBySetup(): Promise<{ setupId: number; accounts: number }[]>;
  /** Adds a setup with the next setup id; new records are made under the newest. */
  addOpaqueSetup(setup: Omit<OpaqueSetup, "setupId" | "retiredAt">): Promise<OpaqueSetup>;
  /**
   * Retires a setup: its records work no more. Refused (`inUse`, with up to `namesMax` of the accounts that would
   * be locked out) while there are any, unless `force`. The newest setup cannot be retired (`newest`). A setup that
   * is retired already stays as it is. Names are in order.
   */
  retireOpaqueSetup(retire: { setupId: number; force: boolean; namesMax: number; now: number }): Promise<
    | { status: "retired"; lockedOut: number; names: string[] }
    | { status: "inUse"; accounts: number; names: string[] }
    | { status: "newest" | "unknown" }
  >;
  /** Devices whose id begins with `prefix` (hex digits), in order of their ids, without revoked ones. */
  findDevices(find: { prefix: string; limit: number }): Promise<DeviceSummary[]>;
  /** The fullest queues that hold anything, most entries first. Looks at every queue. */
  topQueues(limit: number): Promise<QueueSummary[]>;
  /** Deletes all entries of a queue and returns how many; they count as dropped. Null: no such device. */
  purgeQueue(deviceId: DeviceId): Promise<number | null>;
  /** Blobs with a reference, in order of their hashes, those above `after`. */
  listBlobs(page: { after: BlobHash | null; limit: number }): Promise<{ hash: BlobHash; bytes: number }[]>;
  /**
   * Writes a consistent copy, under the same key, into `folder` (which exists and is empty): the store of one moment
   * after the call, everything acknowledged before it included. Readers and writers go on meanwhile. The folder is
   * then the store's part of a data folder: openStore({ backend, dataDir: folder, keys }) opens the copy. Everything
   * in it is on disk when this resolves.
   */
  snapshotTo(folder: string, onProgress: OnProgress): Promise<Snapshot>;
  /**
   * Encrypts the store anew under `key` (text as in OpenOptions.keys; "" removes the encryption): into a new file,
   * which is read back and checked, then swapped. Writes wait until it is done, reads go on. The store of before is
   * kept as `oldPath` (a file, or for the file backend a folder) until the caller removes it; `bytes` is the new
   * one's size. A crash leaves a store that opens with the old key or with the new one: pass both in OpenOptions.keys
   * until this has resolved. What it leaves beside is removed at the next open, apart from {@link oldStores}.
   */
  rekey(key: string, onProgress: OnProgress): Promise<{ oldPath: string; bytes: number }>;
  /** Paths of stores that rekey has kept, oldest first: each still holds everything under its old key. */
  oldStores(): Promise<string[]>;
  /**
   * Everything that is wrong with the store, in words; empty when it is sound. Reads all of it. The SQLCipher backend
   * checks a copy that it makes in the data folder meanwhile, so that writers need not wait.
   */
  checkIntegrity(onProgress: OnProgress): Promise<string[]>;
  /**
   * After a restore: a new incarnation, which it returns and which `incarnation` then is; KeyPackages (last resort
   * too), sessions, guards and message ids go, in one transaction. Refs of KeyPackages stay known: none comes back.
   */
  markRestored(): Promise<Uint8Array>;
  /**
   * Everything that is stored, in batches and in the order that {@link importRows} wants, alike in every backend.
   * Nothing may write meanwhile.
   */
  exportRows(): AsyncIterable<StoreRow[]>;
  /**
   * Stores rows as they are, a batch as one transaction. Only for a new store that nobody uses: the first row is the
   * `store` one, which is refused when there is anything already. The identity is the imported one after reopening.
   */
  importRows(rows: readonly StoreRow[]): Promise<void>;
}

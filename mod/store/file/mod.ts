/**
 * The `file` backend: everything in memory but the payloads, and on disk an append-only journal with snapshots
 * (`<data folder>/journal/`), encrypted under the DB key. Here the verbs are wired to their rules: rows and rules are
 * in accounts.ts, sessions.ts, keypackages.ts, queues.ts and blobs.ts, group commit in committer.ts, the files in
 * journal.ts, opening in recovery.ts, snapshots in compaction.ts.
 */
import { copy, hex } from "../../base/bytes.ts";
import { messageOf, QpqError } from "../../base/errors.ts";
import type { AccountId, DeviceId } from "../../base/ids.ts";
import { logger } from "../../base/log.ts";
import {
  type AccountStore,
  type BlobStore,
  type Entry,
  type KeyPackageStore,
  type OpaqueSetup,
  type OpenOptions,
  type QueueStore,
  type ServerStore,
  type SessionStore,
  type Store,
  type StoreCounts,
  StoreOpenError,
} from "../store.ts";
import * as accounts from "./accounts.ts";
import * as blobs from "./blobs.ts";
import { Committer } from "./committer.ts";
import { Compaction } from "./compaction.ts";
import { type Disk, isDiskFull, isReadOnly, realDisk } from "./disk.ts";
import type { Journal } from "./journal.ts";
import * as keyPackages from "./keypackages.ts";
import * as queues from "./queues.ts";
import { JOURNAL_FOLDER, openJournal } from "./recovery.ts";
import { findMark, findSetups, initSetup, putMark } from "./server_rows.ts";
import * as sessions from "./sessions.ts";
import type { State } from "./state.ts";

export { JOURNAL_FOLDER } from "./recovery.ts";

const log = logger("store");

/** What tests change. */
export interface FileStoreTuning {
  readonly disk: Disk;
  /** Size of the active segment at which compaction begins. */
  readonly segmentBytes: number;
  /** Entries in all queues together: each takes memory. */
  readonly queueEntriesMax: number;
}

const TUNING: FileStoreTuning = {
  disk: realDisk,
  segmentBytes: 64 * 2 ** 20,
  queueEntriesMax: 100_000,
};

/** Opens the store in `options.dataDir`, or makes it; throws StoreOpenError. The caller holds the folder's lock. */
export async function openFileStore(
  options: OpenOptions,
  tuning: Partial<FileStoreTuning> = {},
): Promise<FileStore> {
  const { disk, segmentBytes, queueEntriesMax } = { ...TUNING, ...tuning };
  const folder = `${options.dataDir}/${JOURNAL_FOLDER}`;
  try {
    const { state, journal } = await openJournal(options, disk, { queueEntriesMax });
    const store = new FileStore(state, journal, segmentBytes);
    await store.tidy();
    return store;
  } catch (error) {
    if (error instanceof StoreOpenError) throw error;
    throw cannotOpen(folder, error);
  }
}

function cannotOpen(folder: string, cause: unknown): StoreOpenError {
  if (isDiskFull(cause)) {
    return new StoreOpenError(
      "diskFull",
      folder,
      `Cannot open ${folder} as the disk is full: free some space`,
      {
        cause,
      },
    );
  }
  if (isReadOnly(cause)) {
    const message = `Cannot write in ${folder}: give it to the server's user and mount it writable ` +
      `(${messageOf(cause)})`;
    return new StoreOpenError("readOnly", folder, message, { cause });
  }
  return new StoreOpenError("failed", folder, `Cannot open ${folder}: ${messageOf(cause)}`, { cause });
}

function toEntry({ seq, body }: queues.FoundEntry, payload: Uint8Array): Entry {
  const { kind, entryId, senderAccount, senderDevice, acceptedAt, expiresAt } = body;
  return { seq, kind, entryId, senderAccount, senderDevice, payload, acceptedAt, expiresAt };
}

/** An open store. */
export class FileStore implements Store {
  readonly backend = "file";
  readonly incarnation: Uint8Array;
  readonly realmId: string;
  readonly #state: State;
  readonly #journal: Journal;
  readonly #committer: Committer;
  readonly #compaction: Compaction;
  readonly #listeners = new Set<(devices: readonly DeviceId[]) => void>();
  /** Fetches that are still reading payloads. */
  readonly #fetches = new Set<Promise<unknown>>();
  #closed: Promise<void> | undefined;

  /** Use {@link openFileStore}. */
  constructor(state: State, journal: Journal, segmentBytes: number) {
    this.#state = state;
    this.#journal = journal;
    this.incarnation = copy(state.meta.get("incarnation")!.bytes!);
    this.realmId = hex(state.meta.get("realmId")!.bytes!);
    this.#committer = new Committer(state, journal, (devices) => this.#committed(devices));
    this.#compaction = new Compaction({ state, journal, committer: this.#committer, segmentBytes });
  }

  #run<Result>(verb: (state: State) => Result): Promise<Result> {
    if (this.#closed) {
      return Promise.reject(new QpqError("storeUnavailable", "Cannot use a store that is closed"));
    }
    return this.#committer.run(() => verb(this.#state));
  }

  #committed(devices: readonly DeviceId[]): void {
    this.#compaction.check();
    if (devices.length === 0) return;
    for (const listener of this.#listeners) {
      try {
        listener(devices);
      } catch (error) {
        log.error("a listener of onEnqueued failed: {error}", { error: messageOf(error) });
      }
    }
  }

  createAccount: AccountStore["createAccount"] = (account) =>
    this.#run((state) => accounts.createAccount(state, account));
  findAccountByName: AccountStore["findAccountByName"] = (userName) =>
    this.#run((state) => accounts.findAccountByName(state, userName));
  findAccount: AccountStore["findAccount"] = (accountId) =>
    this.#run((state) => accounts.findAccount(state, accountId));
  changeCredential: AccountStore["changeCredential"] = (change) =>
    this.#run((state) => accounts.changeCredential(state, change));
  deleteAccount: AccountStore["deleteAccount"] = (accountId) =>
    this.#run((state) => accounts.deleteAccount(state, accountId));
  setAccountEnabled: AccountStore["setAccountEnabled"] = (accountId, enabled) =>
    this.#run((state) => accounts.setAccountEnabled(state, accountId, enabled));
  block: AccountStore["block"] = (accountId, blocked, max) =>
    this.#run((state) => accounts.block(state, { accountId, blocked }, max));
  unblock: AccountStore["unblock"] = (accountId, blocked) =>
    this.#run((state) => accounts.unblock(state, { accountId, blocked }));
  listBlocks: AccountStore["listBlocks"] = (accountId) =>
    this.#run((state): AccountId[] => [...state.accountIndex.blockedBy(accountId)]);
  createInvitation: AccountStore["createInvitation"] = (invitation) =>
    this.#run((state) => accounts.createInvitation(state, invitation));
  hasInvitation: AccountStore["hasInvitation"] = (sha256, now) =>
    this.#run((state) => accounts.hasInvitation(state, sha256, now));

  createSession: SessionStore["createSession"] = (session) =>
    this.#run((state) => sessions.createSession(state, session));
  findSession: SessionStore["findSession"] = (sessionId) =>
    this.#run((state) => sessions.findSession(state, sessionId));
  touchSession: SessionStore["touchSession"] = (sessionId, now) =>
    this.#run((state) => sessions.touchSession(state, sessionId, now));
  endSession: SessionStore["endSession"] = (sessionId) =>
    this.#run((state) => sessions.endSession(state, sessionId));
  expireSessions: SessionStore["expireSessions"] = (idleBefore, createdBefore, limit) =>
    this.#run((state) => sessions.expireSessions(state, { idleBefore, createdBefore, limit }));
  listDevices: SessionStore["listDevices"] = (accountId) =>
    this.#run((state) => sessions.listDevices(state, accountId));
  signDevice: SessionStore["signDevice"] = (accountId, deviceId, signature) =>
    this.#run((state) => sessions.signDevice(state, { accountId, deviceId }, signature));
  revokeDevice: SessionStore["revokeDevice"] = (accountId, deviceId, notice, now) =>
    this.#run((state) => sessions.revokeDevice(state, { accountId, deviceId }, { notice, now }));
  expireDevices: SessionStore["expireDevices"] = (idleBefore, limit) =>
    this.#run((state) => sessions.expireDevices(state, idleBefore, limit));

  uploadKeyPackages: KeyPackageStore["uploadKeyPackages"] = (upload) =>
    this.#run((state) => keyPackages.uploadKeyPackages(state, upload));
  countKeyPackages: KeyPackageStore["countKeyPackages"] = (deviceId, now) =>
    this.#run((state) => keyPackages.countKeyPackages(state, deviceId, now));
  claimKeyPackages: KeyPackageStore["claimKeyPackages"] = (claim) =>
    this.#run((state) => keyPackages.claimKeyPackages(state, claim));
  expireKeyPackages: KeyPackageStore["expireKeyPackages"] = (now, limit) =>
    this.#run((state) => keyPackages.expireKeyPackages(state, now, limit));

  enqueue: QueueStore["enqueue"] = (message) => this.#run((state) => queues.enqueue(state, message));

  fetchAfter: QueueStore["fetchAfter"] = async (fetch) => {
    const first = this.#run((state) => queues.findEntries(state, fetch));
    const answer = this.#readFound(fetch, first);
    this.#fetches.add(answer);
    try {
      return await answer;
    } finally {
      this.#fetches.delete(answer);
    }
  };

  /** Adds the payloads; when one was moved between finding and reading it, the entries are looked for again. */
  async #readFound(
    fetch: Parameters<QueueStore["fetchAfter"]>[0],
    first: Promise<ReturnType<typeof queues.findEntries>>,
  ): ReturnType<QueueStore["fetchAfter"]> {
    for (let found = await first; found; found = await this.#findAgain(fetch)) {
      const { entries, more, cursor } = found;
      const payloads = await this.#journal.readPayloads(entries.map(({ body }) => body));
      if (!payloads) continue;
      return { entries: entries.map((entry, index) => toEntry(entry, payloads[index]!)), more, cursor };
    }
    return null;
  }

  #findAgain(fetch: Parameters<QueueStore["fetchAfter"]>[0]) {
    return this.#committer.run(() => queues.findEntries(this.#state, fetch));
  }

  ack: QueueStore["ack"] = (deviceId, through) => this.#run((state) => queues.ack(state, deviceId, through));
  cursor: QueueStore["cursor"] = (deviceId) => this.#run((state) => queues.cursorOf(state, deviceId));
  expireEntries: QueueStore["expireEntries"] = (now, limit) =>
    this.#run((state) => queues.expireEntries(state, now, limit));
  expireMessageIds: QueueStore["expireMessageIds"] = (before, limit) =>
    this.#run((state) => queues.expireMessageIds(state, before, limit));
  expireGuards: QueueStore["expireGuards"] = (before, limit) =>
    this.#run((state) => queues.expireGuards(state, before, limit));

  onEnqueued: QueueStore["onEnqueued"] = (listener) => {
    const own = (devices: readonly DeviceId[]) => listener(devices);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  };

  putBlobReference: BlobStore["putBlobReference"] = (reference) =>
    this.#run((state) => blobs.putBlobReference(state, reference));
  findBlob: BlobStore["findBlob"] = (hash, now) => this.#run((state) => blobs.findBlob(state, hash, now));
  deleteBlobReference: BlobStore["deleteBlobReference"] = (hash, owner) =>
    this.#run((state) => blobs.deleteBlobReference(state, hash, owner));
  expireBlobs: BlobStore["expireBlobs"] = (now, limit) =>
    this.#run((state) => blobs.expireBlobs(state, now, limit));
  unreferencedBlobs: BlobStore["unreferencedBlobs"] = (hashes) =>
    this.#run((state) => blobs.unreferencedBlobs(state, hashes));

  opaqueSetups: ServerStore["opaqueSetups"] = () => this.#run((state): OpaqueSetup[] => findSetups(state));
  initOpaqueSetup: ServerStore["initOpaqueSetup"] = (setup) => this.#run((state) => initSetup(state, setup));
  writeMark: ServerStore["writeMark"] = (now) =>
    this.#run((state) => {
      const former = findMark(state);
      putMark(state, now);
      return former;
    });

  counts(): Promise<StoreCounts> {
    return this.#run((state) => ({
      accounts: state.accounts.accounts.size,
      devices: state.sessionIndex.deviceCount,
      queueEntries: state.queues.entries.size,
      queueBytes: state.queueIndex.queueBytes,
      keyPackages: state.keyPackageIndex.packageCount,
      blobs: state.blobIndex.blobCount,
      blobBytes: state.blobIndex.blobBytes,
    }));
  }

  diskBytes(): Promise<number> {
    return this.#run(() => this.#journal.diskBytes);
  }

  /** Writes a snapshot and deletes what it makes superfluous, now. Resolves whatever came of it. */
  compact(): Promise<void> {
    return this.#compaction.start();
  }

  /** Deletes what a crash has left of files; a failure is logged, as nothing depends on it. */
  async tidy(): Promise<void> {
    try {
      await this.#compaction.dropUnneeded();
    } catch (error) {
      log.warn("cannot delete old files of the journal: {error}", { error: messageOf(error) });
    }
  }

  close(): Promise<void> {
    this.#closed ??= (async () => {
      await this.#compaction.stop();
      await this.#committer.idle();
      await Promise.allSettled(this.#fetches);
      await this.#committer.idle();
      await this.#journal.close();
    })();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

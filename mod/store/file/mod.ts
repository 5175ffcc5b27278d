/**
 * The `file` backend: everything in memory but the payloads, and on disk an append-only journal with snapshots
 * (`<data folder>/journal/`), encrypted under the DB key. Here the verbs are wired to their rules: rows and rules are
 * in accounts.ts, sessions.ts, keypackages.ts, queues.ts and blobs.ts, group commit in committer.ts, the files in
 * journal.ts, opening in recovery.ts, snapshots in compaction.ts.
 */
import { join } from "node:path";
import { copy, hex } from "../../base/bytes.ts";
import { messageOf, QpqError } from "../../base/errors.ts";
import type { DeviceId } from "../../base/ids.ts";
import { logger } from "../../base/log.ts";
import {
  type AccountStore,
  type BlobStore,
  type Entry,
  type KeyPackageStore,
  type OpenOptions,
  type QueueStore,
  type ServerStore,
  type SessionStore,
  type Store,
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
import { countAll, findSetups, initSetup, writeMark } from "./server_rows.ts";
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
  const folder = join(options.dataDir, JOURNAL_FOLDER);
  try {
    const { state, journal } = await openJournal(options, disk, { queueEntriesMax });
    const store = new FileStore(state, journal, { segmentBytes, onBatch: options.onBatch });
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

/** A copy of plain data that shares no buffer with it. */
function deepCopy<Data>(data: Data): Data {
  if (data instanceof Uint8Array) return copy(data) as Data;
  if (Array.isArray(data)) return data.map(deepCopy) as Data;
  if (typeof data !== "object" || data === null) return data;
  return Object.fromEntries(Object.entries(data).map(([name, value]) => [name, deepCopy(value)])) as Data;
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
  constructor(
    state: State,
    journal: Journal,
    options: { segmentBytes: number; onBatch: OpenOptions["onBatch"] | undefined },
  ) {
    const { segmentBytes, onBatch = () => {} } = options;
    this.#state = state;
    this.#journal = journal;
    this.incarnation = copy(state.meta.get("incarnation")!.bytes!);
    this.realmId = hex(state.meta.get("realmId")!.bytes!);
    this.#committer = new Committer(state, journal, {
      onCommitted: (devices) => this.#committed(devices),
      onBatch,
    });
    this.#compaction = new Compaction({ state, journal, committer: this.#committer, segmentBytes });
  }

  /** Queues a verb with copies of its arguments: the caller may use its buffers again at once. */
  #run<Args extends unknown[], Result>(
    verb: (state: State, ...args: Args) => Result,
    ...args: Args
  ): Promise<Result> {
    if (this.#closed) {
      return Promise.reject(new QpqError("storeUnavailable", "Cannot use a store that is closed"));
    }
    const owned = deepCopy(args);
    return this.#committer.run(() => verb(this.#state, ...owned));
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

  createAccount: AccountStore["createAccount"] = (account) => this.#run(accounts.createAccount, account);
  findAccountByName: AccountStore["findAccountByName"] = (userName) =>
    this.#run(accounts.findAccountByName, userName);
  findAccount: AccountStore["findAccount"] = (accountId) => this.#run(accounts.findAccount, accountId);
  changeCredential: AccountStore["changeCredential"] = (change) =>
    this.#run(accounts.changeCredential, change);
  deleteAccount: AccountStore["deleteAccount"] = (accountId) => this.#run(accounts.deleteAccount, accountId);
  setAccountEnabled: AccountStore["setAccountEnabled"] = (accountId, enabled) =>
    this.#run(accounts.setAccountEnabled, accountId, enabled);
  block: AccountStore["block"] = (accountId, blocked, max) =>
    this.#run(accounts.block, { accountId, blocked }, max);
  unblock: AccountStore["unblock"] = (accountId, blocked) =>
    this.#run(accounts.unblock, { accountId, blocked });
  listBlocks: AccountStore["listBlocks"] = (accountId) => this.#run(accounts.listBlocks, accountId);
  createInvitation: AccountStore["createInvitation"] = (invitation) =>
    this.#run(accounts.createInvitation, invitation);
  hasInvitation: AccountStore["hasInvitation"] = (sha256, now) =>
    this.#run(accounts.hasInvitation, sha256, now);

  createSession: SessionStore["createSession"] = (session) => this.#run(sessions.createSession, session);
  findSession: SessionStore["findSession"] = (sessionId) => this.#run(sessions.findSession, sessionId);
  touchSession: SessionStore["touchSession"] = (sessionId, now) =>
    this.#run(sessions.touchSession, sessionId, now);
  endSession: SessionStore["endSession"] = (sessionId) => this.#run(sessions.endSession, sessionId);
  expireSessions: SessionStore["expireSessions"] = (idleBefore, createdBefore, limit) =>
    this.#run(sessions.expireSessions, { idleBefore, createdBefore, limit });
  listDevices: SessionStore["listDevices"] = (accountId) => this.#run(sessions.listDevices, accountId);
  signDevice: SessionStore["signDevice"] = (accountId, deviceId, signature) =>
    this.#run(sessions.signDevice, { accountId, deviceId }, signature);
  revokeDevice: SessionStore["revokeDevice"] = (accountId, deviceId, notice, now) =>
    this.#run(sessions.revokeDevice, { accountId, deviceId }, { notice, now });
  expireDevices: SessionStore["expireDevices"] = (idleBefore, limit) =>
    this.#run(sessions.expireDevices, idleBefore, limit);

  uploadKeyPackages: KeyPackageStore["uploadKeyPackages"] = (upload) =>
    this.#run(keyPackages.uploadKeyPackages, upload);
  countKeyPackages: KeyPackageStore["countKeyPackages"] = (deviceId, now) =>
    this.#run(keyPackages.countKeyPackages, deviceId, now);
  claimKeyPackages: KeyPackageStore["claimKeyPackages"] = (claim) =>
    this.#run(keyPackages.claimKeyPackages, claim);
  expireKeyPackages: KeyPackageStore["expireKeyPackages"] = (now, limit) =>
    this.#run(keyPackages.expireKeyPackages, now, limit);

  enqueue: QueueStore["enqueue"] = (message) => this.#run(queues.enqueue, message);

  fetchAfter: QueueStore["fetchAfter"] = async (fetch) => {
    const first = this.#run(queues.findEntries, fetch);
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

  ack: QueueStore["ack"] = (deviceId, through) => this.#run(queues.ack, deviceId, through);
  cursor: QueueStore["cursor"] = (deviceId) => this.#run(queues.cursorOf, deviceId);
  expireEntries: QueueStore["expireEntries"] = (now, limit) => this.#run(queues.expireEntries, now, limit);
  expireMessageIds: QueueStore["expireMessageIds"] = (before, limit) =>
    this.#run(queues.expireMessageIds, before, limit);
  expireGuards: QueueStore["expireGuards"] = (before, limit) => this.#run(queues.expireGuards, before, limit);

  onEnqueued: QueueStore["onEnqueued"] = (listener) => {
    const own = (devices: readonly DeviceId[]) => listener(devices);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  };

  putBlobReference: BlobStore["putBlobReference"] = (reference) =>
    this.#run(blobs.putBlobReference, reference);
  findBlob: BlobStore["findBlob"] = (hash, now) => this.#run(blobs.findBlob, hash, now);
  deleteBlobReference: BlobStore["deleteBlobReference"] = (hash, owner) =>
    this.#run(blobs.deleteBlobReference, hash, owner);
  expireBlobs: BlobStore["expireBlobs"] = (now, limit) => this.#run(blobs.expireBlobs, now, limit);
  unreferencedBlobs: BlobStore["unreferencedBlobs"] = (hashes) => this.#run(blobs.unreferencedBlobs, hashes);

  opaqueSetups: ServerStore["opaqueSetups"] = () => this.#run(findSetups);
  initOpaqueSetup: ServerStore["initOpaqueSetup"] = (setup) => this.#run(initSetup, setup);
  writeMark: ServerStore["writeMark"] = (now) => this.#run(writeMark, now);
  counts: ServerStore["counts"] = () => this.#run(countAll);

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

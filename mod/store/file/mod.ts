/**
 * The `file` backend: everything in memory but the payloads, and on disk an append-only journal with snapshots
 * (`<data folder>/journal/`), encrypted under the DB key. Here the verbs are wired to their rules: rows and rules are
 * in accounts.ts, sessions.ts, keypackages.ts, queues.ts and blobs.ts, group commit in committer.ts, the files in
 * journal.ts, opening in recovery.ts, snapshots in compaction.ts.
 */
import { dirname, join } from "node:path";
import { copy, hex } from "../../base/bytes.ts";
import { messageOf, QpqError } from "../../base/errors.ts";
import type { DeviceId } from "../../base/ids.ts";
import { logger } from "../../base/log.ts";
import type { AdminStore } from "../admin_store.ts";
import { Maintenance } from "../maintenance.ts";
import { EXPORT_BATCH_BYTES, type StoreRow } from "../store_rows.ts";
import {
  type AccountStore,
  type BlobStore,
  type KeyPackageStore,
  type OpenOptions,
  type PeerStore,
  type QueueStore,
  type RelayingListener,
  type ServerStore,
  type SessionStore,
  type Store,
  StoreOpenError,
} from "../store.ts";
import { findOldStores, settleSwap } from "../swap.ts";
import * as accounts from "./accounts.ts";
import * as admin from "./admin.ts";
import * as blobs from "./blobs.ts";
import { Committer } from "./committer.ts";
import { Compaction } from "./compaction.ts";
import { watchOf } from "./copy.ts";
import { cannotOpen } from "./cannot_open.ts";
import { type Disk, realDisk } from "./disk.ts";
import { type FoundRow, importRows, walkState } from "./export.ts";
import { FORMAT_VERSION } from "./header.ts";
import { checkIntegrity } from "./integrity.ts";
import type { Journal } from "./journal.ts";
import * as keyPackages from "./keypackages.ts";
import { deepCopy, tell } from "./copies.ts";
import * as outbox from "./outbox.ts";
import * as queues from "./queues.ts";
import { JOURNAL_FOLDER, openJournal } from "./recovery.ts";
import { rekeyJournal } from "./rekey.ts";
import { countAll, findSetups, initSetup, writeMark } from "./server_rows.ts";
import * as sessions from "./sessions.ts";
import { snapshotTo, type StoreParts } from "./snapshot.ts";
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
    await settleSwap(options.dataDir, JOURNAL_FOLDER);
    const { state, journal } = await openJournal(options, disk, { queueEntriesMax });
    const store = new FileStore(state, journal, { segmentBytes, onBatch: options.onBatch });
    await store.tidy();
    return store;
  } catch (error) {
    if (error instanceof StoreOpenError) throw error;
    throw cannotOpen(folder, error);
  }
}

/** An open store. */
export class FileStore implements Store {
  readonly backend = "file";
  readonly schemaVersion = FORMAT_VERSION;
  readonly #state: State;
  readonly #journal: Journal;
  readonly #committer: Committer;
  readonly #compaction: Compaction;
  readonly #maintenance = new Maintenance();
  /** The files are being encrypted anew: writes wait, and the state is what is on disk. */
  #rekeying = false;
  readonly #listeners = new Set<(devices: readonly DeviceId[]) => void>();
  readonly #relayingListeners = new Set<RelayingListener>();
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
    this.#committer = new Committer(state, journal, {
      onCommitted: (devices, relaying) => this.#committed(devices, relaying),
      onBatch,
    });
    this.#compaction = new Compaction({ state, journal, committer: this.#committer, segmentBytes });
  }

  get incarnation(): Uint8Array {
    return copy(this.#state.meta.get("incarnation")!.bytes!);
  }

  get realmId(): string {
    return hex(this.#state.meta.get("realmId")!.bytes!);
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

  /** {@link FileStore.#run} for verbs that change nothing: these need not wait for a change of key. */
  #look<Args extends unknown[], Result>(
    verb: (state: State, ...args: Args) => Result,
    ...args: Args
  ): Promise<Result> {
    if (!this.#rekeying || this.#closed) return this.#run(verb, ...args);
    const owned = deepCopy(args);
    return Promise.resolve().then(() => verb(this.#state, ...owned));
  }

  #committed(devices: readonly DeviceId[], relaying: readonly string[]): void {
    this.#compaction.check();
    if (devices.length > 0) tell(this.#listeners, devices);
    if (relaying.length > 0) tell(this.#relayingListeners, relaying);
  }

  createAccount: AccountStore["createAccount"] = (account) => this.#run(accounts.createAccount, account);
  findAccountByName: AccountStore["findAccountByName"] = (userName) =>
    this.#look(accounts.findAccountByName, userName);
  findAccount: AccountStore["findAccount"] = (accountId) => this.#look(accounts.findAccount, accountId);
  changeCredential: AccountStore["changeCredential"] = (change) =>
    this.#run(accounts.changeCredential, change);
  deleteAccount: AccountStore["deleteAccount"] = (accountId) => this.#run(accounts.deleteAccount, accountId);
  setAccountEnabled: AccountStore["setAccountEnabled"] = (accountId, enabled) =>
    this.#run(accounts.setAccountEnabled, accountId, enabled);
  block: AccountStore["block"] = (accountId, blocked, max) =>
    this.#run(accounts.block, { accountId, blocked }, max);
  unblock: AccountStore["unblock"] = (accountId, blocked) =>
    this.#run(accounts.unblock, { accountId, blocked });
  listBlocks: AccountStore["listBlocks"] = (accountId) => this.#look(accounts.listBlocks, accountId);
  createInvitation: AccountStore["createInvitation"] = (invitation) =>
    this.#run(accounts.createInvitation, invitation);
  hasInvitation: AccountStore["hasInvitation"] = (sha256, now) =>
    this.#look(accounts.hasInvitation, sha256, now);

  createSession: SessionStore["createSession"] = (session) => this.#run(sessions.createSession, session);
  findSession: SessionStore["findSession"] = (sessionId) => this.#look(sessions.findSession, sessionId);
  touchSession: SessionStore["touchSession"] = (sessionId, now) =>
    this.#run(sessions.touchSession, sessionId, now);
  endSession: SessionStore["endSession"] = (sessionId) => this.#run(sessions.endSession, sessionId);
  expireSessions: SessionStore["expireSessions"] = (idleBefore, createdBefore, limit) =>
    this.#run(sessions.expireSessions, { idleBefore, createdBefore, limit });
  listDevices: SessionStore["listDevices"] = (accountId) => this.#look(sessions.listDevices, accountId);
  signDevice: SessionStore["signDevice"] = (accountId, deviceId, signature) =>
    this.#run(sessions.signDevice, { accountId, deviceId }, signature);
  revokeDevice: SessionStore["revokeDevice"] = (accountId, deviceId, notice, now) =>
    this.#run(sessions.revokeDevice, { accountId, deviceId }, { notice, now });
  expireDevices: SessionStore["expireDevices"] = (idleBefore, limit) =>
    this.#run(sessions.expireDevices, idleBefore, limit);

  uploadKeyPackages: KeyPackageStore["uploadKeyPackages"] = (upload) =>
    this.#run(keyPackages.uploadKeyPackages, upload);
  countKeyPackages: KeyPackageStore["countKeyPackages"] = (deviceId, now) =>
    this.#look(keyPackages.countKeyPackages, deviceId, now);
  claimKeyPackages: KeyPackageStore["claimKeyPackages"] = (claim) =>
    this.#run(keyPackages.claimKeyPackages, claim);
  expireKeyPackages: KeyPackageStore["expireKeyPackages"] = (now, limit) =>
    this.#run(keyPackages.expireKeyPackages, now, limit);

  enqueue: QueueStore["enqueue"] = (message) => this.#run(queues.enqueue, message);

  fetchAfter: QueueStore["fetchAfter"] = async (fetch) => {
    const first = this.#look(queues.findEntries, fetch);
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
      return {
        entries: entries.map((entry, index) => queues.toEntry(entry, payloads[index]!)),
        more,
        cursor,
      };
    }
    return null;
  }

  #findAgain(fetch: Parameters<QueueStore["fetchAfter"]>[0]) {
    if (this.#rekeying) return Promise.resolve(queues.findEntries(this.#state, fetch));
    return this.#committer.run(() => queues.findEntries(this.#state, fetch));
  }

  ack: QueueStore["ack"] = (deviceId, through) => this.#run(queues.ack, deviceId, through);
  cursor: QueueStore["cursor"] = (deviceId) => this.#look(queues.cursorOf, deviceId);
  expireEntries: QueueStore["expireEntries"] = (now, limit) => this.#run(queues.expireEntries, now, limit);
  expireMessageIds: QueueStore["expireMessageIds"] = (before, limit, options) =>
    this.#run(queues.expireMessageIds, { before, remoteBefore: options?.remoteBefore ?? before }, limit);
  expireGuards: QueueStore["expireGuards"] = (before, limit) => this.#run(queues.expireGuards, before, limit);

  onEnqueued: QueueStore["onEnqueued"] = (listener) => {
    const own = (devices: readonly DeviceId[]) => listener(devices, () => null);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  };

  outboxes: PeerStore["outboxes"] = () => this.#look(outbox.outboxes);
  settleOutbox: PeerStore["settleOutbox"] = (settle) => this.#run(outbox.settleOutbox, settle);
  setPeerBlocked: PeerStore["setPeerBlocked"] = (domain, blocked, now) =>
    this.#run(outbox.setPeerBlocked, { domain, blocked }, now);
  blockedPeers: PeerStore["blockedPeers"] = () => this.#look(outbox.blockedPeers);

  outboxAfter: PeerStore["outboxAfter"] = async (after) => {
    const answer = this.#readOutbox(after);
    this.#fetches.add(answer);
    try {
      return await answer;
    } finally {
      this.#fetches.delete(answer);
    }
  };

  /** As {@link FileStore.#readFound}. */
  async #readOutbox(after: Parameters<PeerStore["outboxAfter"]>[0]): ReturnType<PeerStore["outboxAfter"]> {
    while (true) {
      const found = await this.#look(outbox.findOutboxEntries, after);
      const bodies = await this.#journal.readPayloads(found.map(({ body }) => body));
      if (bodies) return found.map((entry, index) => outbox.toOutboxEntry(entry, bodies[index]!));
    }
  }

  onRelaying: PeerStore["onRelaying"] = (listener) => {
    const own: RelayingListener = (domains) => listener(domains);
    this.#relayingListeners.add(own);
    return () => void this.#relayingListeners.delete(own);
  };

  putBlobReference: BlobStore["putBlobReference"] = (reference) =>
    this.#run(blobs.putBlobReference, reference);
  findBlob: BlobStore["findBlob"] = (hash, now) => this.#look(blobs.findBlob, hash, now);
  deleteBlobReference: BlobStore["deleteBlobReference"] = (hash, owner) =>
    this.#run(blobs.deleteBlobReference, hash, owner);
  expireBlobs: BlobStore["expireBlobs"] = (now, limit) => this.#run(blobs.expireBlobs, now, limit);
  unreferencedBlobs: BlobStore["unreferencedBlobs"] = (hashes) => this.#look(blobs.unreferencedBlobs, hashes);

  opaqueSetups: ServerStore["opaqueSetups"] = () => this.#look(findSetups);
  initOpaqueSetup: ServerStore["initOpaqueSetup"] = (setup) => this.#run(initSetup, setup);
  writeMark: ServerStore["writeMark"] = (now) => this.#run(writeMark, now);
  counts: ServerStore["counts"] = () => this.#look(countAll);

  diskBytes(): Promise<number> {
    return this.#look(() => this.#journal.diskBytes);
  }

  listAccounts: AdminStore["listAccounts"] = (page) => this.#look(admin.listAccounts, page);
  accountsBySetup: AdminStore["accountsBySetup"] = () => this.#look(admin.accountsBySetup);
  addOpaqueSetup: AdminStore["addOpaqueSetup"] = (setup) => this.#run(admin.addOpaqueSetup, setup);
  retireOpaqueSetup: AdminStore["retireOpaqueSetup"] = (retire) => this.#run(admin.retireOpaqueSetup, retire);
  findDevices: AdminStore["findDevices"] = (find) => this.#look(admin.findDevices, find);
  topQueues: AdminStore["topQueues"] = (limit) => this.#look(admin.topQueues, limit);
  purgeQueue: AdminStore["purgeQueue"] = (deviceId) => this.#run(queues.purgeQueue, deviceId);
  listBlobs: AdminStore["listBlobs"] = (page) => this.#look(admin.listBlobs, page);
  markRestored: AdminStore["markRestored"] = () => this.#run(admin.markRestored);
  importRows: AdminStore["importRows"] = (rows) => this.#run(importRows, rows);

  get #parts(): StoreParts {
    return {
      state: this.#state,
      journal: this.#journal,
      committer: this.#committer,
      compaction: this.#compaction,
    };
  }

  snapshotTo: AdminStore["snapshotTo"] = (folder, onProgress) =>
    this.#maintenance.run({ name: "a snapshot", onProgress }, (signal) => {
      return snapshotTo(this.#parts, folder, watchOf(signal, onProgress));
    });

  checkIntegrity: AdminStore["checkIntegrity"] = (onProgress) =>
    this.#maintenance.run({ name: "an integrity check", onProgress }, (signal) => {
      return checkIntegrity(this.#parts, watchOf(signal, onProgress));
    });

  rekey: AdminStore["rekey"] = (key, onProgress) =>
    this.#maintenance.run({ name: "a change of key", onProgress }, (signal) => {
      const rekey = () => rekeyJournal(this.#parts, key, watchOf(signal, onProgress));
      return this.#compaction.paused(() =>
        this.#committer.alone(async () => {
          this.#rekeying = true;
          try {
            return await rekey();
          } finally {
            this.#rekeying = false;
          }
        })
      );
    });

  oldStores(): Promise<string[]> {
    return findOldStores(dirname(this.#journal.files.folder), JOURNAL_FOLDER);
  }

  async *exportRows(): AsyncGenerator<StoreRow[]> {
    const walk = walkState(this.#state);
    for (let batch: FoundRow[] = [], bytes = 0;;) {
      const { value, done } = walk.next();
      if (!done) {
        batch.push(value);
        bytes += 200 + (value.body?.length ?? 0);
        if (bytes < EXPORT_BATCH_BYTES) continue;
      }
      yield await this.#withPayloads(batch);
      if (done) return;
      [batch, bytes] = [[], 0];
    }
  }

  async #withPayloads(found: readonly FoundRow[]): Promise<StoreRow[]> {
    const payloads = await this.#journal.readPayloads(found.flatMap(({ body }) => body ? [body] : []));
    if (!payloads) throw new QpqError("storeUnavailable", "Cannot export a store that is being written");
    let next = 0;
    return found.map(({ row, body }) => body ? { ...row, bytes: payloads[next++]! } : deepCopy(row));
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
      await this.#maintenance.stop();
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

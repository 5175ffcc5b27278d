/** All verbs of the store inside the worker, by name; synchronous, on one connection, in whatever transaction is open. */
import { Accounts } from "./accounts.ts";
import { Admin } from "./admin.ts";
import { Blobs } from "./blobs.ts";
import type { Connection } from "./connection.ts";
import type { GenerationSize } from "./deferred.ts";
import { Devices } from "./devices.ts";
import { exportPage } from "./export_rows.ts";
import { Importer } from "./import_rows.ts";
import { KeyPackages } from "./key_packages.ts";
import { Ledger } from "./ledger.ts";
import { Outbox } from "./outbox.ts";
import { type IncomingMessage, Queues } from "./queues.ts";
import { ServerState } from "./server_state.ts";
import type { InnerStore, VerbName } from "./verb_names.ts";

type Arguments<Name extends VerbName> = Name extends "enqueue" ? [IncomingMessage]
  : Parameters<InnerStore[Name]>;

/** Each verb as a function that returns at once. */
export type Verbs = {
  readonly [Name in VerbName]: (...args: Arguments<Name>) => Awaited<ReturnType<InnerStore[Name]>>;
};

/** The verbs on a connection, with what they keep in memory. */
export interface VerbSet {
  readonly verbs: Verbs;
  readonly ledger: Ledger;
  readonly server: ServerState;
  /** To be called before a transaction is committed: see Payloads. */
  readonly sweepWhenDue: () => void;
}

/** Prepares every statement there is; `size` is that of deferred.ts unless a test says otherwise. */
export function prepareVerbs(connection: Connection, size?: GenerationSize): VerbSet {
  const ledger = new Ledger(connection, size);
  const outbox = new Outbox(connection, ledger);
  const queues = new Queues(connection, { ledger, outbox });
  const devices = new Devices(connection, { ledger, queues });
  const keyPackages = new KeyPackages(connection, { ledger, queues });
  const blobs = new Blobs(connection, ledger);
  const accounts = new Accounts(connection, { ledger, devices, blobs });
  const server = new ServerState(connection, ledger);
  const admin = new Admin(connection, ledger);
  const importer = new Importer(connection, ledger);
  const verbs: Verbs = {
    createAccount: (account) => accounts.createAccount(account),
    findAccountByName: (userName) => accounts.findAccountByName(userName),
    findAccount: (accountId) => accounts.findAccount(accountId),
    changeCredential: (change) => accounts.changeCredential(change),
    deleteAccount: (accountId, now) => accounts.deleteAccount(accountId, now),
    setAccountEnabled: (accountId, enabled) => accounts.setAccountEnabled(accountId, enabled),
    block: (accountId, blocked, max) => accounts.block(accountId, blocked, max),
    unblock: (accountId, blocked) => accounts.unblock(accountId, blocked),
    listBlocks: (accountId) => accounts.listBlocks(accountId),
    createInvitation: (invitation) => accounts.createInvitation(invitation),
    hasInvitation: (sha256, now) => accounts.hasInvitation(sha256, now),
    createSession: (session) => devices.createSession(session),
    findSession: (sessionId) => devices.findSession(sessionId),
    touchSession: (sessionId, now) => devices.touchSession(sessionId, now),
    endSession: (sessionId) => devices.endSession(sessionId),
    expireSessions: (idleBefore, createdBefore, limit) =>
      devices.expireSessions(idleBefore, createdBefore, limit),
    listDevices: (accountId) => devices.listDevices(accountId),
    signDevice: (accountId, deviceId, signature) => devices.signDevice(accountId, deviceId, signature),
    revokeDevice: (accountId, deviceId, notice, now) =>
      devices.revokeDevice(accountId, deviceId, notice, now),
    expireDevices: (idleBefore, limit) => devices.expireDevices(idleBefore, limit),
    uploadKeyPackages: (upload) => keyPackages.uploadKeyPackages(upload),
    countKeyPackages: (deviceId, now) => keyPackages.countKeyPackages(deviceId, now),
    claimKeyPackages: (claim) => keyPackages.claimKeyPackages(claim),
    expireKeyPackages: (now, limit) => keyPackages.expireKeyPackages(now, limit),
    enqueue: (message) => queues.enqueue(message),
    fetchAfter: (fetch) => queues.fetchAfter(fetch),
    ack: (deviceId, through) => queues.ack(deviceId, through),
    cursor: (deviceId) => queues.cursor(deviceId),
    expireEntries: (now, limit) => queues.expireEntries(now, limit),
    expireMessageIds: (before, limit, options) => queues.expireMessageIds(before, limit, options),
    expireGuards: (before, limit) => queues.expireGuards(before, limit),
    outboxes: () => outbox.outboxes(),
    outboxAfter: (after) => outbox.outboxAfter(after),
    settleOutbox: (settle) => outbox.settleOutbox(settle, queues),
    setPeerBlocked: (domain, blocked, now) => outbox.setPeerBlocked(domain, blocked, now),
    blockedPeers: () => outbox.blockedPeers(),
    putBlobReference: (reference) => blobs.putBlobReference(reference),
    findBlob: (hash, now) => blobs.findBlob(hash, now),
    deleteBlobReference: (hash, owner) => blobs.deleteBlobReference(hash, owner),
    expireBlobs: (now, limit) => blobs.expireBlobs(now, limit),
    unreferencedBlobs: (hashes) => blobs.unreferencedBlobs(hashes),
    opaqueSetups: () => server.opaqueSetups(),
    initOpaqueSetup: (setup) => server.initOpaqueSetup(setup),
    counts: () => server.counts(),
    writeMark: (now) => server.writeMark(now),
    listAccounts: (page) => admin.listAccounts(page),
    accountsBySetup: () => admin.accountsBySetup(),
    addOpaqueSetup: (setup) => admin.addOpaqueSetup(setup),
    retireOpaqueSetup: (retire) => admin.retireOpaqueSetup(retire),
    findDevices: (find) => admin.findDevices(find),
    topQueues: (limit) => admin.topQueues(limit),
    purgeQueue: (deviceId) => queues.purge(deviceId),
    listBlobs: (page) => admin.listBlobs(page),
    markRestored: () => admin.markRestored(),
    exportPage: (position) => exportPage(connection, position),
    importRows: (rows) => importer.importRows(rows),
  };
  return { verbs, ledger, server, sweepWhenDue: () => queues.sweepWhenDue() };
}

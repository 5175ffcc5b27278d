/** Names of all verbs, apart from what runs them: the network's thread does not load the database. */
import type { Store } from "../store.ts";
import type { ExportPage, ExportPosition } from "./export_rows.ts";

/** The store as its worker sees it. */
export interface InnerStore extends Store {
  /** One page of exportRows. */
  exportPage(position: ExportPosition | null): Promise<ExportPage>;
}

/** Verbs that only read: a batch of them needs no transaction. */
export const READ_VERBS = [
  "findAccountByName",
  "findAccount",
  "listBlocks",
  "hasInvitation",
  "findSession",
  "listDevices",
  "countKeyPackages",
  "fetchAfter",
  "cursor",
  "outboxes",
  "outboxAfter",
  "blockedPeers",
  "findBlob",
  "unreferencedBlobs",
  "opaqueSetups",
  "counts",
  "listAccounts",
  "accountsBySetup",
  "findDevices",
  "topQueues",
  "listBlobs",
  "exportPage",
] as const satisfies readonly (keyof InnerStore)[];

/** Read verbs whose SQL looks at rows that may be written later (deferred.ts). */
export const SETTLED_READ_VERBS: readonly VerbName[] = [
  "listAccounts",
  "findDevices",
  "topQueues",
  "exportPage",
];

/** Verbs that may write. */
export const WRITE_VERBS = [
  "createAccount",
  "changeCredential",
  "deleteAccount",
  "setAccountEnabled",
  "block",
  "unblock",
  "createInvitation",
  "createSession",
  "touchSession",
  "endSession",
  "expireSessions",
  "signDevice",
  "revokeDevice",
  "expireDevices",
  "uploadKeyPackages",
  "claimKeyPackages",
  "expireKeyPackages",
  "enqueue",
  "ack",
  "expireEntries",
  "expireMessageIds",
  "expireGuards",
  "settleOutbox",
  "setPeerBlocked",
  "putBlobReference",
  "deleteBlobReference",
  "expireBlobs",
  "initOpaqueSetup",
  "writeMark",
  "addOpaqueSetup",
  "retireOpaqueSetup",
  "purgeQueue",
  "markRestored",
  "importRows",
] as const satisfies readonly (keyof InnerStore)[];

/** Name of a verb. */
export type VerbName = typeof READ_VERBS[number] | typeof WRITE_VERBS[number];

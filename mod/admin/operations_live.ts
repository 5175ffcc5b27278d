/** What operations need of a running server; mod/server/admin_handlers.ts implements it. */
import type { SessionsEnded } from "../auth/connection_auth.ts";
import type { AccessToken } from "../auth/tokens.ts";
import type { BlobHash } from "../base/ids.ts";
import type { JsonObject } from "./control.ts";
import type { RotatedKey } from "./rotate_history.ts";
import type { CertificateInfo } from "../transport/tls.ts";

/** What a reload did. */
export interface ReloadReport {
  /** Options that are in force now and were not before. */
  readonly applied: readonly string[];
  /** Options that changed and wait for a restart. */
  readonly restart: readonly string[];
  /** Worth knowing, in words. */
  readonly notes: readonly string[];
}

/** One thing that must be so for the server to be healthy. */
export interface HealthCheck {
  readonly name: string;
  readonly ok: boolean;
  readonly reason?: string;
}

/** A client's use of one limit. */
export interface LimitUse {
  readonly limit: string;
  /** Full address or /64, account, or both. */
  readonly key: string;
  /** Tokens left; for connections how many more may come. */
  readonly left: number;
  readonly taken: number;
  readonly refused: number;
}

/** The certificate of the running server. */
export interface LiveCertificates {
  readonly info: CertificateInfo;
  /** A leaf that clients are told of ahead of its time; null: none is planned. */
  readonly next: CertificateInfo | null;
  /** When it will serve, Unix ms. */
  readonly nextServesAt: number | null;
  /**
   * Reads the files again. New connections get what they hold now. Throws, and the old one stays, when they cannot
   * be used. False: they hold what serves already.
   */
  reload(): Promise<boolean>;
  /** Runs `work`, which changes the files, while the server does not. */
  exclusively<T>(work: () => Promise<T>): Promise<T>;
}

/** What follows, in the running server, from changes of accounts in the store. */
export interface LiveAccounts {
  /** Closes the connections of these sessions. */
  sessionsEnded(ended: SessionsEnded): void;
  /** Removes the files of blobs that nobody refers to any more. */
  removeBlobs(hashes: readonly BlobHash[]): Promise<void>;
  /** The store's OPAQUE setups have changed. */
  refreshOpaqueSetups(): Promise<void>;
}

/** The key that the running server's store is under. */
export interface LiveStoreKey {
  /** Text of the key. Never printed. */
  readonly current: string;
  /** Runs `work`, during which writes wait: the server says so where it is asked whether it is well. */
  changing<T>(work: () => Promise<T>): Promise<T>;
  /** The store is under `key` now; `lines` are what db_key has. A reload takes neither for a change. */
  replaced(key: string, lines: readonly string[]): void;
}

/** Figures of the running server that doctor judges. */
export interface LiveVitals {
  /** UDP receive buffer that the kernel gave; null where it does not tell. */
  readonly udpBufferBytes: number | null;
  readonly connections: number;
  /** Connections of the address (IPv6: /64) that has most. */
  readonly connectionsFromOneAddress: number;
}

/** Exchange with other servers, in the running server. */
export interface LiveFederation {
  /** What waits for each of them, and what is done about it. */
  status(): Promise<JsonObject>;
  /** Who they are: listed, blocked, linked. */
  peers(): Promise<JsonObject[]>;
  /** Tries what waits at once; returns the domains for which something does. Null: all. */
  retry(domain: string | null, when: "now" | "dryRun"): Promise<readonly string[]>;
  /** The store has it already; in force from now on. */
  setBlocked(domain: string, state: "blocked" | "unblocked"): void;
  /** Gives up what waits for a blocked domain, and tells the senders. Returns how many messages. */
  drop(domain: string): Promise<number>;
}

/** The running server. */
export interface LiveServer {
  /** Everything that `status` shows. */
  status(): Promise<JsonObject>;
  health(): Promise<readonly HealthCheck[]>;
  /** Atomic: throws, and nothing has changed, when the configuration or a file of it cannot be used. */
  reload(): Promise<ReloadReport>;
  /** Begins or ends a drain: nothing new is accepted, the process lives on. */
  drain(begin: boolean): void;
  readonly logFilter: string;
  /** Until the next reload or start. Returns problems in words, and then changes nothing. */
  setLogFilter(filter: string): readonly string[];
  /** Why nothing expires; null when all is well. */
  readonly expiryPausedBecause: string | null;
  resumeExpiry(): void;
  topLimits(count: number): readonly LimitUse[];
  /** Logs hide this from now on. */
  hideSecret(secret: string): void;
  /** Exactly these admit from now on; connections that are there stay. */
  replaceTokens(tokens: readonly AccessToken[]): Promise<void>;
  readonly certificates: LiveCertificates;
  readonly accounts: LiveAccounts;
  readonly storeKey: LiveStoreKey;
  vitals(): LiveVitals;
  /** What a reload would refuse, in words; empty when it would work. */
  configurationProblems(): Promise<readonly string[]>;
  /** Files of blobs deleted from now on are kept until the returned function is called: see BlobFiles.keepDeleted. */
  keepDeletedBlobs(): () => Promise<void>;
  /** Aborts when the server is being stopped: long work that can be done again ends. */
  readonly stopping: AbortSignal;
  /** Null: this server does not federate. */
  readonly federation: LiveFederation | null;
  /** A rotation was finished: for log and metrics. */
  rotated(key: RotatedKey): void;
}

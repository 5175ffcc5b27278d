/** What operations need of a running server; mod/server/admin_handlers.ts implements it. */
import type { AccessToken } from "../auth/tokens.ts";
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
  /** A rotation was finished: for log and metrics. */
  rotated(key: RotatedKey): void;
}

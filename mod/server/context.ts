/** What a request is handled with: the server's parts, and the connection it came on. */
import type { Authenticator, ConnectionAuth } from "../auth/authenticator.ts";
import type { Clock } from "../base/clock.ts";
import type { Settings } from "../config/options.ts";
import type { Blobs } from "../delivery/blobs.ts";
import type { KeyPackages } from "../delivery/keypackages.ts";
import type { Delivery, DeliveryLimits } from "../delivery/queues.ts";
import type { Federation } from "../federation/federation.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { CloseCode } from "../protocol/close_codes.ts";
import type { Store } from "../store/store.ts";
import type { BadRequests } from "./bad_requests.ts";
import type { Certificates } from "./certificates.ts";
import type { DiskSpace } from "./disk_space.ts";
import type { Limits } from "./limits.ts";
import type { MemoryBudget } from "./memory_budget.ts";
import type { Registry } from "./registry.ts";
import type { ReplyTurn } from "./reply_turns.ts";
import type { RequestsInFlight } from "../base/requests_in_flight.ts";

/** The parts of a running server that requests need. */
export interface ServerContext {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly store: Store;
  readonly metrics: Metrics;
  readonly authenticator: Authenticator;
  readonly delivery: Delivery;
  readonly deliveryLimits: DeliveryLimits;
  readonly keyPackages: KeyPackages;
  readonly blobs: Blobs;
  readonly certificates: Certificates;
  readonly limits: Limits;
  readonly memory: MemoryBudget;
  readonly disk: DiskSpace;
  readonly registry: Registry;
  readonly requestsInFlight: RequestsInFlight;
  /** Exchange with other servers; null when it is off. */
  federation: Federation | null;
  /** Shutting down: nothing new is begun. */
  draining: boolean;
  /** The store is being encrypted under another key: writes wait. */
  rekeying: boolean;
}

/** What requests see of their connection. */
export interface ConnectionState {
  readonly auth: ConnectionAuth;
  helloDone: boolean;
  /** Logged out, or deleted: only waits for its reply to leave. */
  readonly sessionEnded: boolean;
  /** For limits: never logged. */
  readonly limitKey: string;
  /** For logs: /24 or /48. */
  readonly maskedAddress: string;
  /** Aborts when the connection is gone. */
  readonly gone: AbortSignal;
  readonly badRequests: BadRequests;
  /** Call it after a login or resume succeeded; throws `sessionExpired` when it was ended meanwhile. */
  loggedIn(): Promise<void>;
  close(code: CloseCode): void;
}

/** One request's surroundings. */
export interface RequestContext {
  readonly server: ServerContext;
  readonly connection: ConnectionState;
  /** Taken before a large reply is made. */
  readonly turn: ReplyTurn;
}

/** The caller of a method that needs a login (dispatch has checked it). */
export function callerOf(context: RequestContext): NonNullable<ConnectionAuth["login"]> {
  return context.connection.auth.login!;
}

/** What authentication remembers of one connection, and who must hear of what it decides. */
import { type Bytes, randomBytes } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import type { AccountId, DeviceId, SessionId } from "../base/ids.ts";
import type { Account } from "../store/store.ts";

/** Who is logged in on a connection. */
export interface Login {
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
  readonly deviceKey: Uint8Array;
  readonly sessionId: SessionId;
  /** The account key has signed this device. */
  deviceSigned: boolean;
  /**
   * This login answered `reregister`: the next change of password on this connection renews the record under the
   * newest setup, for the client's own password, and ends nothing.
   */
  renewsRecord: boolean;
  /** Until then (monotonic ms) the password counts as just proven; 0 after a Resume. */
  readonly freshUntil: number;
  /** When the session was made. */
  readonly createdAt: number;
  /** When the store last heard that the session is in use. */
  touchedAt: number;
}

/** What the second half of an exchange needs from the first. */
export type PendingWork =
  | {
    readonly kind: "registration";
    readonly userName: string;
    readonly suiteId: number;
    readonly setupId: number;
    readonly invitationSha256: Uint8Array | null;
  }
  | {
    readonly kind: "login";
    readonly userName: string;
    readonly suiteId: number;
    readonly state: Uint8Array;
    /** Null: there is no such user, and KE3 cannot verify. */
    readonly account: Account | null;
  }
  | {
    readonly kind: "passwordChange";
    readonly accountId: AccountId;
    readonly suiteId: number;
    readonly setupId: number;
  };

/** One exchange between its halves. */
export interface Pending {
  readonly work: PendingWork;
  /** Monotonic ms. */
  readonly expiresAt: number;
  readonly cancelTimer: () => void;
}

/** One connection's state. Made by {@link Authenticator.newConnection}; never shared between connections. */
export class ConnectionAuth {
  /** Signed by LoginFinish and Resume, so that neither can be replayed on another connection. */
  readonly serverNonce: Bytes = randomBytes(32);
  /** Showed the access token, or the server runs without one. */
  admitted = false;
  /** Set once by a login or resume; stays until the connection is gone. */
  login: Login | null = null;
  /** A LoginFinish or Resume is being judged. */
  loggingIn = false;
  /** The connection is gone. */
  closed = false;
  /** Exchanges begun and not finished, by handle. */
  readonly pending: Map<number, Pending> = new Map();
  /** Exchanges whose first answer is being computed. */
  starting = 0;
}

/** Sessions that have ended. All of the account's that match every given field, but `except`. */
export interface SessionsEnded {
  readonly accountId: AccountId;
  readonly deviceId?: DeviceId;
  readonly sessionId?: SessionId;
  readonly except?: SessionId;
  /** The connection whose request ended them, if it is concerned: to be closed after its reply. */
  readonly initiator?: ConnectionAuth;
}

/** A login attempt, for limits: `userName` is normalised. */
export interface LoginEvent {
  readonly auth: ConnectionAuth;
  readonly userName: string;
}

/** Who must hear of decisions. Called synchronously; must not throw. */
export interface AuthEvents {
  /** A bad KE3 or binding, a timeout, or a close after KE2: once for each LoginStart. */
  onLoginFailure(event: LoginEvent): void;
  /** KE3 verified: what the attempt was charged may be refunded. */
  onPasswordProven(event: LoginEvent): void;
  /** LoginFinish succeeded. */
  onLoginSuccess(event: LoginEvent): void;
  /** An account has as many open invitations as it may. */
  onTooManyInvitations?(): void;
  /** Live connections of these sessions are to be closed. */
  onSessionsEnded(ended: SessionsEnded): void;
}

/** The login of a connection; throws `loginRequired`. */
export function requireLogin(auth: ConnectionAuth): Login {
  if (!auth.login) throw new QpqError("loginRequired", "Cannot serve this before a login");
  return auth.login;
}

/** Throws `alreadyLoggedIn` when the connection has a login or is getting one. */
export function requireNoLogin(auth: ConnectionAuth): void {
  if (auth.login || auth.loggingIn) {
    throw new QpqError("alreadyLoggedIn", "Cannot log in twice on a connection");
  }
}

/** The login of a connection when the password was proven on it lately; throws `freshLoginRequired`. */
export function requireFreshLogin(auth: ConnectionAuth, clock: Clock): Login {
  const login = requireLogin(auth);
  if (clock.monotonic() < login.freshUntil) return login;
  throw new QpqError("freshLoginRequired", "Cannot serve this so long after the password was proven");
}

/**
 * What a person can do about an error, by its name. Texts are for a command line and for applications alike.
 */
import { type ErrorCode, QpqError } from "../base/errors.ts";

const ADVICE: Partial<Record<ErrorCode, string>> = {
  invalidToken: "Ask the server's operator for the present access token; it may have been rotated",
  tokenRequired: "Give the server's access token, or an invitation when you register",
  registrationRefused: "Ask for a new invitation, or choose another name",
  userNameTaken: "Choose another name; if the account is yours, log in",
  loginFailed: "Check the user name and the password",
  loginRequired: "Log in first",
  freshLoginRequired: "Give the password again",
  sessionExpired: "Log in again; this device keeps its groups and messages",
  deviceRevoked: "This device was removed from the account; log in with a new state folder",
  deviceConflict: "The state folder belongs to another account or was copied; use a new one",
  accountDisabled: "Ask the server's operator",
  tooManyDevices: "Revoke a device that is no longer used, from one that is logged in",
  noKeyPackages: "The user does not exist, or has not logged in on any device yet",
  storeFull: "Nothing was stored; tell the server's operator and try again later",
  quotaExceeded: "Wait until the quota is renewed, or ask the server's operator for a larger one",
  blobQuotaExceeded: "Wait until older files expire, or ask the server's operator for a larger quota",
  blobNotFound: "The file has expired; ask the sender to send it again",
  shuttingDown: "Try again in a moment",
  overloaded: "Try again in a moment",
  peerUnavailable:
    "The other server is down or out of reach: try again later; your own server goes on meanwhile",
  unknownDomain:
    "Check the address; if it is right, ask your server's operator to exchange messages with that server",
  rateLimited: "Wait before the next attempt",
};

/** What to do about `error`; undefined when there is nothing better than its own message. */
export function adviceFor(error: unknown): string | undefined {
  if (!(error instanceof QpqError)) return undefined;
  const advice = ADVICE[error.code];
  const { retryAfterMs } = error.details;
  if (retryAfterMs === undefined) return advice;
  const wait = `try again in ${Math.ceil(retryAfterMs / 1000)} s`;
  return advice === undefined ? wait[0]!.toUpperCase() + wait.slice(1) : `${advice} (${wait})`;
}

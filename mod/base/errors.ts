/**
 * THE error table: every expected failure has a name, a wire number that is never reused, and a text for the
 * peer. What is thrown is a {@link QpqError}; its message and cause go to the log only.
 */

interface ErrorRow {
  /** Number in the frame's code field; 1–999, never reused. */
  readonly number: number;
  /** What the peer is told. */
  readonly text: string;
}

/** All errors by name. */
export const ERRORS = {
  internal: { number: 1, text: "The server failed to handle this request; try again later" },
  malformedRequest: { number: 2, text: "The request is malformed or a field is outside its bounds" },
  unknownMethod: { number: 3, text: "The server does not know this method; it may be older than the client" },
  helloRequired: { number: 4, text: "Send Hello first" },
  helloRepeated: { number: 5, text: "Hello was already sent on this connection" },
  loginRequired: { number: 6, text: "Log in or resume a session first" },
  freshLoginRequired: { number: 7, text: "This needs a login with the password within the last 5 minutes" },
  requestTooLarge: { number: 8, text: "The request is larger than this method allows" },
  rateLimited: { number: 9, text: "Too many requests; try again later" },
  overloaded: { number: 10, text: "The server is overloaded; try again later" },
  shuttingDown: { number: 11, text: "The server is shutting down; connect again later" },
  ownStreamRequired: { number: 12, text: "This method must be the first frame on a stream of its own" },
  alreadyLoggedIn: { number: 13, text: "This connection is already logged in; use a new connection" },
  duplicateRequest: { number: 14, text: "A request with this id is still being answered on this stream" },

  invalidToken: { number: 20, text: "The access token is not valid" },
  tokenRequired: { number: 21, text: "This needs the server's access token or an invitation" },
  registrationRefused: {
    number: 22,
    text: "Registration refused: the invitation is not valid or the name is not available",
  },
  userNameTaken: { number: 23, text: "This user name is taken" },
  userNameInvalid: {
    number: 24,
    text: "User names are a-z 0-9 . _ - (1 to 64), beginning with a letter or digit",
  },
  loginFailed: { number: 25, text: "Login failed" },
  sessionExpired: { number: 26, text: "The session has expired; log in again" },
  deviceRevoked: { number: 27, text: "This device was revoked; log in as a new device" },
  accountDisabled: { number: 28, text: "This account is disabled; ask the operator of the server" },
  tooManyDevices: { number: 29, text: "The account has the most devices allowed; revoke one first" },
  deviceConflict: {
    number: 30,
    text: "This device id belongs to another key or account; log in as a new device",
  },
  invalidSignature: { number: 31, text: "A signature does not verify" },
  deviceUnsigned: { number: 32, text: "Sign this device with the account key first" },
  invitationsOff: { number: 33, text: "You may not invite here, or only with the access token" },

  keyPackageInvalid: { number: 40, text: "A KeyPackage is not valid" },
  keyPackageLimit: { number: 41, text: "The device has the most KeyPackages allowed" },
  noKeyPackages: { number: 42, text: "No KeyPackages for this user" },

  wrongEpoch: { number: 50, text: "Another commit of this epoch was accepted first" },
  guardRequired: { number: 51, text: "Commits to this group need a commit guard" },
  guardMismatch: { number: 52, text: "The commit guard does not agree with the message" },
  idConflict: { number: 53, text: "This message id was used with other content" },
  quotaExceeded: { number: 54, text: "The sending quota is used up; try again later" },
  payloadTooLarge: { number: 55, text: "A payload is larger than the server allows" },
  ackBeyondEnd: { number: 56, text: "This sequence number was not assigned yet" },
  replaced: { number: 57, text: "A newer subscriber took over" },

  blobNotFound: { number: 60, text: "There is no such blob, or it has expired" },
  blobHashMismatch: { number: 61, text: "The bytes do not have the announced SHA-256" },
  blobQuotaExceeded: {
    number: 62,
    text: "The account's blob quota is used up; delete blobs or wait for expiry",
  },
  blobTooLarge: { number: 63, text: "The blob is larger than the server allows" },
  rangeInvalid: { number: 64, text: "The range is outside the blob" },
  notFound: { number: 70, text: "There is no such thing, or it is not yours" },

  storeUnavailable: { number: 80, text: "The server cannot reach its store; try again later" },
  storeFull: { number: 81, text: "The server's disk is full; nothing was stored; try again later" },

  peerUnavailable: { number: 90, text: "The other server cannot be reached now; try again later" },
  unknownDomain: { number: 91, text: "This server does not exchange messages with that domain" },
  peerRefused: {
    number: 92,
    text: "This server does not take the caller for the server that it claims to be, or for a peer",
  },
} as const satisfies Record<string, ErrorRow>;

/** Name of an expected failure. */
export type ErrorCode = keyof typeof ERRORS;

const codeByNumber = new Map<number, ErrorCode>(
  (Object.keys(ERRORS) as ErrorCode[]).map((code) => [ERRORS[code].number, code]),
);

/** The name behind a wire number; undefined for a number that this version does not know. */
export function errorCodeOf(number: number): ErrorCode | undefined {
  return codeByNumber.get(number);
}

/** What the peer is told beside number and text. */
export interface ErrorDetails {
  /** After how many milliseconds a retry makes sense. */
  readonly retryAfterMs?: number;
  /** The group's current epoch, with `wrongEpoch`. */
  readonly currentEpoch?: number;
}

/** An expected failure. Message: capital, no period, action, then the current value; it goes to the log, not the wire. */
export class QpqError extends Error {
  override name = "QpqError";
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, options: ErrorDetails & { cause?: unknown } = {}) {
    const { cause, ...details } = options;
    super(message, cause === undefined ? {} : { cause });
    this.code = code;
    this.details = details;
  }
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

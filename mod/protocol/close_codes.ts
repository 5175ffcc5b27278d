/** Application error codes of CONNECTION_CLOSE (RFC 9000 §19.19). Numbers are never reused. */
export const CLOSE_CODES = {
  /** The peer has what it wanted. */
  done: 0,
  /** An address has too many connections, or opens them too fast. */
  rateLimited: 1,
  /** The server has the most connections it takes. */
  overloaded: 2,
  /** The server is going down; come back later. */
  shuttingDown: 3,
  /** The peer broke the protocol in a way that leaves nothing to answer. */
  protocolError: 4,
  /** The session ended: logged out, revoked, disabled, deleted, or the password was changed. */
  sessionEnded: 5,
  /** No Hello or no login in time. */
  loginTimeout: 6,
  /** The peer does not read what it asked for. */
  notReading: 7,
  /** A bug of the server. */
  internal: 8,
} as const;

/** Name of a close code. */
export type CloseCode = keyof typeof CLOSE_CODES;

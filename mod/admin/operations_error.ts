/** The failure of an administrative operation. */

/** It was refused or failed, and nothing was changed beyond what the message says. The message says what to do. */
export class AdminError extends Error {
  override name = "AdminError";
}
